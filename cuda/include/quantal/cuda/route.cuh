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

  __device__ int id(unsigned pair) const noexcept {
    const unsigned token = pair / static_cast<unsigned>(used);
    return ids[token * ids_stride + (pair - token * static_cast<unsigned>(used))];
  }
  __device__ std::int64_t vector(unsigned pair) const noexcept { return at(pair, token_stride, slot_stride); }
  __device__ std::int64_t result(unsigned pair) const noexcept {
    return at(pair, out_token_stride, out_slot_stride);
  }

 private:
  __device__ std::int64_t at(unsigned pair, std::int64_t per_token, std::int64_t per_slot) const noexcept {
    const unsigned token = pair / static_cast<unsigned>(used);
    return token * per_token + (pair - token * static_cast<unsigned>(used)) * per_slot;
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
  return static_cast<int>(4 * experts * (route_warps(experts) + 3));
}
/// Blocks of route(), one cluster: what they write is scattered, and one multiprocessor is slow at that.
inline int route_blocks(std::int64_t pairs) noexcept { return pairs < 1024 ? 1 : 8; }

namespace detail {

/// Sum of v over the lanes up to this one.
__device__ inline int sum_up_to(int v, int lane) noexcept {
#pragma unroll
  for (int d = 1; d < 32; d *= 2) {
    const int below = __shfl_up_sync(0xffffffffu, v, d);
    if (lane >= d) v += below;
  }
  return v;
}

/// From the number of pairs of each expert: where its vectors begin, and its tiles. By one warp; `write`: to
/// global memory, too.
__device__ inline void place_experts(const route_args& p, const std::int32_t* counts, std::int32_t* starts,
                                     bool write, int lane) noexcept {
  int position = 0, tiles = 0;
  for (int first = 0; first < p.experts; first += 32) {
    const int e = first + lane, n = e < p.experts ? counts[e] : 0;
    const int room = (n + 7) / 8 * 8, own = (n + p.tile_columns - 1) / p.tile_columns;
    const int room_end = sum_up_to(room, lane), own_end = sum_up_to(own, lane);
    const int start = position + room_end - room;
    if (e < p.experts) starts[e] = start;
    column_tile* tile = p.tiles + tiles + own_end - own;
    if (write && e < p.experts) {
      p.starts[e] = start;
      for (int at = 0; at < n; at += p.tile_columns) *tile++ = {e, start + at, min(p.tile_columns, n - at)};
    }
    position += __shfl_sync(0xffffffffu, room_end, 31);
    tiles += __shfl_sync(0xffffffffu, own_end, 31);
  }
  if (write && lane == 0) p.starts[p.experts] = position, *p.tile_count = tiles;
}

}  // namespace detail

/// A stable counting sort by one cluster of route_blocks(pairs) blocks of 32 * route_warps(experts) threads:
/// every warp owns a run of pairs, counts it, and places it behind the runs of the warps in front. A
/// template, so that it may be in several units.
template <int MaxThreads = 1024>
__global__ void __launch_bounds__(MaxThreads) route(const route_args p) {
  // [experts] pairs of this block, of all blocks, first positions; then [warp][experts]
  extern __shared__ std::int32_t route_counts[];
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const int warps = blockDim.x / 32, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int pairs = static_cast<int>(p.tokens * p.used);
  const int rank = ptx::cluster_rank(), blocks = ptx::cluster_blocks();
  const int run = (pairs + 32 * warps * blocks - 1) / (32 * warps * blocks) * 32;
  const int first = min(pairs, (rank * warps + warp) * run), last = min(pairs, first + run);
  std::int32_t *own = route_counts, *all = own + p.experts, *starts = all + p.experts,
               *of_warps = starts + p.experts, *mine = of_warps + p.experts * warp;
  for (int e = threadIdx.x; e < p.experts * warps; e += blockDim.x) of_warps[e] = 0;
  __syncthreads();
  // Calls fn(pair, expert) for the run, 32 pairs at a time; expert is -1 behind the end. Reads come in
  // batches.
  const auto for_run = [&](auto&& fn) {
    constexpr int batch = 4;
    for (int from = first + lane; from - lane < last; from += 32 * batch) {
      int e[batch];
#pragma unroll
      for (int i = 0; i < batch; ++i)
        e[i] = from + 32 * i < last ? p.id(static_cast<unsigned>(from + 32 * i)) : -1;
#pragma unroll
      for (int i = 0; i < batch; ++i) fn(static_cast<unsigned>(from + 32 * i), e[i]);
    }
  };
  const auto valid = [&](int e) { return e >= 0 && e < p.experts; };

  for_run([&](unsigned pair, int e) {
    if (valid(e))
      atomicAdd(mine + e, 1);
    else if (static_cast<int>(pair) < last)
      for (std::int64_t r = 0; r < p.rows; ++r) p.out[p.result(pair) + r] = __int_as_float(0x7fffffff);
  });
  __syncthreads();
  // Where each warp's pairs of an expert begin, counted from the block's first of that expert.
  for (int e = threadIdx.x; e < p.experts; e += blockDim.x) {
    int sum = 0;
#pragma unroll 8
    for (int w = 0; w < warps; ++w) {
      const int n = of_warps[p.experts * w + e];
      of_warps[p.experts * w + e] = sum;
      sum += n;
    }
    own[e] = sum;
  }
  ptx::cluster_arrive(), ptx::cluster_wait();
  for (int e = threadIdx.x; e < p.experts; e += blockDim.x) {
    int before = 0, sum = 0;
    for (int b = 0; b < blocks; ++b) {
      const int n = ptx::load_remote(ptx::shared_address(own + e), b);
      before += b < rank ? n : 0;
      sum += n;
    }
    all[e] = sum;
    for (int w = 0; w < warps; ++w) of_warps[p.experts * w + e] += before;
  }
  // Nobody leaves while others may still read its counts.
  ptx::cluster_arrive();
  __syncthreads();
  if (warp == 0) detail::place_experts(p, all, starts, rank == 0, lane);
  __syncthreads();
  if (rank == 0)
    for (int e = threadIdx.x; e < p.experts; e += blockDim.x)
      for (int at = starts[e] + all[e]; at % 8; ++at) p.source[at] = -1;
  for_run([&](unsigned pair, int e) {
    const unsigned same = __match_any_sync(0xffffffffu, valid(e) ? e : -1);
    if (valid(e)) {
      const int position = starts[e] + mine[e] + __popc(same & ((1u << lane) - 1));
      p.source[position] = p.vector(pair);
      p.out_offset[position] = p.result(pair);
    }
    __syncwarp();
    if (valid(e) && lane == __ffs(same) - 1) mine[e] += __popc(same);
    __syncwarp();
  });
  ptx::cluster_wait();
}

}  // namespace quantal::cuda
