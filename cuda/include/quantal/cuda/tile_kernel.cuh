// The Hopper product: wgmma with the weights as the operand in registers.
//
// A block of Groups * 64 rows and N columns. Each of `Groups` warpgroups owns 64 rows: its warps copy their
// rows' bytes to shared memory (weight_stages), decode codes straight into the registers of wgmma's A
// operand and multiply them with activations that one more warp keeps copying in bulk. Weights are decoded
// once for all N columns.
//
// The blocks of a cluster have rows of their own and columns in common: each copies a share of the
// activations to all of them. Several blocks may share a tile by splitting the columns of the weight matrix;
// the last of them to finish adds the partial sums, in the order of the parts whatever the order of the
// blocks.
#pragma once

#include "quantal/cuda/activations.cuh"
#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/lane_rows.cuh"
#include "quantal/cuda/unrolled.hpp"
#include "quantal/cuda/wgmma.cuh"

namespace quantal::cuda {

struct tile_args {
  const std::byte* weights;
  std::int64_t row_stride, expert_stride;
  int rows, cols;
  const std::uint8_t* prepared;  ///< activations.cuh, x.n / 8 groups of 8 vectors
  columns x;
  float* out;
  int split;                ///< parts of the columns of the matrix
  float* partial;           ///< [row tile][column tile][part][N][rows of a tile], if split > 1
  std::uint32_t* finished;  ///< parts that are done, per tile; zero at the start
};

/// Shared memory of a multiprocessor that its blocks may use (compute capability 9.0); each takes 1 KiB more.
inline constexpr int shared_limit = 228 * 1024;

/// Cluster: blocks that share activations. Blocks: of a multiprocessor.
template <int Groups_, int N_, int ActivationStages_, int Cluster_, int Blocks_>
struct tile_shape {
  static constexpr int Groups = Groups_, N = N_, ActivationStages = ActivationStages_, Cluster = Cluster_,
                       Blocks = Blocks_;
  /// Chunks that are decoded while products run; where blocks take turns one is enough, and registers are
  /// short.
  static constexpr int buffers = Blocks == 1 ? 2 : 1;
  static constexpr int rows = 64 * Groups;
  static constexpr int threads = 128 * (Groups + 1);
  static constexpr int activation_bytes = N * chunk_values * 2;
  static constexpr int max_weight_stages = 4;
  static constexpr int barrier_bytes = 128;
  static constexpr int producer_registers = 24;
  /// What the block was launched with, less the producers' share; setmaxnreg counts in eights and stalls on
  /// more.
  static constexpr int launch_registers = 65536 / (threads * Blocks) / 8 * 8;
  static constexpr int consumer_registers =
      (launch_registers + (launch_registers - producer_registers) / Groups) / 8 * 8 > 240
          ? 240
          : (launch_registers + (launch_registers - producer_registers) / Groups) / 8 * 8;

