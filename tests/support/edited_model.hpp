// A model with something changed: other keys, other bytes of a tensor.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "quantal/gguf/reader.hpp"
#include "quantal/gguf/writer.hpp"

namespace quantal::test {

struct model_edit {
  std::function<void(gguf::metadata&)> keys = {};
  std::string tensor = {};  ///< whose bytes change
  std::function<void(std::vector<std::byte>&)> bytes = {};
};

inline void edit_model(const std::filesystem::path& from, const std::filesystem::path& to,
                       const model_edit& edit) {
  const auto in = gguf::reader::open(from);
  ASSERT_TRUE(in) << in.error().message;
  gguf::metadata meta = in->meta();
  if (edit.keys) edit.keys(meta);
  auto out = gguf::writer::create(to, meta, in->tensors());
  ASSERT_TRUE(out) << out.error().message;
  for (const auto& t : in->tensors()) {
    const auto data = *in->data(t);
    std::vector<std::byte> bytes(data.begin(), data.end());
    if (edit.bytes && t.name == edit.tensor) edit.bytes(bytes);
    ASSERT_TRUE(out->append(bytes));
  }
  const auto done = out->finish();
  ASSERT_TRUE(done) << done.error().message;
}

/// The first weight of a bf16 tensor becomes a NaN.
inline model_edit nan_in(const std::string& tensor) {
  return {{}, tensor, [](std::vector<std::byte>& b) { b[0] = std::byte{0xc0}, b[1] = std::byte{0x7f}; }};
}
inline model_edit without_key(const std::string& key) {
  return {[key](gguf::metadata& m) { m.erase(key); }};
}
inline model_edit with_key(const std::string& key, gguf::value v) {
  return {[key, v](gguf::metadata& m) { m.set(key, v); }};
}

}  // namespace quantal::test
