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

namespace detail {

/// Places the pairs of one expert, by one warp: 32 pairs at a time, ranked by ballots. `id(pair)` is cheap.
template <class Id>
__device__ inline void place_expert(const route_args& p, int expert, int lane, Id&& id) noexcept {
  const int pairs = static_cast<int>(p.tokens * p.used), used = static_cast<int>(p.used);
  int at = p.starts[expert];
#pragma unroll 4
  for (int first = 0; first < pairs; first += 32) {
    const int pair = first + lane;
    const bool mine = pair < pairs && id(pair) == expert;
    const unsigned all = __ballot_sync(0xffffffffu, mine);
    if (mine) {
      const int position = at + __popc(all & ((1u << lane) - 1));
      p.source[position] = pair / used * p.token_stride + pair % used * p.slot_stride;
      p.out_offset[position] = p.result(pair);
    }
    at += __popc(all);
  }
  const int padded = (at + 7) / 8 * 8;
  if (at + lane < padded) p.source[at + lane] = -1;
}

}  // namespace detail

/// Shared memory of route(): a counter per expert, and the ids where they fit.
inline constexpr std::int64_t most_shared_ids = 48 * 1024;
inline int route_shared_bytes(std::int64_t pairs, std::int64_t experts) noexcept {
  return static_cast<int>(4 * experts + (pairs <= most_shared_ids ? 4 * pairs : 0));
}

/// One block of Threads.
template <int Threads>
__global__ void __launch_bounds__(Threads) route(const route_args p) {
  extern __shared__ std::int32_t counts[];
  std::int32_t* ids = counts + p.experts;
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const std::int64_t pairs = p.tokens * p.used;
  const bool shared = pairs <= most_shared_ids;
  for (int e = threadIdx.x; e < p.experts; e += Threads) counts[e] = 0;
  __syncthreads();
  for (std::int64_t pair = threadIdx.x; pair < pairs; pair += Threads) {
    const int e = p.id(pair);
    if (shared) ids[pair] = e;
    if (e >= 0 && e < p.experts) {
      atomicAdd(counts + e, 1);
    } else {
      for (std::int64_t r = 0; r < p.rows; ++r) p.out[p.result(pair) + r] = __int_as_float(0x7fffffff);
    }
  }
  __syncthreads();
  if (threadIdx.x == 0) {
    int position = 0, tiles = 0;
    for (int e = 0; e < p.experts; ++e) {
      p.starts[e] = position;
      for (int first = 0; first < counts[e]; first += p.tile_columns)
        p.tiles[tiles++] = {e, position + first, min(p.tile_columns, counts[e] - first)};
      position += (counts[e] + 7) / 8 * 8;
    }
    p.starts[p.experts] = position;
    *p.tile_count = tiles;
  }
  __syncthreads();
  const int lane = threadIdx.x % 32;
  for (int e = threadIdx.x / 32; e < p.experts; e += Threads / 32) {
    if (counts[e] == 0) continue;
    if (shared)
      detail::place_expert(p, e, lane, [&](int pair) { return ids[pair]; });
    else
      detail::place_expert(p, e, lane, [&](int pair) { return p.id(pair); });
  }
}

}  // namespace quantal::cuda
