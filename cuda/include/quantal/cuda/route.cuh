// Sorting (token, slot) pairs by expert on the device, for mul_mat_id.
//
// Every expert's pairs keep their order, so results do not depend on timing. An expert's vectors begin at a
// multiple of 8 of the sorted positions, which is what prepared activations come in.
#pragma once

#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/ptx.cuh"
#include "quantal/kernel/args.hpp"

namespace quantal::cuda {

struct route_args {
  const std::int32_t* ids;
  std::int64_t tokens, used, ids_stride;
  std::int64_t token_stride, slot_stride, out_token_stride, out_slot_stride;
  int experts, tile_columns;
  std::int32_t* starts;      ///< [experts + 1] sorted position of each expert's first vector
  std::int64_t* source;      ///< per sorted position: offset of the vector, -1 for padding
  std::int64_t* out_offset;  ///< per sorted position
  column_tile* tiles;
  std::int32_t* tile_count;
  float* out;  ///< pairs with an id outside of the experts get NaN here
  std::int64_t rows;

  __device__ int id(std::int64_t pair) const noexcept { return ids[pair / used * ids_stride + pair % used]; }
  __device__ std::int64_t result(std::int64_t pair) const noexcept {
    return pair / used * out_token_stride + pair % used * out_slot_stride;
  }
};

/// Upper bounds of what routing makes of `pairs` pairs.
inline std::int64_t routed_positions(std::int64_t pairs, std::int64_t experts) noexcept {
  return pairs + 7 * (pairs < experts ? pairs : experts);
}
inline std::int64_t routed_tiles(std::int64_t pairs, std::int64_t experts, int tile_columns) noexcept {
  return pairs / tile_columns + (pairs < experts ? pairs : experts);
}

/// Warps of route() for so many experts: each has counters of its own in shared memory.
inline int route_warps(std::int64_t experts) noexcept {
  const std::int64_t fit = 48 * 1024 / experts;
  return fit < 1 ? 1 : fit > 32 ? 32 : static_cast<int>(fit);
}
inline int route_shared_bytes(std::int64_t experts) noexcept {
  return static_cast<int>(4 * experts * (route_warps(experts) + 1));
}

/// A stable counting sort by one block of 32 * route_warps(experts) threads: every warp owns a run of pairs,
/// counts it, and places it behind the runs of the warps in front. A template, so that it may be in several
/// units.
template <int MaxThreads = 1024>
__global__ void __launch_bounds__(MaxThreads) route(const route_args p) {
  extern __shared__ std::int32_t counts[];  // [experts] all; then [warp][experts]
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int pairs = static_cast<int>(p.tokens * p.used), used = static_cast<int>(p.used);
  const int run = (pairs + 32 * warps - 1) / (32 * warps) * 32;
  const int first = min(pairs, warp * run), last = min(pairs, first + run);
  std::int32_t* mine = counts + p.experts * (warp + 1);
  for (int e = threadIdx.x; e < p.experts * (warps + 1); e += blockDim.x) counts[e] = 0;
  __syncthreads();
  for (int pair = first + lane; pair < last; pair += 32) {
    const int e = p.id(pair);
    if (e >= 0 && e < p.experts) {
      atomicAdd(mine + e, 1);
    } else {
      for (std::int64_t r = 0; r < p.rows; ++r) p.out[p.result(pair) + r] = __int_as_float(0x7fffffff);
    }
  }
  __syncthreads();
  // Where each warp's pairs of an expert begin, counted from the expert's first.
  for (int e = threadIdx.x; e < p.experts; e += blockDim.x) {
    int sum = 0;
    for (int w = 1; w <= warps; ++w) {
      const int n = counts[p.experts * w + e];
      counts[p.experts * w + e] = sum;
      sum += n;
    }
    counts[e] = sum;
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int position = 0, tiles = 0;
    for (int e = 0; e < p.experts; ++e) {
      p.starts[e] = position;
      for (int at = 0; at < counts[e]; at += p.tile_columns)
        p.tiles[tiles++] = {e, position + at, min(p.tile_columns, counts[e] - at)};
      position += (counts[e] + 7) / 8 * 8;
    }
    p.starts[p.experts] = position;
    *p.tile_count = tiles;
  }
  __syncthreads();
  for (int e = threadIdx.x; e < p.experts; e += blockDim.x)
    for (int at = p.starts[e] + counts[e]; at < p.starts[e + 1]; ++at) p.source[at] = -1;
  for (int from = first; from < last; from += 32) {
    const int pair = from + lane;
    const int e = pair < last ? p.id(pair) : -1;
    const bool valid = e >= 0 && e < p.experts;
    const unsigned same = __match_any_sync(0xffffffffu, valid ? e : -1);
    if (valid) {
      const int position = p.starts[e] + mine[e] + __popc(same & ((1u << lane) - 1));
      p.source[position] = pair / used * p.token_stride + pair % used * p.slot_stride;
      p.out_offset[position] = p.result(pair);
    }
    __syncwarp();
    if (valid && lane == __ffs(same) - 1) mine[e] += __popc(same);
    __syncwarp();
  }
}

}  // namespace quantal::cuda
