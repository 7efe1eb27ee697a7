// Rows of weights as float32.
#pragma once

#include "quantal/checks.hpp"
#include "quantal/cuda/launch.cuh"
#include "quantal/formats.hpp"
#include "quantal/status.hpp"

namespace quantal::cuda {

/// One thread per weight; out[r * out_stride + c].
template <any_format F>
__global__ void dequantize_rows(const std::byte* weights, std::int64_t rows, std::int64_t cols,
                                std::int64_t row_stride, float* out, std::int64_t out_stride) {
  const std::int64_t c = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (c >= cols) return;
  for (std::int64_t r = blockIdx.y; r < rows; r += gridDim.y) {
    const std::byte* row = weights + r * row_stride;
    const auto* blocks = row_blocks<F>(row);
    if constexpr (float_format<F>) {
      out[r * out_stride + c] = F::value(blocks[c]);
    } else {
      constexpr int n = F::layout.elements;
      out[r * out_stride + c] = weight<F>(blocks[c / n], row_scale<F>(row), static_cast<int>(c % n));
    }
  }
}

/// out[r * out_stride + c] = W[r][c], bit for bit what the host decodes.
template <any_format F>
status dequantize(const std::byte* weights, std::int64_t rows, std::int64_t cols, std::int64_t row_stride,
                  float* out, std::int64_t out_stride, cudaStream_t stream) noexcept {
  const checks::weight_stack stack{weights, 1, rows, cols, row_stride, 0};
  if (rows == 0 || cols == 0) return rows < 0 || cols < 0 ? status::bad_shape : status::ok;
  if (const status s = checks::check_decoding(checks::row_layout_of<F>, stack, out, out_stride);
      s != status::ok)
    return s;
  const dim3 grid(static_cast<unsigned>((cols + 255) / 256),
                  static_cast<unsigned>(rows < 16384 ? rows : 16384));
  dequantize_rows<F><<<grid, 256, 0, stream>>>(weights, rows, cols, row_stride, out, out_stride);
  return cudaGetLastError() == cudaSuccess ? status::ok : status::device_error;
}

}  // namespace quantal::cuda
