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

namespace detail {

/// The order in which clusters take the tiles of the result.
struct operand_tiles {
  int row_pairs, column_tiles;

  __host__ __device__ operand_tiles(int rows, int n) noexcept
      : row_pairs((rows + 2 * operand_shape::rows - 1) / (2 * operand_shape::rows)),
        column_tiles((n + operand_shape::n - 1) / operand_shape::n) {}
  __host__ __device__ int count() const noexcept { return row_pairs * column_tiles; }

  struct tile {
    int row_pair, column;
  };
  __device__ tile at(int i) const noexcept {
    const int per_band = operand_shape::band * column_tiles, band = i / per_band, in_band = i % per_band;
    const int width = min(operand_shape::band, row_pairs - band * operand_shape::band);
    return {band * operand_shape::band + in_band % width, in_band / width};
  }
};

}  // namespace detail

/// A grid of whole clusters, which share the tiles among them: the copies for the next tile begin while the
/// last results are written.
template <class Operand>
__device__ __forceinline__ void multiply_operands(const operand_args& p) noexcept {
  using S = operand_shape;
  constexpr int stages = S::stages;
  extern __shared__ __align__(128) std::uint8_t shared[];
  std::uint8_t* weights = shared + S::barrier_bytes;
  std::uint8_t* activations = weights + stages * S::weight_bytes;
  const std::uint32_t full = ptx::shared_address(shared), empty = full + 8 * stages;
  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;

  const int rank = blockIdx.x % S::cluster, clusters = gridDim.x / S::cluster;
  const detail::operand_tiles tiles(p.rows, p.n);
  const int chunks = static_cast<int>(operand_chunks<Operand>(p.cols));

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
      const std::int64_t groups = (p.n + 7) / 8;
      const std::uint32_t rows_to = ptx::shared_address(weights),
                          columns_to = ptx::shared_address(activations);
      detail::ring_position<stages> at;
      for (int i = blockIdx.x / S::cluster; i < tiles.count(); i += clusters) {
        const auto [row_pair, column] = tiles.at(i);
        const int here = (min(S::n, p.n - column * S::n) + 7) / 8;
        const int from = here * rank / S::cluster, share = here * (rank + 1) / S::cluster - from;
        const std::uint8_t* rows =
            p.weights + static_cast<std::int64_t>(2 * row_pair + rank) * S::weight_bytes;
        const std::uint8_t* columns = p.activations + (column * (S::n / 8) + from) * operand_group_bytes;
        for (int c = 0; c < chunks; ++c, at.next()) {
          const std::uint32_t barrier = full + 8 * at.stage;
          ptx::wait_barrier(empty + 8 * at.stage, at.phase ^ 1);
          ptx::arrive_expecting(barrier, S::weight_bytes + here * operand_group_bytes);
          ptx::bulk_copy(rows_to + at.stage * S::weight_bytes, rows + c * p.row_groups * operand_group_bytes,
                         S::weight_bytes, barrier);
          if (share > 0)
            ptx::bulk_copy(columns_to + at.stage * S::activation_bytes + from * operand_group_bytes,
                           columns + c * groups * operand_group_bytes, share * operand_group_bytes, barrier,
                           (1 << S::cluster) - 1);
        }
      }
    }
    __syncwarp();
  } else {
    ptx::more_registers<232>();
    detail::ring_position<stages> at;
    for (int i = blockIdx.x / S::cluster; i < tiles.count(); i += clusters) {
      float sums[S::n / 2];
#pragma unroll
      for (int j = 0; j < S::n / 2; ++j) sums[j] = 0;
      int previous = 0;
      // Once the products of a chunk are done its operands may go.
      const auto release = [&] {
        if (lane < S::cluster) ptx::arrive_remote(empty + 8 * previous, lane);
      };
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
        if (c > 0) release();
        previous = at.stage;
        at.next();
      }
      ptx::wgmma_wait<0>();
      release();

      const auto [row_pair, column_tile] = tiles.at(i);
      const int row0 = (2 * row_pair + rank) * S::rows + 16 * warp + lane / 4, column0 = column_tile * S::n;
      float row_scales[2] = {1, 1};
      if constexpr (std::is_same_v<Operand, e4m3_operand>)
        for (int h = 0; h < 2; ++h)
          row_scales[h] = p.row_bounds[min(row0 + 8 * h, p.rows - 1)] / Operand::top;
#pragma unroll
      for (int j = 0; j < S::n / 2; ++j) {
        const int row = row0 + 8 * (j % 4 / 2), column = column0 + 8 * (j / 4) + 2 * (lane % 4) + j % 2;
        if (row >= p.rows || column >= p.n) continue;
        float v = sums[j];
        if constexpr (std::is_same_v<Operand, e4m3_operand>)
          v *= row_scales[j % 4 / 2] * (p.vector_bounds[column] / Operand::top);
        p.out[column * p.out_stride + row] = v;
      }
    }
  }
  // Nobody leaves while others may still write to its shared memory or arrive on its barriers.
  ptx::cluster_arrive(), ptx::cluster_wait();
}

template <class Operand>
__global__ void __launch_bounds__(operand_shape::threads, 1)
    operand_kernel(const __grid_constant__ operand_args p) {
  if constexpr (ptx::hopper)
    multiply_operands<Operand>(p);
  else
    ptx::trap();
}

}  // namespace quantal::cuda