  /// Stages of a warp's weight ring: what fits, up to 4.
  template <any_format F, int Align>
  static constexpr int weight_stage_count() {
    const int left = shared_limit / Blocks - 1024 - barrier_bytes - ActivationStages * activation_bytes;
    const int fit = left / (4 * Groups * weight_stages<F, Align, 1, 1>::stage_bytes);
    return fit < max_weight_stages ? fit : max_weight_stages;
  }
  template <any_format F, int Align>
  using weights = weight_stages<F, Align, 1, weight_stage_count<F, Align>()>;
};

template <any_format F, int Align, class Shape>
constexpr int tile_shared_bytes() noexcept {
  return Shape::barrier_bytes + Shape::ActivationStages * Shape::activation_bytes +
         4 * Shape::Groups * Shape::template weights<F, Align>::bytes;
}

namespace detail {

/// wgmma's description of a K-major operand without swizzle: 8 x 16 byte core matrices, 128 bytes apart along
/// K and a chunk's eight of them along N.
__device__ inline std::uint64_t activation_descriptor(std::uint32_t shared) noexcept {
  constexpr std::uint64_t along_k = 128 >> 4, along_n = 1024 >> 4;
  // In a cluster the upper bits name the block; the field has 14 bits.
  return (shared & 0x3ffff) >> 4 | along_k << 16 | along_n << 32;
}

/// The A operand of two steps of 16 along K: the weights of rows g and g + 8.
__device__ inline void fragments(const bf16_fragment& upper, const bf16_fragment& lower,
                                 std::uint32_t (*a)[4]) noexcept {
#pragma unroll
  for (int s = 0; s < 2; ++s) {
    a[s][0] = upper.pairs[2 * s];
    a[s][1] = lower.pairs[2 * s];
    a[s][2] = upper.pairs[2 * s + 1];
    a[s][3] = lower.pairs[2 * s + 1];
  }
}

/// Position in the ring of activation stages, and the phase of its barriers.
template <int Stages>
struct ring_position {
  int stage = 0, phase = 0;
  __device__ void next() noexcept {
    if (++stage == Stages) stage = 0, phase ^= 1;
  }
};

}  // namespace detail

/// Adds the parts of a tile in order; by all consumers of a block.
template <class Shape>
__device__ inline void add_parts(const tile_args& p, const float* partial, int row0, const column_tile& tile,
                                 int thread) noexcept {
  constexpr int quads = Shape::rows / 4, threads = 128 * Shape::Groups, batch = 4;
  const int total = quads * tile.count;
  const auto* parts = reinterpret_cast<const float4*>(partial);
  for (int start = thread; start < total; start += batch * threads) {
    float4 sum[batch] = {};
    for (int s = 0; s < p.split; ++s) {
      float4 v[batch];
#pragma unroll
      for (int i = 0; i < batch; ++i)
        v[i] = __ldcg(parts + s * Shape::N * quads + min(start + i * threads, total - 1));
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        sum[i].x += v[i].x;
        sum[i].y += v[i].y;
        sum[i].z += v[i].z;
        sum[i].w += v[i].w;
      }
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      const int at = start + i * threads, row = row0 + at % quads * 4;
      if (at >= total) break;
      float* out = p.out + p.x.out(tile.begin + at / quads) + row;
      const float values[4] = {sum[i].x, sum[i].y, sum[i].z, sum[i].w};
#pragma unroll
      for (int k = 0; k < 4; ++k)
        if (row + k < p.rows) out[k] = values[k];
    }
  }
}

namespace detail {

/// The place of a block of tile_kernel: its part of the product and its shared memory.
template <class Shape>
struct tile_block {
  std::uint8_t *activations, *weights;
  std::uint32_t full, empty;  ///< barriers of the stages of activations
  int thread, rank;           ///< in the cluster
  int row0, part;
  int first, last;  ///< groups of 256 columns of the part
  int chunks;       ///< of 64 columns of the matrix
  column_tile columns;

  __device__ tile_block(const tile_args& p, std::uint8_t* shared) noexcept
      : activations(shared + Shape::barrier_bytes),
        weights(activations + Shape::ActivationStages * Shape::activation_bytes),
        full(ptx::shared_address(shared)),
        empty(full + 8 * Shape::ActivationStages),
        thread(ptx::thread_index()),
        rank(blockIdx.x % Shape::Cluster),
        row0(blockIdx.x * Shape::rows),
        part(blockIdx.z) {
    const int groups = (p.cols + group_weights - 1) / group_weights;
    first = groups * part / p.split, last = groups * (part + 1) / p.split;
    chunks = (p.cols + chunk_values - 1) / chunk_values;
  }

  __device__ void init_barriers() const noexcept {
    if (thread == 0) {
      for (int i = 0; i < Shape::ActivationStages; ++i) {
        ptx::init_barrier(full + 8 * i, 1);
        ptx::init_barrier(empty + 8 * i, 4 * Shape::Groups * Shape::Cluster);
      }
      ptx::fence_barrier_init();
    }
    if constexpr (Shape::Cluster > 1)
      ptx::cluster_arrive(), ptx::cluster_wait();
    else
      __syncthreads();
  }
};

/// Copies the block's share of the activations to all blocks of the cluster; by one thread.
template <class Shape>
__device__ __forceinline__ void copy_activations(const tile_args& p,
                                                 const tile_block<Shape>& block) noexcept {
  constexpr int cluster = Shape::Cluster;
  const int tiles = (block.columns.count + 7) / 8, groups_of_8 = static_cast<int>((p.x.n + 7) / 8);
  const int from = tiles * block.rank / cluster, share = tiles * (block.rank + 1) / cluster - from;
  const std::uint8_t* source = p.prepared + (block.columns.begin / 8 + from) * tile_group_bytes;
  const std::uint32_t target = ptx::shared_address(block.activations) + from * tile_group_bytes;
  ring_position<Shape::ActivationStages> at;
  for (int c = 4 * block.first; c < min(4 * block.last, block.chunks); ++c, at.next()) {
    const std::uint32_t full = block.full + 8 * at.stage;
    ptx::wait_barrier(block.empty + 8 * at.stage, at.phase ^ 1);
    ptx::arrive_expecting(full, tiles * tile_group_bytes);
    if (cluster > 1 && share == 0) continue;
    const std::uint32_t to = target + at.stage * Shape::activation_bytes;
    const std::uint8_t* chunk = source + static_cast<std::int64_t>(c) * groups_of_8 * tile_group_bytes;
    if constexpr (cluster > 1)
      ptx::bulk_copy(to, chunk, share * tile_group_bytes, full, (1 << cluster) - 1);
    else
      ptx::bulk_copy(to, chunk, share * tile_group_bytes, full);
  }
}

/// The stages of activations as a warp that multiplies goes through them, 64 columns at a time.
template <class Shape>
class activation_stages {
 public:
  __device__ activation_stages(const tile_block<Shape>& block, int lane) noexcept
      : activations_(block.activations), full_(block.full), empty_(block.empty), lane_(lane) {}

