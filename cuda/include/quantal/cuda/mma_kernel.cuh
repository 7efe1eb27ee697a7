// The product for devices without wgmma (compute capability 8.x): mma.sync, cp.async.
//
// A block has 64 rows, sixteen to a warp, and N columns. Warps copy and decode their rows as in the tile
// kernel, straight into the registers of the A operand; activations go through a ring that all warps fill and
// read.
#pragma once

#include "quantal/cuda/activations.cuh"
#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/tile_kernel.cuh"
#include "quantal/cuda/unrolled.hpp"

namespace quantal::cuda {

template <int N_>
struct mma_shape {
  static constexpr int N = N_, warps = 4, rows = 16 * warps, threads = 32 * warps;
  static constexpr int activation_stages = 3, weight_stages = 2;
  static constexpr int activation_bytes = N / 8 * tile_group_bytes;
};

template <any_format F, int Align, class Shape>
constexpr int mma_shared_bytes() noexcept {
  return Shape::activation_stages * Shape::activation_bytes +
         Shape::warps * weight_stages<F, Align, 1, Shape::weight_stages>::bytes;
}

namespace detail {

/// The activations of a block's columns, 64 of their values at a time, in a ring that all warps fill.
template <class Shape>
class mma_activations {
 public:
  static constexpr int stages = Shape::activation_stages;
  int tiles, chunks;  ///< of 8 vectors of the block; of 64 values

  __device__ mma_activations(const tile_args& p, const column_tile& columns, std::uint8_t* shared,
                             int thread) noexcept
      : tiles((columns.count + 7) / 8),
        chunks((p.cols + chunk_values - 1) / chunk_values),
        source_(p.prepared + columns.begin / 8 * tile_group_bytes),
        groups_((p.x.n + 7) / 8),
        shared_(ptx::shared_address(shared)),
        thread_(thread) {}

  __device__ std::uint32_t stage(int chunk) const noexcept {
    return shared_ + chunk % stages * Shape::activation_bytes;
  }
  /// Starts the copy of a chunk; the caller commits.
  __device__ void start(int chunk) const noexcept {
    if (chunk >= chunks) return;
    const std::uint32_t to = stage(chunk);
    const std::uint8_t* from = source_ + chunk * groups_ * tile_group_bytes;
    for (int i = 16 * thread_; i < tiles * tile_group_bytes; i += 16 * Shape::threads)
      ptx::copy16(to + i, from + i);
  }

 private:
  const std::uint8_t* source_;
  std::int64_t groups_;  ///< of 8 vectors
  std::uint32_t shared_;
  int thread_;
};

/// Adds the product of a chunk of 64 columns; a: the weights, stage: the activations.
template <int N>
__device__ __forceinline__ void multiply_chunk(float (&sums)[N / 8][4], const std::uint32_t (&a)[4][4],
                                               std::uint32_t stage, int tiles, int lane) noexcept {
#pragma unroll
  for (int j = 0; j < N / 8; ++j) {
    if (j >= tiles) break;
    std::uint32_t b[8];
    ptx::load_matrices(b, stage + j * tile_group_bytes + 16 * lane);
    ptx::load_matrices(b + 4, stage + j * tile_group_bytes + 512 + 16 * lane);
#pragma unroll
    for (int s = 0; s < 4; ++s) ptx::mma_bf16(sums[j], a[s], b[2 * s], b[2 * s + 1]);
  }
}

template <int N>
__device__ __forceinline__ void store_columns(const tile_args& p, const float (&sums)[N / 8][4],
                                              const column_tile& columns, int row0, int lane) noexcept {
#pragma unroll
  for (int j = 0; j < N / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + lane / 4 + 8 * (i / 2), column = 8 * j + 2 * (lane % 4) + i % 2;
      if (row < p.rows && column < columns.count) p.out[p.x.out(columns.begin + column) + row] = sums[j][i];
    }
}

}  // namespace detail

template <any_format F, int Align, class Shape>
__global__ void __launch_bounds__(Shape::threads) mma_kernel(const __grid_constant__ tile_args p) {
  constexpr int N = Shape::N, stages = Shape::activation_stages, weight_stages = Shape::weight_stages;
  using ring_t = quantal::cuda::weight_stages<F, Align, 1, weight_stages>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  const int row0 = blockIdx.x * Shape::rows + 16 * warp;
  const int groups = (p.cols + group_weights - 1) / group_weights;
  ptx::wait_for_prerequisites();
  const column_tile columns = p.x.template tile<N>(blockIdx.y);
  if (columns.count == 0) return;

  const std::byte* matrix = p.weights + columns.expert * p.expert_stride;
  const std::byte* end = matrix + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
  lane_rows<F, ring_t> rows(shared + stages * Shape::activation_bytes + warp * ring_t::bytes, lane, p.cols,
                            end, [&](int i) { return matrix + p.row_stride * min(row0 + i, p.rows - 1); });
  const detail::mma_activations<Shape> activations(p, columns, shared, thread);

  rows.start(0, 0);
#pragma unroll
  for (int c = 0; c < stages - 1; ++c) {
    activations.start(c);
    ptx::commit_copies();
  }
  // Makes chunk c's copies visible and starts those that take the places of the one before.
  const auto advance = [&](int c, int next_group) {
    ptx::wait_copies<stages - 2>();
    __syncthreads();
    activations.start(c + stages - 1);
    if (next_group < groups) rows.start(next_group, next_group % weight_stages);
    ptx::commit_copies();
  };
  float sums[N / 8][4] = {};
  for (int group = 0; group < groups; ++group) {
    advance(4 * group, group + 1);
    const int stage = group % weight_stages;
    const auto upper = rows.get(0, stage, group), lower = rows.get(1, stage, group);
    unrolled<4>([&]<int C>() {
      const int c = 4 * group + C;
      if (c >= activations.chunks) return;
      if constexpr (C > 0) advance(c, groups);
      std::uint32_t a[4][4];
      detail::fragments(upper.template get<2 * C>(lane), lower.template get<2 * C>(lane), a);
      detail::fragments(upper.template get<2 * C + 1>(lane), lower.template get<2 * C + 1>(lane), a + 2);
      detail::multiply_chunk<N>(sums, a, activations.stage(c), activations.tiles, lane);
    });
  }
  ptx::wait_copies<0>();
  detail::store_columns<N>(p, sums, columns, row0, lane);
}

}  // namespace quantal::cuda
