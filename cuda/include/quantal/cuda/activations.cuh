// Activations made ready for tensor-core products: rounded to bf16 and laid out so that a block of any number
// of columns and 64 weights is contiguous and can be copied to shared memory as it is.
//
//   [chunk of 64 columns of the matrix][group of 8 vectors][8 sub-chunks of 8][8 vectors][8 values]
//
// Each 8 x 8 tile of 128 bytes is a core matrix of wgmma's layout without swizzle. Within a chunk of 32 the
// values are in the order in which lanes hold the codes of the format.
#pragma once

#include "quantal/cuda/fragment_codes.hpp"
#include "quantal/cuda/ptx.cuh"

namespace quantal::cuda {

inline constexpr int chunk_values = 64;  ///< values of a vector per contiguous block

/// Bytes of a prepared group of 8 vectors for 64 columns.
inline constexpr int tile_group_bytes = 8 * chunk_values * 2;

constexpr std::int64_t prepared_chunks(std::int64_t cols) noexcept {
  return (cols + chunk_values - 1) / chunk_values;
}
constexpr std::int64_t prepared_bytes(std::int64_t cols, std::int64_t groups) noexcept {
  return prepared_chunks(cols) * groups * tile_group_bytes;
}

/// The vectors to be prepared: dense, or gathered through `source`.
struct vectors {
  const float* data;
  std::int64_t n, cols;
  std::int64_t stride;         ///< dense: floats between vectors
  const std::int64_t* source;  ///< gathered: offset in floats of each of the n; negative: none
  const std::int32_t* count;   ///< gathered: how many of the n are in use

  /// Vector i, or null if there is none.
  __device__ const float* at(std::int64_t i) const noexcept {
    if (!source) return i < n ? data + i * stride : nullptr;
    return i < *count && source[i] >= 0 ? data + source[i] : nullptr;
  }
};

/// Floats between the vectors of a warp's half chunk in shared memory: lanes that read eight vectors at once
/// meet two by two in a bank.
inline constexpr int prepare_pitch = 32 + 8;
inline constexpr int prepare_warps = 8;

/// Four values of a vector from column k on; zeros where there are none.
__device__ inline float4 load_four(const float* v, std::int64_t k, std::int64_t cols) noexcept {
  if (!v) return {0, 0, 0, 0};
  if (k + 4 <= cols && reinterpret_cast<std::uintptr_t>(v) % 16 == 0)
    return __ldg(reinterpret_cast<const float4*>(v + k));
  const auto at = [&](std::int64_t i) { return i < cols ? v[i] : 0.0f; };
  return {at(k), at(k + 1), at(k + 2), at(k + 3)};
}

/// Lane's part of chunk `chunk` of 32 columns of group `group` of 8 vectors: four values each of vectors
/// lane / 8 and 4 + lane / 8.
struct chunk_part {
  float4 upper, lower;
  __device__ void load(const vectors& x, std::int64_t chunk, std::int64_t group, int lane) noexcept {
    const std::int64_t k = 32 * chunk + 4 * (lane & 7);
    upper = load_four(x.at(8 * group + (lane >> 3)), k, x.cols);
    lower = load_four(x.at(8 * group + (lane >> 3) + 4), k, x.cols);
  }
  /// values[vector * prepare_pitch + column], for the whole warp to read.
  __device__ void share(float* values, int lane) const noexcept {
    float* to = values + (lane >> 3) * prepare_pitch + 4 * (lane & 7);
    __syncwarp();
    *reinterpret_cast<float4*>(to) = upper;
    *reinterpret_cast<float4*>(to + 4 * prepare_pitch) = lower;
    __syncwarp();
  }
};

/// One warp per group of 8 vectors and `Chunks` chunks of 32: rows of four values come in, in their order,
/// and go out in that of the fragments. Clears `counters` words at `finished` for the product that follows.
template <fragment_order Order, int Chunks>
__global__ void __launch_bounds__(32 * prepare_warps)
    prepare_bf16(const vectors x, std::uint8_t* out, std::uint32_t* finished, int counters) {
  __shared__ float shared[prepare_warps][8 * prepare_pitch];
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const std::int64_t thread = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x,
                     warp = thread >> 5;
  const int lane = threadIdx.x & 31;
  if (thread < counters) finished[thread] = 0;
  const std::int64_t groups = (x.n + 7) / 8, chunks = 2 * prepared_chunks(x.cols);
  const std::int64_t first = warp / groups * Chunks, group = warp % groups;
  if (first >= chunks) return;
  float* values = shared[threadIdx.x >> 5];
  chunk_part parts[Chunks];
#pragma unroll
  for (int i = 0; i < Chunks; ++i) parts[i].load(x, first + i, group, lane);

  const int vector = lane & 7, quarter = lane >> 3;
  const auto value = [&](int t, int i) {
    return values[vector * prepare_pitch + fragment_element(Order, t, i)];
  };
#pragma unroll
  for (int i = 0; i < Chunks; ++i) {
    const std::int64_t chunk = first + i;
    if (chunk >= chunks) return;
    parts[i].share(values, lane);
    std::uint32_t words[4];
#pragma unroll
    for (int t = 0; t < 4; ++t) words[t] = ptx::pack_bf16(value(t, 2 * quarter), value(t, 2 * quarter + 1));
    std::uint8_t* to = out + ((chunk >> 1) * groups + group) * tile_group_bytes + 512 * (chunk & 1);
    *reinterpret_cast<uint4*>(to + 16 * lane) = make_uint4(words[0], words[1], words[2], words[3]);
  }
}

}  // namespace quantal::cuda