  /// Waits for the next chunk; the B operand of its first product.
  __device__ std::uint64_t wait() const noexcept {
    ptx::wait_barrier(full_ + 8 * at_.stage, at_.phase);
    return activation_descriptor(ptx::shared_address(activations_ + at_.stage * Shape::activation_bytes));
  }
  /// The products of the chunk before are done: its activations may go.
  __device__ void release() const noexcept {
    if (lane_ >= Shape::Cluster) return;
    if constexpr (Shape::Cluster > 1)
      ptx::arrive_remote(empty_ + 8 * previous_, lane_);
    else
      ptx::arrive(empty_ + 8 * previous_);
  }
  __device__ void next() noexcept {
    previous_ = at_.stage;
    at_.next();
  }

 private:
  const std::uint8_t* activations_;
  std::uint32_t full_, empty_;
  int lane_, previous_ = 0;
  ring_position<Shape::ActivationStages> at_;
};

/// Starts the products of 64 columns, a being the weights.
template <int M>
__device__ __forceinline__ void start_products(float (&sums)[M / 2], const std::uint32_t (&a)[4][4],
                                               std::uint64_t b) noexcept {
  ptx::wgmma_fence();
#pragma unroll
  for (int s = 0; s < 4; ++s) wgmma_bf16<M>::multiply(sums, a[s], b + s * (256 >> 4));
  ptx::wgmma_commit();
}

/// Writes a lane's sums; where the columns are split, to the parts, which the last block to finish adds.
template <class Shape, int M>
__device__ __forceinline__ void store_tile(const tile_args& p, const tile_block<Shape>& block,
                                           const float (&sums)[M / 2]) noexcept {
  constexpr int N = Shape::N;
  const int lane = block.thread % 32, t = lane % 4;
  const int fragment_row = 16 * (block.thread / 32) + lane / 4;
  const auto row_of = [&](int i) { return fragment_row + 8 * (i % 4 / 2); };
  const auto column_of = [&](int i) { return 8 * (i / 4) + 2 * t + i % 2; };
  if (p.split == 1) {
#pragma unroll
    for (int i = 0; i < M / 2; ++i) {
      const int row = block.row0 + row_of(i), column = column_of(i);
      if (row < p.rows && column < block.columns.count)
        p.out[p.x.out(block.columns.begin + column) + row] = sums[i];
    }
    return;
  }
  const int tile = blockIdx.x * gridDim.y + blockIdx.y;
  float* partial = p.partial + static_cast<std::int64_t>(tile) * p.split * N * Shape::rows;
#pragma unroll
  for (int i = 0; i < M / 2; ++i)
    partial[(block.part * N + column_of(i)) * Shape::rows + row_of(i)] = sums[i];
  __threadfence();
  ptx::sync_threads<1, 128 * Shape::Groups>();
  std::uint32_t* last_one = reinterpret_cast<std::uint32_t*>(block.weights);
  if (block.thread == 0)
    *last_one = atomicAdd(p.finished + tile, 1u) + 1 == static_cast<std::uint32_t>(p.split);
  ptx::sync_threads<1, 128 * Shape::Groups>();
  if (*last_one) {
    __threadfence();
    add_parts<Shape>(p, partial, block.row0, block.columns, block.thread);
  }
}

/// Decodes and multiplies a warp's sixteen rows with M of the tile's vectors.
template <any_format F, class Weights, class Shape, int M>
__device__ __forceinline__ void multiply_rows(const tile_args& p, const tile_block<Shape>& block,
                                              lane_rows<F, Weights>& rows) noexcept {
  const int lane = block.thread % 32;
  activation_stages<Shape> activations(block, lane);
  float sums[M / 2];
#pragma unroll
  for (int i = 0; i < M / 2; ++i) sums[i] = 0;
  std::uint32_t a[Shape::buffers][4][4];  // chunks of 64, in turn
  int stage = 0, next = Weights::stages - 1, group = block.first;
  // No part is empty. A way around the loop would set the sums while products may run, as ptxas sees it, and
  // make all products wait for each other.
  do {
    ptx::wait_copies<Weights::stages - 2>();
    __syncwarp();
    if (group + Weights::stages - 1 < block.last) rows.start(group + Weights::stages - 1, next);
    ptx::commit_copies();
    const auto upper = rows.get(0, stage, group), lower = rows.get(1, stage, group);
    const int here = min(4, block.chunks - 4 * group);
    unrolled<4>([&]<int C>() {
      constexpr int buffer = C % Shape::buffers;
      const bool any_before = C > 0 || group > block.first;
      if constexpr (Shape::buffers == 1) {
        ptx::wgmma_wait<0>();
        if (any_before) activations.release();
      }
      fragments(upper.template get<2 * C>(lane), lower.template get<2 * C>(lane), a[buffer]);
      fragments(upper.template get<2 * C + 1>(lane), lower.template get<2 * C + 1>(lane), a[buffer] + 2);
      if (C >= here) return;
      start_products<M>(sums, a[buffer], activations.wait());
      if constexpr (Shape::buffers == 2) {
        ptx::wgmma_wait<1>();
        if (any_before) activations.release();
      }
      activations.next();
    });
    stage = stage + 1 == Weights::stages ? 0 : stage + 1;
    next = next + 1 == Weights::stages ? 0 : next + 1;
  } while (++group < block.last);
  ptx::wgmma_wait<0>();
  store_tile<Shape, M>(p, block, sums);
}

/// What the warps that multiply do.
template <any_format F, class Weights, class Shape>
__device__ __forceinline__ void consume_tile(const tile_args& p, const tile_block<Shape>& block) noexcept {
  constexpr int N = Shape::N;
  const int warp = block.thread / 32;
  const std::byte* matrix = p.weights + block.columns.expert * p.expert_stride;
  const std::byte* end = matrix + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
  lane_rows<F, Weights> rows(
      block.weights + warp * Weights::bytes, block.thread % 32, p.cols, end,
      [&](int i) { return matrix + p.row_stride * min(block.row0 + 16 * warp + i, p.rows - 1); });
#pragma unroll
  for (int i = 0; i < Weights::stages - 1; ++i) {
    if (block.first + i < block.last) rows.start(block.first + i, i);
    ptx::commit_copies();
  }
  // A tile with few vectors is done with narrower products.
  if (N >= 128 && block.columns.count <= N / 4)
    multiply_rows<F, Weights, Shape, (N >= 128 ? N / 4 : N)>(p, block, rows);
  else if (N >= 128 && block.columns.count <= N / 2)
    multiply_rows<F, Weights, Shape, (N >= 128 ? N / 2 : N)>(p, block, rows);
  else
    multiply_rows<F, Weights, Shape, N>(p, block, rows);
}

}  // namespace detail

