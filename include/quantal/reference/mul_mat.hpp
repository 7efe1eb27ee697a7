// Products in float64 with the dequantized weights: slow, obvious, and what tests compare kernels with.
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "quantal/dequantize.hpp"
#include "quantal/kernel/args.hpp"

namespace quantal::reference {

/// result[t * rows + r], accumulated in float64; NaN where rows of that format cannot be decoded.
inline std::vector<double> mul_mat(std::uint32_t gguf_id, const mul_mat_args& a) {
  std::vector<double> out(static_cast<std::size_t>(a.n * a.rows));
  std::vector<float> row(static_cast<std::size_t>(a.cols));
  for (std::int64_t r = 0; r < a.rows; ++r) {
    if (dequantize_row(gguf_id, a.weights + r * a.weight_row_stride, row.data(), a.cols) != status::ok)
      std::fill(row.begin(), row.end(), std::numeric_limits<float>::quiet_NaN());
    for (std::int64_t t = 0; t < a.n; ++t) {
      double sum = 0;
      for (std::int64_t c = 0; c < a.cols; ++c)
        sum += double{row[static_cast<std::size_t>(c)]} * a.activations[t * a.activation_stride + c];
      out[static_cast<std::size_t>(t * a.rows + r)] = sum;
    }
  }
  return out;
}

/// result[(t * used + j) * rows + r], accumulated in float64.
inline std::vector<double> mul_mat_id(std::uint32_t gguf_id, const mul_mat_id_args& a) {
  std::vector<double> out;
  for (std::int64_t t = 0; t < a.tokens; ++t)
    for (std::int64_t j = 0; j < a.used; ++j) {
      const mul_mat_args one{.weights = a.weights + a.ids[t * a.ids_stride + j] * a.expert_stride,
                             .rows = a.rows,
                             .cols = a.cols,
                             .weight_row_stride = a.weight_row_stride,
                             .activations = a.activations + t * a.token_stride + j * a.slot_stride,
                             .n = 1,
                             .activation_stride = a.cols,
                             .out = nullptr,
                             .out_stride = a.rows};
      const auto y = mul_mat(gguf_id, one);
      out.insert(out.end(), y.begin(), y.end());
    }
  return out;
}

}  // namespace quantal::reference
