// The product for devices without wgmma (compute capability 8.x): mma.sync, cp.async.
//
// A block has 64 rows, sixteen to a warp, and N columns. Warps copy and decode their rows as in the tile
// kernel, straight into the registers of the A operand; activations go through a ring that all warps fill and
// read.
#pragma once

#include "quantal/cuda/activations.cuh"
#include "quantal/cuda/bf16_octets.cuh"
#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/tile_kernel.cuh"
#include "quantal/cuda/weight_stages.cuh"

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

template <any_format F, int Align, class Shape>
__global__ void __launch_bounds__(Shape::threads) mma_kernel(const __grid_constant__ tile_args p) {
  constexpr int N = Shape::N, stages = Shape::activation_stages;
  using ring_t = weight_stages<F, Align, 1, Shape::weight_stages>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  const int row0 = blockIdx.x * Shape::rows + 16 * warp;
  const int groups = (p.cols + group_weights - 1) / group_weights;
  const int chunks = (p.cols + chunk_values - 1) / chunk_values;
  ptx::wait_for_prerequisites();
  const column_tile columns = p.x.template tile<N>(blockIdx.y);
  if (columns.count == 0) return;

  const std::byte* matrix = p.weights + columns.expert * p.expert_stride;
  const std::byte* matrix_end = matrix + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
  const auto row_of = [&](int i) { return matrix + p.row_stride * min(row0 + i, p.rows - 1); };
  ring_t ring(shared + stages * Shape::activation_bytes + warp * ring_t::bytes, lane, p.cols, matrix_end,
              row_of);
  const auto address_of = [&](int i) {
    return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(row_of(i))) + F::layout.row_meta;
  };
  const std::uint32_t upper_address = address_of(g), lower_address = address_of(g + 8);
  float upper_scale = 1, lower_scale = 1;
  if constexpr (block_format<F>)
    upper_scale = row_scale<F>(row_of(g)), lower_scale = row_scale<F>(row_of(g + 8));

  const int tiles = (columns.count + 7) / 8;
  const std::int64_t groups_of_8 = (p.x.n + 7) / 8;
  const std::uint8_t* source = p.prepared + columns.begin / 8 * tile_group_bytes;
  const auto start_activations = [&](int chunk) {
    if (chunk >= chunks) return;
    const std::uint32_t to = ptx::shared_address(shared) + chunk % stages * Shape::activation_bytes;
    const std::uint8_t* from = source + chunk * groups_of_8 * tile_group_bytes;
    for (int i = 16 * thread; i < tiles * tile_group_bytes; i += 16 * Shape::threads)
      ptx::copy16(to + i, from + i);
  };

  ring.start(0, 0);
#pragma unroll
  for (int c = 0; c < stages - 1; ++c) {
    start_activations(c);
    ptx::commit_copies();
  }
  float sums[N / 8][4] = {};
  for (int group = 0; group < groups; ++group) {
    const auto chunk = [&]<int C>(const auto& upper, const auto& lower, int c) {
      const std::uint32_t stage = ptx::shared_address(shared) + c % stages * Shape::activation_bytes;
      std::uint32_t a[4][4];
      detail::fragments(upper.template get<2 * C>(lane), lower.template get<2 * C>(lane), a);
      detail::fragments(upper.template get<2 * C + 1>(lane), lower.template get<2 * C + 1>(lane), a + 2);
#pragma unroll
      for (int j = 0; j < N / 8; ++j) {
        if (j >= tiles) break;
        std::uint32_t b[8];
        ptx::load_matrices(b, stage + j * tile_group_bytes + 16 * lane);
        ptx::load_matrices(b + 4, stage + j * tile_group_bytes + 512 + 16 * lane);
#pragma unroll
        for (int s = 0; s < 4; ++s) ptx::mma_bf16(sums[j], a[s], b[2 * s], b[2 * s + 1]);
      }
    };
    // Makes chunk c's copies visible and starts those that take the places of the one before.
    const auto advance = [&](int c, bool weights) {
      ptx::wait_copies<stages - 2>();
      __syncthreads();
      start_activations(c + stages - 1);
      if (weights && group + 1 < groups) ring.start(group + 1, (group + 1) % Shape::weight_stages);
      ptx::commit_copies();
    };
    advance(4 * group, true);
    const auto upper_bytes =
        ring.row(group % Shape::weight_stages, g, 0, upper_address + group * group_size<F>);
    const auto lower_bytes =
        ring.row(group % Shape::weight_stages, g + 8, 0, lower_address + group * group_size<F>);
    using row_t = row_group<F, std::remove_cv_t<decltype(upper_bytes)>>;
    const row_t upper(upper_bytes, upper_scale, t), lower(lower_bytes, lower_scale, t);
    const auto step = [&]<int C>() {
      if (4 * group + C >= chunks) return;
      if constexpr (C > 0) advance(4 * group + C, false);
      chunk.template operator()<C>(upper, lower, 4 * group + C);
    };
    step.template operator()<0>();
    step.template operator()<1>();
    step.template operator()<2>();
    step.template operator()<3>();
  }
  ptx::wait_copies<0>();

#pragma unroll
  for (int j = 0; j < N / 8; ++j)
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = row0 + g + 8 * (i / 2), column = 8 * j + 2 * t + i % 2;
      if (row < p.rows && column < columns.count) p.out[p.x.out(columns.begin + column) + row] = sums[j][i];
    }
}

}  // namespace quantal::cuda
