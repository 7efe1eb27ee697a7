// The device's operations by format number, for programs that learn the format at run time. Needs no CUDA
// compiler: the functions are in the library quantal::cuda_operations, one translation unit per format.
#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "quantal/cuda/device.hpp"
#include "quantal/cuda/moe.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/status.hpp"

namespace quantal::cuda {

/// What dequantize.cuh, mul_mat.cuh and moe_ffn.cuh offer for one format.
struct operations {
  std::string_view name;
  std::uint32_t gguf_id;
  status (*dequantize)(const std::byte* weights, std::int64_t rows, std::int64_t cols,
                       std::int64_t row_stride, float* out, std::int64_t out_stride,
                       cudaStream_t stream) noexcept;
  std::size_t (*mul_mat_workspace)(const mul_mat_args&, precision, const device_info&) noexcept;
  status (*mul_mat)(const mul_mat_args&, precision, const device_info&, void* workspace, std::size_t bytes,
                    cudaStream_t stream) noexcept;
  std::size_t (*mul_mat_id_workspace)(const mul_mat_id_args&, precision, const device_info&) noexcept;
  status (*mul_mat_id)(const mul_mat_id_args&, precision, const device_info&, void* workspace,
                       std::size_t bytes, cudaStream_t stream) noexcept;
  moe_half moe_hidden, moe_output;  ///< for moe_ffn()
};

/// Of every format that was compiled: all, or those of the CMake variable QUANTAL_CUDA_FORMATS.
std::span<const operations* const> all_operations() noexcept;

/// Of a format, or null: say missing_format() then.
inline const operations* find_operations(std::uint32_t gguf_id) noexcept {
  for (const operations* o : all_operations())
    if (o->gguf_id == gguf_id) return o;
  return nullptr;
}

/// What to tell a user whose format was not compiled: which ones were, and what to build with.
inline std::string missing_format(std::string_view name) {
  std::string text = "format " + std::string(name) + " is not in this build: QUANTAL_CUDA_FORMATS=";
  for (const operations* o : all_operations()) {
    if (o != all_operations().front()) text += ';';
    text += o->name;
  }
  return text;
}

}  // namespace quantal::cuda
