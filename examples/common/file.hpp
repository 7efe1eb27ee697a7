// Whole files: raw arrays and text in and out, with errors that name the file.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "quantal/atomic_file.hpp"
#include "quantal/gguf/mapped_file.hpp"
#include "quantal/result.hpp"

namespace quantal::file {

static_assert(std::endian::native == std::endian::little, "raw files are little-endian");

/// A file of T and nothing else; an error if its size is not a whole number of T.
template <class T>
result<std::vector<T>> read_raw(const std::filesystem::path& path) {
  auto mapped = gguf::mapped_file::open(path);
  if (!mapped) return mapped.error();
  const auto bytes = mapped->bytes();
  if (bytes.size() % sizeof(T) != 0)
    return error{path.string() + ": " + std::to_string(bytes.size()) + " bytes are not a whole number of " +
                 std::to_string(sizeof(T)) + "-byte values"};
  std::vector<T> out(bytes.size() / sizeof(T));
  if (!bytes.empty()) std::memcpy(out.data(), bytes.data(), bytes.size());
  return out;
}

/// A regular file, or what a FIFO or a device gives until it ends.
result<std::string> read_text(const std::filesystem::path& path);

/// The file appears whole or not at all.
inline result<void> write(const std::filesystem::path& path, std::span<const std::byte> bytes) {
  auto out = atomic_file::create(path);
  if (!out) return out.error();
  if (auto w = out->write(bytes); !w) return w;
  return out->commit();
}
inline result<void> write(const std::filesystem::path& path, std::string_view text) {
  return write(path, std::as_bytes(std::span(text.data(), text.size())));
}
template <class T>
result<void> write_raw(const std::filesystem::path& path, const std::vector<T>& values) {
  return write(path, std::as_bytes(std::span(values)));
}

}  // namespace quantal::file
