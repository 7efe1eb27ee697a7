// A matrix of a checkpoint as the floats it stands for: bf16, f16, f32, or fp8 e4m3 with one scale per block.
#pragma once

#include <array>
#include <vector>

#include "checkpoint.hpp"

namespace quantal::hf {

/// The value of an e4m3 number (4 exponent bits of bias 7, 3 of mantissa, no infinities; 0x7f and 0xff are
/// NaN).
float e4m3_value(std::uint8_t bits) noexcept;

class stored_matrix {
 public:
  /// Finds `name` and, for fp8, its scales `name`_scale_inv [ceil(rows / block[0]), ceil(cols / block[1])].
  /// Errors name the file and the tensor: missing, another shape, a type that holds no weights, missing or
  /// wrong scales. A vector is a matrix of one row.
  static result<stored_matrix> find(const checkpoint& c, const std::string& name, std::int64_t rows,
                                    std::int64_t cols, const std::array<std::int64_t, 2>& block);

  dtype type() const noexcept { return tensor_->type; }
  /// The bytes as stored, without scales.
  std::span<const std::byte> bytes() const noexcept { return tensor_->bytes; }
  /// The bytes of a row as stored.
  const std::byte* stored_row(std::int64_t r) const noexcept;
  /// Floats of a row; fp8 values times their scales, each product rounded to f32.
  void row(std::int64_t r, float* out) const noexcept;
  float at(std::int64_t r, std::int64_t c) const noexcept;

 private:
  float scale(std::int64_t r, std::int64_t c) const noexcept {
    return scales_[static_cast<std::size_t>(r / block_[0] * scale_cols_ + c / block_[1])];
  }

  const stored_tensor* tensor_ = nullptr;
  std::int64_t cols_ = 0, scale_cols_ = 0;
  std::array<std::int64_t, 2> block_{1, 1};
  std::vector<float> scales_;  ///< empty but for fp8
};

}  // namespace quantal::hf