template <any_format F, int Align, class Shape>
__device__ __forceinline__ void tile_product(const tile_args& p) noexcept {
  using weights = typename Shape::template weights<F, Align>;
  static_assert(weights::stages >= 2);
  extern __shared__ __align__(128) std::uint8_t shared[];
  detail::tile_block<Shape> block(p, shared);
  ptx::launch_dependents();
  // Routing is the work of the kernels in front of this one; without it the weights may be fetched while they
  // run.
  if (p.x.tiles) ptx::wait_for_prerequisites();
  block.columns = p.x.template tile<Shape::N>(blockIdx.y);
  if (block.columns.count == 0) return;
  block.init_barriers();
  if (block.thread >= 128 * Shape::Groups) {
    ptx::fewer_registers<Shape::producer_registers>();
    if (block.thread == 128 * Shape::Groups) {
      ptx::wait_for_prerequisites();
      detail::copy_activations(p, block);
    }
    __syncwarp();
  } else {
    ptx::more_registers<Shape::consumer_registers>();
    detail::consume_tile<F, weights>(p, block);
  }
  // Nobody leaves while others may still write to its shared memory or arrive on its barriers.
  if constexpr (Shape::Cluster > 1) ptx::cluster_arrive(), ptx::cluster_wait();
}

template <any_format F, int Align, class Shape>
__global__ void __launch_bounds__(Shape::threads, Shape::Blocks)
    tile_kernel(const __grid_constant__ tile_args p) {
  if constexpr (ptx::hopper)
    tile_product<F, Align, Shape>(p);
  else
    ptx::trap();
}

}  // namespace quantal::cuda
