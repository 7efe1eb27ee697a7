// Activations made ready for tensor-core products: rounded to bf16 and laid out so that a block of any number
// of columns and 64 weights is contiguous and can be copied to shared memory as it is.
//
//   [chunk of 64 columns of the matrix][group of 8 vectors][8 sub-chunks of 8][8 vectors][8 values]
//
// Each 8 x 8 tile of 128 bytes is a core matrix of wgmma's layout without swizzle. Within a chunk of 32 the
// values are in the order in which lanes hold the octets of the format.
#pragma once

#include "quantal/cuda/octets.hpp"
#include "quantal/cuda/ptx.cuh"

namespace quantal::cuda {

inline constexpr int chunk_values = 64;  ///< values of a vector per contiguous block

/// Bytes of a prepared group of 8 vectors for 64 columns.
inline constexpr int tile_group_bytes = 8 * chunk_values * 2;

inline std::int64_t prepared_chunks(std::int64_t cols) noexcept {
  return (cols + chunk_values - 1) / chunk_values;
}
inline std::int64_t prepared_bytes(std::int64_t cols, std::int64_t groups) noexcept {
  return prepared_chunks(cols) * groups * tile_group_bytes;
}

struct prepare_args {
  const float* activations;
  std::int64_t n, stride, cols;
  std::int64_t groups;  ///< groups of 8 vectors in the result
  std::uint8_t* out;
  std::uint32_t* finished;  ///< counters to clear for the product that follows
  int counters;
};

/// One warp per chunk of 32 and group of 8 vectors: lane = 4 * vector + quarter, so that the warp reads whole
/// lines.
template <octet_order Order>
__global__ void prepare_bf16(const prepare_args p) {
  ptx::launch_dependents();
  const int lane = threadIdx.x & 31;
  const std::int64_t warp = (blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x) >> 5;
  const std::int64_t chunks = 2 * ((p.cols + chunk_values - 1) / chunk_values);
  if (const int i = blockIdx.x * blockDim.x + threadIdx.x; i < p.counters) p.finished[i] = 0;
  if (warp >= chunks * p.groups) return;
  const std::int64_t group = warp % p.groups, chunk = warp / p.groups;
  const int vector = lane & 7, quarter = lane >> 3;
  const std::int64_t column = 8 * group + vector;
  std::uint32_t words[4] = {0, 0, 0, 0};
  if (column < p.n && 32 * chunk < p.cols) {
    const float* x = p.activations + column * p.stride + 32 * chunk;
#pragma unroll
    for (int t = 0; t < 4; ++t)
      words[t] = ptx::pack_bf16(x[octet_element(Order, t, 2 * quarter)],
                                x[octet_element(Order, t, 2 * quarter + 1)]);
  }
  std::uint8_t* out = p.out + ((chunk >> 1) * p.groups + group) * tile_group_bytes;
  const int sub_chunk = 4 * static_cast<int>(chunk & 1) + quarter;
  *reinterpret_cast<uint4*>(out + sub_chunk * 128 + vector * 16) =
      make_uint4(words[0], words[1], words[2], words[3]);
}

}  // namespace quantal::cuda
