// A format and an arch as output-aware quantization sees them: pointers, so that one driver serves all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantal/status.hpp"

namespace quantal::quantize {

inline constexpr int code_group = 8;

/// Eight weights at column `first` (a multiple of 8) of a row.
struct group_target {
  const float* x;
  const float* y;
  const float* factor;  ///< U, row-major
  std::int64_t stride;  ///< of its rows
};

/// A format, as the driver in output_aware.hpp sees it: one driver serves all.
struct output_coder {
  int elements;  ///< weights per block: cols is a multiple of it
  std::int64_t (*row_bytes)(std::int64_t cols) noexcept;
  status (*quantize)(const float* x, const float* importance, std::byte* row, std::int64_t cols) noexcept;
  void (*dequantize)(const std::byte* row, float* out, std::int64_t cols) noexcept;
  /// Stores the codes of eight weights and tells what they decode to.
  void (*choose)(std::byte* row, std::int64_t first, const group_target&, float* decoded) noexcept;
};

/// e: rows x k, u: k x cols, y: rows x cols, row-major with strides; cols is a multiple of 16.
using row_product = void (*)(const float* e, std::int64_t e_stride, const float* u, std::int64_t u_stride,
                             float* y, std::int64_t y_stride, int rows, std::int64_t k,
                             std::int64_t cols) noexcept;

/// Columns of `u` come in multiples of this.
inline constexpr int product_columns = 16;

}  // namespace quantal::quantize
