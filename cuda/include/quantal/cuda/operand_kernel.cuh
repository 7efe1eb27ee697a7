// The product of two operands in the workspace (operand.cuh), for many vectors.
//
// A block has 128 rows and 256 columns; two warpgroups of 64 rows multiply, one warp copies in bulk. The two
// blocks of a cluster have rows of their own and columns in common: each copies half of the columns' chunk to
// both. Clusters go through the result in bands of rows, so that what runs at a time shares both operands in
// the cache.
#pragma once

#include "quantal/cuda/operand.cuh"
#include "quantal/cuda/tile_kernel.cuh"

namespace quantal::cuda {

struct operand_args {
  const std::uint8_t *weights, *activations;
  int rows, cols, n;
  std::int64_t row_groups;  ///< groups of 8 rows of the weights; a multiple of 32
  float* out;
  std::int64_t out_stride;
  const float *row_bounds, *vector_bounds;  ///< e4m3
};

struct operand_shape {
  static constexpr int rows = 128, n = 256, stages = 4, cluster = 2, band = 8;  ///< band: clusters
  static constexpr int threads = 3 * 128;
  static constexpr int weight_bytes = rows / 8 * operand_group_bytes,
                       activation_bytes = n / 8 * operand_group_bytes;
  static constexpr int barrier_bytes = 128;
  static constexpr int shared_bytes = barrier_bytes + stages * (weight_bytes + activation_bytes);
};

/// One template parameter per operand type; grid: 2 * ceil(rows / 256) * ceil(n / 256).
template <class Operand>
__global__ void __launch_bounds__(operand_shape::threads, 1)
    operand_kernel(const __grid_constant__ operand_args p) {
  using S = operand_shape;
  constexpr int stages = S::stages;
  extern __shared__ __align__(128) std::uint8_t shared[];
  std::uint8_t* weights = shared + S::barrier_bytes;
  std::uint8_t* activations = weights + stages * S::weight_bytes;
  const std::uint32_t full = ptx::shared_address(shared), empty = full + 8 * stages;
  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;

  const int rank = blockIdx.x % S::cluster, cluster = blockIdx.x / S::cluster;
  const int row_pairs = (p.rows + 2 * S::rows - 1) / (2 * S::rows), column_tiles = (p.n + S::n - 1) / S::n;
  const int band = cluster / (S::band * column_tiles), in_band = cluster % (S::band * column_tiles);
  const int width = min(S::band, row_pairs - band * S::band);
  const int row_tile = 2 * (band * S::band + in_band % width) + rank, column0 = in_band / width * S::n;
  const int count = min(S::n, p.n - column0), chunks = static_cast<int>(operand_chunks<Operand>(p.cols));

  ptx::launch_dependents();
  if (thread == 0) {
    for (int i = 0; i < stages; ++i) {
      ptx::init_barrier(full + 8 * i, 1);
      ptx::init_barrier(empty + 8 * i, 8 * S::cluster);
    }
    ptx::fence_barrier_init();
  }
  ptx::cluster_arrive(), ptx::cluster_wait();

  if (warp >= 8) {
    ptx::fewer_registers<40>();
    if (warp == 8 && lane == 0) {
      ptx::wait_for_prerequisites();
      const int tiles = (count + 7) / 8;
      const std::int64_t groups = (p.n + 7) / 8;
      const int from = tiles * rank / S::cluster, share = tiles * (rank + 1) / S::cluster - from;
      const std::uint8_t* rows = p.weights + static_cast<std::int64_t>(row_tile) * S::weight_bytes;
      const std::uint8_t* columns = p.activations + (column0 / 8 + from) * operand_group_bytes;
      const std::uint32_t rows_to = ptx::shared_address(weights),
                          columns_to = ptx::shared_address(activations) + from * operand_group_bytes;
      detail::ring_position<stages> at;
      for (int c = 0; c < chunks; ++c, at.next()) {
        const std::uint32_t barrier = full + 8 * at.stage;
        ptx::wait_barrier(empty + 8 * at.stage, at.phase ^ 1);
        ptx::arrive_expecting(barrier, S::weight_bytes + tiles * operand_group_bytes);
        ptx::bulk_copy(rows_to + at.stage * S::weight_bytes, rows + c * p.row_groups * operand_group_bytes,
                       S::weight_bytes, barrier);
        if (share > 0)
          ptx::bulk_copy(columns_to + at.stage * S::activation_bytes,
                         columns + c * groups * operand_group_bytes, share * operand_group_bytes, barrier,
                         (1 << S::cluster) - 1);
      }
    }
    __syncwarp();
  } else {
    ptx::more_registers<232>();
    float sums[S::n / 2];
#pragma unroll
    for (int i = 0; i < S::n / 2; ++i) sums[i] = 0;
    detail::ring_position<stages> at;
    int previous = 0;
    for (int c = 0; c < chunks; ++c) {
      ptx::wait_barrier(full + 8 * at.stage, at.phase);
      const std::uint64_t a = detail::activation_descriptor(
          ptx::shared_address(weights + at.stage * S::weight_bytes + warp / 4 * (S::weight_bytes / 2)));
      const std::uint64_t b =
          detail::activation_descriptor(ptx::shared_address(activations + at.stage * S::activation_bytes));
      ptx::wgmma_fence();
#pragma unroll
      for (int s = 0; s < 4; ++s) Operand::product::multiply(sums, a + s * (256 >> 4), b + s * (256 >> 4));
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();
      // The products of the chunk before are done: its operands may go.
      if (lane < S::cluster && c > 0) ptx::arrive_remote(empty + 8 * previous, lane);
      previous = at.stage;
      at.next();
    }
    ptx::wgmma_wait<0>();

    const int row0 = row_tile * S::rows + 16 * warp + lane / 4;
    float row_scales[2] = {1, 1};
    if constexpr (std::is_same_v<Operand, e4m3_operand>)
      for (int h = 0; h < 2; ++h) row_scales[h] = p.row_bounds[min(row0 + 8 * h, p.rows - 1)] / Operand::top;
#pragma unroll
    for (int i = 0; i < S::n / 2; ++i) {
      const int row = row0 + 8 * (i % 4 / 2), column = column0 + 8 * (i / 4) + 2 * (lane % 4) + i % 2;
      if (row >= p.rows || column >= p.n) continue;
      float v = sums[i];
      if constexpr (std::is_same_v<Operand, e4m3_operand>)
        v *= row_scales[i % 4 / 2] * (p.vector_bounds[column] / Operand::top);
      p.out[column * p.out_stride + row] = v;
    }
  }
  // Nobody leaves while others may still write to its shared memory or arrive on its barriers.
  ptx::cluster_arrive(), ptx::cluster_wait();
}

}  // namespace quantal::cuda
