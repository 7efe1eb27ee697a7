// The Hopper product: wgmma with the weights as the operand in registers.
//
// A block of Groups * 64 rows and N columns. Each of `Groups` warpgroups owns 64 rows: its warps copy their
// rows' bytes to shared memory (weight_stages), decode octets straight into the registers of wgmma's A
// operand and multiply them with activations that one more warp keeps copying in bulk. Weights are decoded
// once for all N columns.
//
// The blocks of a cluster have rows of their own and columns in common: each copies a share of the
// activations to all of them. Several blocks may share a tile by splitting the columns of the weight matrix;
// the last of them to finish adds the partial sums, in the order of the parts whatever the order of the
// blocks.
#pragma once

#include "quantal/cuda/activations.cuh"
#include "quantal/cuda/bf16_octets.cuh"
#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/weight_stages.cuh"
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

/// The A operand of two steps of 16 along K: octets of rows g and g + 8.
__device__ inline void fragments(const bf16_octet& upper, const bf16_octet& lower,
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

template <any_format F, int Align, class Shape>
__device__ __forceinline__ void tile_product(const tile_args& p) noexcept {
  constexpr int N = Shape::N, stages = Shape::ActivationStages, cluster = Shape::Cluster;
  using weights_t = typename Shape::template weights<F, Align>;
  constexpr int weight_stages = weights_t::stages;
  static_assert(weight_stages >= 2);
  extern __shared__ __align__(128) std::uint8_t shared[];
  std::uint8_t* activations = shared + Shape::barrier_bytes;
  std::uint8_t* weights = activations + stages * Shape::activation_bytes;
  const std::uint32_t full = ptx::shared_address(shared), empty = full + 8 * stages;

  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  const int rank = blockIdx.x % cluster;
  const int row0 = blockIdx.x * Shape::rows, part = blockIdx.z;
  const int groups = (p.cols + group_weights - 1) / group_weights;
  const int first = groups * part / p.split, last = groups * (part + 1) / p.split;
  const int chunks = (p.cols + chunk_values - 1) / chunk_values;

  ptx::launch_dependents();
  // Routing is the work of the kernels in front of this one; without it the weights may be fetched while they
  // run.
  if (p.x.tiles) ptx::wait_for_prerequisites();
  const column_tile columns = p.x.template tile<N>(blockIdx.y);
  if (columns.count == 0) return;
  const std::byte* matrix = p.weights + columns.expert * p.expert_stride;

  if (thread == 0) {
    for (int i = 0; i < stages; ++i) {
      ptx::init_barrier(full + 8 * i, 1);
      ptx::init_barrier(empty + 8 * i, 4 * Shape::Groups * cluster);
    }
    ptx::fence_barrier_init();
  }
  if constexpr (cluster > 1)
    ptx::cluster_arrive(), ptx::cluster_wait();
  else
    __syncthreads();

  if (warp >= 4 * Shape::Groups) {
    ptx::fewer_registers<Shape::producer_registers>();
    if (warp == 4 * Shape::Groups && lane == 0) {
      ptx::wait_for_prerequisites();
      const int tiles = (columns.count + 7) / 8, groups_of_8 = static_cast<int>((p.x.n + 7) / 8);
      const int from = tiles * rank / cluster, share = tiles * (rank + 1) / cluster - from;
      const std::uint8_t* source = p.prepared + (columns.begin / 8 + from) * tile_group_bytes;
      const std::uint32_t target = ptx::shared_address(activations) + from * tile_group_bytes;
      detail::ring_position<stages> at;
      for (int c = 4 * first; c < min(4 * last, chunks); ++c, at.next()) {
        ptx::wait_barrier(empty + 8 * at.stage, at.phase ^ 1);
        ptx::arrive_expecting(full + 8 * at.stage, tiles * tile_group_bytes);
        if (cluster == 1 || share > 0) {
          const std::uint32_t to = target + at.stage * Shape::activation_bytes;
          const std::uint8_t* chunk = source + static_cast<std::int64_t>(c) * groups_of_8 * tile_group_bytes;
          if constexpr (cluster > 1)
            ptx::bulk_copy(to, chunk, share * tile_group_bytes, full + 8 * at.stage, (1 << cluster) - 1);
          else
            ptx::bulk_copy(to, chunk, share * tile_group_bytes, full + 8 * at.stage);
        }
      }
    }
    __syncwarp();
  } else {
    ptx::more_registers<Shape::consumer_registers>();
    const int g = lane / 4, t = lane % 4;
    const std::byte* matrix_end = matrix + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
    const auto row_of = [&](int i) { return matrix + p.row_stride * min(row0 + 16 * warp + i, p.rows - 1); };
    weights_t ring(weights + warp * weights_t::bytes, lane, p.cols, matrix_end, row_of);
    // Where the groups of this lane's two rows lie, as far as their skew depends on it.
    const auto address_of = [&](int i) {
      return static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(row_of(i))) + F::layout.row_meta;
    };
    const std::uint32_t upper_address = address_of(g), lower_address = address_of(g + 8);
    float upper_scale = 1, lower_scale = 1;
    if constexpr (block_format<F>)
      upper_scale = row_scale<F>(row_of(g)), lower_scale = row_scale<F>(row_of(g + 8));
#pragma unroll
    for (int i = 0; i < weight_stages - 1; ++i) {
      if (first + i < last) ring.start(first + i, i);
      ptx::commit_copies();
    }

    // A tile with few vectors is done with narrower products.
    const auto consume = [&]<int M>() {
      float sums[M / 2];
#pragma unroll
      for (int i = 0; i < M / 2; ++i) sums[i] = 0;
      std::uint32_t a[Shape::buffers][4][4];  // chunks of 64, in turn
      detail::ring_position<stages> at;
      int previous = 0;
      int stage = 0, next = weight_stages - 1;
      for (int group = first; group < last; ++group) {
        ptx::wait_copies<weight_stages - 2>();
        __syncwarp();
        if (group + weight_stages - 1 < last) ring.start(group + weight_stages - 1, next);
        ptx::commit_copies();
        const auto upper_bytes = ring.row(stage, g, 0, upper_address + group * group_size<F>);
        const auto lower_bytes = ring.row(stage, g + 8, 0, lower_address + group * group_size<F>);
        using row_t = row_group<F, std::remove_cv_t<decltype(upper_bytes)>>;
        const row_t upper(upper_bytes, upper_scale, t), lower(lower_bytes, lower_scale, t);
        const int here = min(4, chunks - 4 * group);
        const auto chunk = [&]<int C>() {
          std::uint32_t(&registers)[4][4] = a[C % Shape::buffers];
          const auto release = [&] {
            // The products of the chunk before are done: its activations may go.
            if (lane < cluster && (C > 0 || group > first)) {
              if constexpr (cluster > 1)
                ptx::arrive_remote(empty + 8 * previous, lane);
              else
                ptx::arrive(empty + 8 * previous);
            }
          };
          if constexpr (Shape::buffers == 1) {
            ptx::wgmma_wait<0>();
            release();
          }
          const auto decode = [&]<int Half>() {
            constexpr int c = 2 * C + Half;
            detail::fragments(upper.template get<c>(lane), lower.template get<c>(lane), registers + 2 * Half);
          };
          decode.template operator()<0>();
          decode.template operator()<1>();
          if (C < here) {
            ptx::wait_barrier(full + 8 * at.stage, at.phase);
            const std::uint64_t b = detail::activation_descriptor(
                ptx::shared_address(activations + at.stage * Shape::activation_bytes));
            ptx::wgmma_fence();
#pragma unroll
            for (int s = 0; s < 4; ++s) wgmma_bf16<M>::multiply(sums, registers[s], b + s * (256 >> 4));
            ptx::wgmma_commit();
            if constexpr (Shape::buffers == 2) {
              ptx::wgmma_wait<1>();
              release();
            }
            previous = at.stage;
            at.next();
          }
        };
        chunk.template operator()<0>();
        chunk.template operator()<1>();
        chunk.template operator()<2>();
        chunk.template operator()<3>();
        stage = stage + 1 == weight_stages ? 0 : stage + 1;
        next = next + 1 == weight_stages ? 0 : next + 1;
      }
      ptx::wgmma_wait<0>();

      const int fragment_row = 16 * warp + g;
      if (p.split == 1) {
#pragma unroll
        for (int i = 0; i < M / 2; ++i) {
          const int row = row0 + fragment_row + 8 * (i % 4 / 2), column = 8 * (i / 4) + 2 * t + i % 2;
          if (row < p.rows && column < columns.count) p.out[p.x.out(columns.begin + column) + row] = sums[i];
        }
      } else {
        const int tile = blockIdx.x * gridDim.y + blockIdx.y;
        float* partial = p.partial + static_cast<std::int64_t>(tile) * p.split * N * Shape::rows;
#pragma unroll
        for (int i = 0; i < M / 2; ++i)
          partial[(part * N + 8 * (i / 4) + 2 * t + i % 2) * Shape::rows + fragment_row + 8 * (i % 4 / 2)] =
              sums[i];
        __threadfence();
        ptx::sync_threads<1, 128 * Shape::Groups>();
        std::uint32_t* last_one = reinterpret_cast<std::uint32_t*>(weights);
        if (thread == 0)
          *last_one = atomicAdd(p.finished + tile, 1u) + 1 == static_cast<std::uint32_t>(p.split);
        ptx::sync_threads<1, 128 * Shape::Groups>();
        if (*last_one) {
          __threadfence();
          add_parts<Shape>(p, partial, row0, columns, thread);
        }
      }
    };
    if (N >= 128 && columns.count <= N / 4)
      consume.template operator()<(N >= 128 ? N / 4 : N)>();
    else if (N >= 128 && columns.count <= N / 2)
      consume.template operator()<(N >= 128 ? N / 2 : N)>();
    else
      consume.template operator()<N>();
  }
  // Nobody leaves while others may still write to its shared memory or arrive on its barriers.
  if constexpr (cluster > 1) ptx::cluster_arrive(), ptx::cluster_wait();
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
