// A small GGUF with every value type and several tensor types.
#pragma once

#include <gtest/gtest.h>

#include "quantal/gguf/writer.hpp"
#include "support/temp_dir.hpp"

namespace quantal::test {

inline gguf::metadata every_type() {
  gguf::metadata m;
  m.set("general.architecture", std::string("test"));
  m.set("a.u8", std::uint8_t{200});
  m.set("a.i8", std::int8_t{-100});
  m.set("a.u16", std::uint16_t{60000});
  m.set("a.i16", std::int16_t{-30000});
  m.set("a.u32", std::uint32_t{4000000000u});
  m.set("a.i32", std::int32_t{-2000000000});
  m.set("a.f32", 1.5f);
  m.set("a.bool", true);
  m.set("a.u64", std::uint64_t{1} << 63);
  m.set("a.i64", std::int64_t{-5});
  m.set("a.f64", -2.25);
  m.set("a.string", std::string("\0with zero", 10));
  m.set("b.u8", gguf::array(std::vector<std::uint8_t>{1, 2}));
  m.set("b.bool", gguf::array(std::vector<bool>{true, false, true}));
  m.set("b.strings", gguf::array(std::vector<std::string>{"", "two", "three"}));
  m.set("b.f64", gguf::array(std::vector<double>{1e300, -1e-300}));
  m.set("b.empty", gguf::array(std::vector<std::int32_t>{}));
  return m;
}

inline std::vector<gguf::tensor_info> some_tensors() {
  return {{"vector", f32::gguf_id, 1, {5, 1, 1, 1}},
          {"matrix", q4_0::gguf_id, 2, {64, 3, 1, 1}},
          {"experts", bf16::gguf_id, 3, {4, 3, 2, 1}},
          {"ints", 26, 1, {3, 1, 1, 1}}};
}

inline std::string tensor_bytes_of(const gguf::tensor_info& t) {
  std::string s(static_cast<std::size_t>(*gguf::tensor_bytes(t.type, t.ne)), '\0');
  for (std::size_t i = 0; i < s.size(); ++i) s[i] = static_cast<char>(i * 7 + t.name.size());
  return s;
}

inline void write_small(const std::filesystem::path& path, const gguf::metadata& meta = every_type(),
                        const std::vector<gguf::tensor_info>& tensors = some_tensors()) {
  auto w = gguf::writer::create(path, meta, tensors);
  ASSERT_TRUE(w) << w.error().message;
  for (const auto& t : tensors) {
    const auto bytes = tensor_bytes_of(t);
    ASSERT_TRUE(w->append(std::as_bytes(std::span(bytes))));
  }
  const auto done = w->finish();
  ASSERT_TRUE(done) << done.error().message;
}

}  // namespace quantal::test
