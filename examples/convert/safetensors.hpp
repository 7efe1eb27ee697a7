// One safetensors file: u64 header length, JSON header, tensor bytes. Mapped, and every claim of the header
// checked before anything relies on it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "quantal/gguf/mapped_file.hpp"
#include "quantal/result.hpp"

namespace quantal::hf {

/// Element types by their names in headers. Floats of the first kinds are weights and scales, integers
/// hold packed weights; the others are sized and listed only.
enum class dtype : std::uint8_t {
  bf16,
  f16,
  f32,
  f8_e4m3,
  f8_e8m0,
  f4,  ///< e2m1, two in a byte; shapes count the numbers
  f64,
  f8_e5m2,
  i8,
  u8,
  i16,
  u16,
  i32,
  u32,
  i64,
  u64,
  boolean
};
std::string_view to_string(dtype) noexcept;
std::optional<dtype> find_dtype(std::string_view name) noexcept;
std::int64_t bits_of(dtype) noexcept;

struct stored_tensor {
  std::string name;
  dtype type = dtype::f32;
  std::vector<std::int64_t> shape;   ///< outermost dimension first; empty: a scalar
  std::span<const std::byte> bytes;  ///< in the mapping of its file

  std::int64_t elements() const noexcept;
  /// "[256, 128]".
  std::string shape_text() const;
};

class safetensors_file {
 public:
  /// Errors name the file, the tensor and the cause: a truncated or absurdly long header, JSON that is no
  /// header, an unknown dtype, a size that does not follow from dtype and shape, offsets that overlap, leave
  /// holes or lie outside the file.
  static result<safetensors_file> open(const std::filesystem::path& path);

  const std::filesystem::path& path() const noexcept { return path_; }
  /// In the order of their bytes.
  const std::vector<stored_tensor>& tensors() const noexcept { return tensors_; }
  const stored_tensor* find(std::string_view name) const;

 private:
  std::filesystem::path path_;
  gguf::mapped_file file_;
  std::vector<stored_tensor> tensors_;
  std::unordered_map<std::string, std::size_t> by_name_;
};

}  // namespace quantal::hf
