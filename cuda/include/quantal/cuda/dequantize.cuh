// Rows of weights as float32.
#pragma once

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
  if (rows < 0 || cols < 0 || cols % F::layout.elements) return status::bad_shape;
  if (row_stride < row_bytes<F>(cols) || out_stride < cols) return status::bad_stride;
  if (rows == 0 || cols == 0) return status::ok;
  if (!weights || !out) return status::null_pointer;
  const dim3 grid(static_cast<unsigned>((cols + 255) / 256),
                  static_cast<unsigned>(rows < 16384 ? rows : 16384));
  dequantize_rows<F><<<grid, 256, 0, stream>>>(weights, rows, cols, row_stride, out, out_stride);
  return cudaGetLastError() == cudaSuccess ? status::ok : status::device_error;
}

}  // namespace quantal::cuda
