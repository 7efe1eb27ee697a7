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

/// The place of a block of operand_kernel in the product, and its shared memory.
struct operand_block {
  using S = operand_shape;
  std::uint8_t *weights, *activations;
  std::uint32_t full, empty;    ///< barriers of the stages
  int thread, rank;             ///< in the cluster
  int first, clusters, chunks;  ///< first tile, and how far apart its tiles are; chunks of the columns
  operand_tiles tiles;

  __device__ operand_block(const operand_args& p, std::uint8_t* shared, int chunk_count) noexcept
      : weights(shared + S::barrier_bytes),
        activations(weights + S::stages * S::weight_bytes),
        full(ptx::shared_address(shared)),
        empty(full + 8 * S::stages),
        thread(ptx::thread_index()),
        rank(blockIdx.x % S::cluster),
        first(blockIdx.x / S::cluster),
        clusters(gridDim.x / S::cluster),
        chunks(chunk_count),
        tiles(p.rows, p.n) {}

  __device__ void init_barriers() const noexcept {
    if (thread == 0) {
      for (int i = 0; i < S::stages; ++i) {
        ptx::init_barrier(full + 8 * i, 1);
        ptx::init_barrier(empty + 8 * i, 8 * S::cluster);
      }
      ptx::fence_barrier_init();
    }
    ptx::cluster_arrive(), ptx::cluster_wait();
  }
};

/// Copies the block's rows, and its share of the columns to both blocks; by one thread.
__device__ __forceinline__ void copy_operands(const operand_args& p, const operand_block& block) noexcept {
  using S = operand_shape;
  const std::int64_t groups = (p.n + 7) / 8;
  const std::uint32_t rows_to = ptx::shared_address(block.weights),
                      columns_to = ptx::shared_address(block.activations);
  ring_position<S::stages> at;
  for (int i = block.first; i < block.tiles.count(); i += block.clusters) {
    const auto [row_pair, column] = block.tiles.at(i);
    const int here = (min(S::n, p.n - column * S::n) + 7) / 8;
    const int from = here * block.rank / S::cluster, share = here * (block.rank + 1) / S::cluster - from;
    const std::uint8_t* rows =
        p.weights + static_cast<std::int64_t>(2 * row_pair + block.rank) * S::weight_bytes;
    const std::uint8_t* columns = p.activations + (column * (S::n / 8) + from) * operand_group_bytes;
    for (int c = 0; c < block.chunks; ++c, at.next()) {
      const std::uint32_t barrier = block.full + 8 * at.stage;
      ptx::wait_barrier(block.empty + 8 * at.stage, at.phase ^ 1);
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

/// The sums of one tile, chunk by chunk.
template <class Operand>
__device__ __forceinline__ void multiply_tile(const operand_block& block, float (&sums)[operand_shape::n / 2],
                                              ring_position<operand_shape::stages>& at) noexcept {
  using S = operand_shape;
  const int warp = block.thread / 32, lane = block.thread % 32;
#pragma unroll
  for (int j = 0; j < S::n / 2; ++j) sums[j] = 0;
  int previous = 0;
  // Once the products of a chunk are done its operands may go.
  const auto release = [&] {
    if (lane < S::cluster) ptx::arrive_remote(block.empty + 8 * previous, lane);
  };
  for (int c = 0; c < block.chunks; ++c) {
    ptx::wait_barrier(block.full + 8 * at.stage, at.phase);
    const std::uint64_t a = activation_descriptor(
        ptx::shared_address(block.weights + at.stage * S::weight_bytes + warp / 4 * (S::weight_bytes / 2)));
    const std::uint64_t b =
        activation_descriptor(ptx::shared_address(block.activations + at.stage * S::activation_bytes));
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
}

/// Writes the lane's sums of tile i, scaled where operands are.
template <class Operand>
__device__ __forceinline__ void store_tile(const operand_args& p, const operand_block& block, int i,
                                           const float (&sums)[operand_shape::n / 2]) noexcept {
  using S = operand_shape;
  constexpr bool scaled = std::is_same_v<Operand, e4m3_operand>;
  const int warp = block.thread / 32, lane = block.thread % 32;
  const auto [row_pair, column_tile] = block.tiles.at(i);
  const int row0 = (2 * row_pair + block.rank) * S::rows + 16 * warp + lane / 4, column0 = column_tile * S::n;
  float row_scales[2] = {1, 1};
  if constexpr (scaled)
    for (int h = 0; h < 2; ++h) row_scales[h] = p.row_bounds[min(row0 + 8 * h, p.rows - 1)] / Operand::top;
#pragma unroll
  for (int j = 0; j < S::n / 2; ++j) {
    const int row = row0 + 8 * (j % 4 / 2), column = column0 + 8 * (j / 4) + 2 * (lane % 4) + j % 2;
    if (row >= p.rows || column >= p.n) continue;
    float v = sums[j];
    if constexpr (scaled) v *= row_scales[j % 4 / 2] * (p.vector_bounds[column] / Operand::top);
    p.out[column * p.out_stride + row] = v;
  }
}

}  // namespace detail

/// A grid of whole clusters, which share the tiles among them: the copies for the next tile begin while the
/// last results are written.
template <class Operand>
__device__ __forceinline__ void multiply_operands(const operand_args& p) noexcept {
  using S = operand_shape;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const detail::operand_block block(p, shared, static_cast<int>(operand_chunks<Operand>(p.cols)));
  ptx::launch_dependents();
  block.init_barriers();
  if (block.thread >= 256) {
    ptx::fewer_registers<40>();
    if (block.thread == 256) {
      ptx::wait_for_prerequisites();
      detail::copy_operands(p, block);
    }
    __syncwarp();
  } else {
    ptx::more_registers<232>();
    detail::ring_position<S::stages> at;
    for (int i = block.first; i < block.tiles.count(); i += block.clusters) {
      float sums[S::n / 2];
      detail::multiply_tile<Operand>(block, sums, at);
      detail::store_tile<Operand>(p, block, i, sums);
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
