// The Hopper product for many vectors: a cluster of two blocks decodes each weight once for 2 * N of them.
//
// Both blocks have the same 128 rows and N columns each. Of the rows each block decodes one half to bf16, in
// shared memory, in the layout that wgmma reads there, and copies it to the other. Four warps decode, eight
// multiply, so that decoding never stands between two products; activations come in bulk copies.
//
// The grid is as large as the device and goes through the result tile by tile; the copies and the decoding
// for the next tile begin while results are written. What does not fill the device is cut along the columns
// of the weights into equal shares, however many tiles there are: a share may begin and end within a tile,
// and the last of those who share a tile adds their sums, in the order of the columns.
#pragma once

#include <type_traits>

#include "quantal/cuda/expand.cuh"
#include "quantal/cuda/operand_kernel.cuh"

namespace quantal::cuda {

/// How a product is cut among clusters.
struct pair_plan {
  int clusters;
  int waves;   ///< tiles that every cluster does on its own
  int groups;  ///< of 256 columns, of a tile

  __host__ __device__ int whole() const noexcept { return clusters * waves; }
  /// First of the shared groups, counted through the tiles behind the whole ones, of cluster c.
  __host__ __device__ int share(int c, int tiles) const noexcept {
    if (tiles <= whole()) return 0;
    return static_cast<int>(static_cast<std::int64_t>(tiles - whole()) * groups * c / clusters);
  }
};

struct pair_args {
  const std::byte* weights;
  std::int64_t row_stride;
  int rows, cols, n;
  const std::uint8_t* prepared;  ///< activations.cuh
  float* out;
  std::int64_t out_stride;
  pair_plan plan;
  float* partial;           ///< [cluster][first, last tile][block][rows * n of a tile]
  std::uint32_t* finished;  ///< parts that are done, per tile and block; zero at the start
};

inline constexpr int pair_multipliers = 8, pair_decoders = 4;  ///< warps

template <int N, int Stages = N == 256 ? 4 : 6>
struct pair_shape {
  static constexpr int rows = 128, n = N, stages = Stages, cluster = 2, band = 8;
  static constexpr int threads = 32 * (pair_multipliers + pair_decoders);
  static constexpr int weight_bytes = rows / 8 * operand_group_bytes, share_bytes = weight_bytes / cluster,
                       activation_bytes = n / 8 * operand_group_bytes, slab_bytes = 2 * operand_group_bytes;
  static constexpr int barrier_bytes = 128;
  static constexpr int multiplier_registers = 184, decoder_registers = 136;
  static constexpr int tile_values = rows * n;

  /// Stages of the ring of bytes that a warp decodes: what fits.
  template <any_format F, int Align>
  static constexpr int ring_stages() {
    constexpr int left = shared_limit - 1024 - barrier_bytes - stages * (weight_bytes + activation_bytes);
    constexpr int fit = left / (4 * weight_stages<F, Align, 1, 1>::stage_bytes);
    return fit < 4 ? fit : 4;
  }
  template <any_format F, int Align>
  using ring = weight_stages<F, Align, 1, ring_stages<F, Align>()>;
  template <any_format F, int Align>
  static constexpr int shared_bytes() {
    return barrier_bytes + stages * (weight_bytes + activation_bytes) + 4 * ring<F, Align>::bytes;
  }
};

/// Formats whose bytes leave room for two stages of them.
template <any_format F, int Align, class Shape>
inline constexpr bool pair_fits = Shape::template ring_stages<F, Align>() >= 2;

/// Tiles of 256 vectors, in as many stages as the bytes leave room for.
template <any_format F>
using wide_pairs = std::conditional_t<pair_fits<F, natural_alignment<F>(), pair_shape<256>> &&
                                          pair_fits<F, group_alignment<F>(), pair_shape<256>>,
                                      pair_shape<256>, pair_shape<256, 3>>;

namespace detail {

/// The order in which clusters take the tiles of the result: bands of row tiles, so that what runs at a time
/// shares both operands in the cache.
template <class S>
struct pair_tiles {
  int row_tiles, column_pairs;

  __host__ __device__ pair_tiles(int rows, int n) noexcept
      : row_tiles((rows + S::rows - 1) / S::rows), column_pairs((n + 2 * S::n - 1) / (2 * S::n)) {}
  __host__ __device__ int count() const noexcept { return row_tiles * column_pairs; }

  struct tile {
    int row, column_pair;
  };
  __device__ tile at(int i) const noexcept {
    const int per_band = S::band * column_pairs, band = i / per_band, in_band = i % per_band;
    const int width = min(S::band, row_tiles - band * S::band);
    return {band * S::band + in_band % width, in_band / width};
  }
};

/// A block of pair_kernel and its shared memory.
template <class S>
struct pair_block {
  std::uint8_t *weights, *activations, *rings;
  std::uint32_t full, empty;  ///< barriers of the stages
  int* done;                  ///< groups of a shared tile
  int thread, rank, cluster;
  int chunks;  ///< of 64 columns of a tile
  pair_tiles<S> tiles;

  __device__ pair_block(const pair_args& p, std::uint8_t* shared) noexcept
      : weights(shared + S::barrier_bytes),
        activations(weights + S::stages * S::weight_bytes),
        rings(activations + S::stages * S::activation_bytes),
        full(ptx::shared_address(shared)),
        empty(full + 8 * S::stages),
        done(reinterpret_cast<int*>(shared + 16 * S::stages)),
        thread(ptx::thread_index()),
        rank(blockIdx.x % S::cluster),
        cluster(blockIdx.x / S::cluster),
        chunks(static_cast<int>(prepared_chunks(p.cols))),
        tiles(p.rows, p.n) {}

  /// Full: the copy of activations, and the warps that decode; the other block's half comes as bytes. Empty:
  /// all that multiply in the cluster.
  __device__ void init_barriers() const noexcept {
    if (thread == 0) {
      for (int i = 0; i < S::stages; ++i) {
        ptx::init_barrier(full + 8 * i, 1 + pair_decoders);
        ptx::init_barrier(empty + 8 * i, pair_multipliers * S::cluster);
      }
      ptx::fence_barrier_init();
    }
    ptx::cluster_arrive(), ptx::cluster_wait();
  }
};

/// Groups first .. last - 1 of a tile.
struct pair_part {
  int tile, first, last;
};

/// Calls fn(part) for everything that a cluster does, in order.
template <class S, class Fn>
__device__ __forceinline__ void for_parts(const pair_args& p, const pair_block<S>& block, Fn&& fn) noexcept {
  const int tiles = block.tiles.count(), groups = p.plan.groups;
  int wave = 0, at = p.plan.share(block.cluster, tiles);
  const int end = p.plan.share(block.cluster + 1, tiles);
  // One call, so that what it does is compiled once.
  while (true) {
    pair_part part;
    if (wave < p.plan.waves) {
      part = {block.cluster + wave++ * p.plan.clusters, 0, groups};
      if (part.tile >= tiles) return;
    } else if (at < end) {
      const int tile = at / groups, first = at - tile * groups, last = min(groups, end - tile * groups);
      part = {p.plan.whole() + tile, first, last};
      at += last - first;
    } else {
      return;
    }
    fn(part);
  }
}

/// What the warps that decode know.
struct pair_decoder {
  int lane, slab;  ///< sixteen rows of the block's half

  __device__ explicit pair_decoder(int thread) noexcept
      : lane(thread % 32), slab(thread / 32 - pair_multipliers) {}
  /// The thread that has a chunk's activations copied; the warps take turns.
  __device__ bool copies(int chunk) const noexcept { return lane == 0 && chunk % pair_decoders == slab; }
};

/// Starts the copy of a chunk of the block's activations; by one thread.
template <class S>
__device__ __forceinline__ void copy_chunk(const pair_args& p, const pair_block<S>& block, int column,
                                           int chunk, int stage) noexcept {
  const int here = max(0, (min(S::n, p.n - column * S::n) + 7) / 8);
  const std::uint32_t barrier = block.full + 8 * stage;
  ptx::arrive_expecting(barrier, S::share_bytes + here * operand_group_bytes);
  if (here == 0) return;
  const std::int64_t groups = (p.n + 7) / 8, group = column * (S::n / 8);
  ptx::bulk_copy(ptx::shared_address(block.activations) + stage * S::activation_bytes,
                 p.prepared + (chunk * groups + group) * operand_group_bytes, here * operand_group_bytes,
                 barrier);
}

/// A warp's sixteen rows of a chunk.
struct pair_slab {
  bf16_fragment upper[2], lower[2];

  template <int C, class Row>
  __device__ __forceinline__ void decode(const Row& up, const Row& low, int lane) noexcept {
    upper[0] = up.template get<2 * C>(lane), upper[1] = up.template get<2 * C + 1>(lane);
    lower[0] = low.template get<2 * C>(lane), lower[1] = low.template get<2 * C + 1>(lane);
  }
  __device__ __forceinline__ void store(std::uint8_t* to, int lane) const noexcept {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      store_fragment(bf16_operand{}, to, h, lane / 4, lane % 4, upper[h], 1);
      store_fragment(bf16_operand{}, to + operand_group_bytes, h, lane / 4, lane % 4, lower[h], 1);
    }
  }
};

/// Puts a decoded chunk where both blocks read it once its stage is free, and has the activations copied.
template <class S>
__device__ __forceinline__ void share_chunk(const pair_args& p, const pair_block<S>& block,
                                            const pair_decoder& me, const pair_slab& decoded, int column,
                                            int chunk, const ring_position<S::stages>& at) noexcept {
  std::uint8_t* to =
      block.weights + at.stage * S::weight_bytes + block.rank * S::share_bytes + me.slab * S::slab_bytes;
  const std::uint32_t barrier = block.full + 8 * at.stage;
  ptx::wait_barrier(block.empty + 8 * at.stage, at.phase ^ 1);
  if (me.copies(chunk)) copy_chunk(p, block, column, chunk, at.stage);
  decoded.store(to, me.lane);
  ptx::fence_async_shared();
  __syncwarp();
  if (me.lane == 0) {
    ptx::push_remote(ptx::shared_address(to), S::slab_bytes, barrier, block.rank ^ 1);
    ptx::arrive(barrier);
  }
}

/// Decodes a part's share of the block, and has the activations copied.
template <any_format F, class Ring, class S>
__device__ __forceinline__ void decode_part(const pair_args& p, const pair_block<S>& block,
                                            const pair_decoder& me, const pair_part& part,
                                            ring_position<S::stages>& at) noexcept {
  const auto [row_tile, column_pair] = block.tiles.at(part.tile);
  const int row0 = row_tile * S::rows + block.rank * (S::rows / 2) + 16 * me.slab;
  const int column = S::cluster * column_pair + block.rank;
  const std::byte* end = p.weights + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
  lane_rows<F, Ring> rows(block.rings + me.slab * Ring::bytes, me.lane, p.cols, end,
                          [&](int i) { return p.weights + p.row_stride * min(row0 + i, p.rows - 1); });
  const auto start = [&](int group, int stage) {
    if (group < part.last) rows.start(group, stage);
    ptx::commit_copies();
  };
  __syncwarp();  // the ring's last groups have been read
#pragma unroll
  for (int i = 0; i < Ring::stages - 1; ++i) start(part.first + i, i);
  // Where a chunk waits for its stage it has been decoded: the next one is decoded behind it.
  int stage = 0, next = Ring::stages - 1, group = part.first;
  const auto arrive = [&] {
    ptx::wait_copies<Ring::stages - 2>();
    __syncwarp();
    start(group + Ring::stages - 1, next);
  };
  arrive();
  auto upper = rows.get(0, stage, group), lower = rows.get(1, stage, group);
  pair_slab decoded;
  decoded.template decode<0>(upper, lower, me.lane);
  while (true) {
    const int here = min(4, block.chunks - 4 * group);
    unrolled<4>([&]<int C>() {
      if (C >= here) return;
      share_chunk(p, block, me, decoded, column, 4 * group + C, at);
      at.next();
      if constexpr (C < 3) decoded.template decode<C + 1>(upper, lower, me.lane);
    });
    if (++group == part.last) break;
    stage = stage + 1 == Ring::stages ? 0 : stage + 1;
    next = next + 1 == Ring::stages ? 0 : next + 1;
    arrive();
    upper = rows.get(0, stage, group), lower = rows.get(1, stage, group);
    decoded.template decode<0>(upper, lower, me.lane);
  }
}

/// The sums of a part, chunk by chunk.
template <class S>
__device__ __forceinline__ void multiply_part(const pair_block<S>& block, const pair_part& part,
                                              float (&sums)[S::n / 2],
                                              ring_position<S::stages>& at) noexcept {
  const int warp = block.thread / 32, lane = block.thread % 32;
#pragma unroll
  for (int j = 0; j < S::n / 2; ++j) sums[j] = 0;
  int previous = 0;
  const auto release = [&] {
    if (lane < S::cluster) ptx::arrive_remote(block.empty + 8 * previous, lane);
  };
  const int first = 4 * part.first, last = min(4 * part.last, block.chunks);
#pragma unroll 1
  for (int c = first; c < last; ++c) {
    ptx::wait_barrier(block.full + 8 * at.stage, at.phase);
    const std::uint64_t a = activation_descriptor(
        ptx::shared_address(block.weights + at.stage * S::weight_bytes + warp / 4 * (S::weight_bytes / 2)));
    const std::uint64_t b =
        activation_descriptor(ptx::shared_address(block.activations + at.stage * S::activation_bytes));
    ptx::wgmma_fence();
#pragma unroll
    for (int s = 0; s < 4; ++s)
      wgmma_bf16_shared<S::n>::multiply(sums, a + s * (256 >> 4), b + s * (256 >> 4));
    ptx::wgmma_commit();
    ptx::wgmma_wait<1>();
    if (c > first) release();
    previous = at.stage;
    at.next();
  }
  ptx::wgmma_wait<0>();
  release();
}

/// Calls fn(i) of a lane's results in the order of its sums: where they go, null if nowhere.
struct pair_results {
  float* out;
  std::int64_t stride;
  int rows, columns;  ///< from the lane's first on

  template <class S>
  __device__ pair_results(const pair_args& p, const pair_block<S>& block, int tile) noexcept {
    const auto [row_tile, column_pair] = block.tiles.at(tile);
    const int lane = block.thread % 32;
    const int row = row_tile * S::rows + 16 * (block.thread / 32) + lane / 4;
    const int column = (S::cluster * column_pair + block.rank) * S::n + 2 * (lane % 4);
    out = p.out + column * p.out_stride + row;
    stride = p.out_stride, rows = p.rows - row, columns = p.n - column;
  }
  /// Sum j, j being known at compile time.
  __device__ void store(int j, float v) const noexcept {
    const int row = 8 * (j % 4 / 2), column = 8 * (j / 4) + j % 2;
    if (row < rows && column < columns) out[column * stride + row] = v;
  }
};

/// A block's place for the sums of its part of a shared tile: float4 of every thread in turn.
template <class S>
__device__ __forceinline__ float4* partial_of(const pair_args& p, const pair_block<S>& block, int cluster,
                                              bool first) noexcept {
  const std::int64_t slot = (2 * cluster + (first ? 0 : 1)) * S::cluster + block.rank;
  return reinterpret_cast<float4*>(p.partial + slot * S::tile_values) + block.thread;
}

/// Adds the parts of a tile in order.
template <class S>
__device__ __forceinline__ void add_pair_parts(const pair_args& p, const pair_block<S>& block,
                                               int tile) noexcept {
  constexpr int batch = 16, threads = 32 * pair_multipliers;  // what the sums' registers hold
  const pair_results results(p, block, tile);
  const int tiles = block.tiles.count(), begin = (tile - p.plan.whole()) * p.plan.groups,
            end = begin + p.plan.groups;
  // The cluster whose share the tile begins in.
  int first = static_cast<int>(static_cast<std::int64_t>(begin) * p.plan.clusters /
                               (static_cast<std::int64_t>(tiles - p.plan.whole()) * p.plan.groups));
  while (p.plan.share(first + 1, tiles) <= begin) ++first;
#pragma unroll
  for (int q = 0; q < S::n / 8; q += batch) {
    float4 sum[batch] = {};
    for (int c = first; p.plan.share(c, tiles) < end; ++c) {
      if (p.plan.share(c, tiles) == p.plan.share(c + 1, tiles)) continue;
      const float4* from = partial_of(p, block, c, p.plan.share(c, tiles) > begin);
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const float4 v = __ldcg(from + (q + i) * threads);
        sum[i].x += v.x, sum[i].y += v.y, sum[i].z += v.z, sum[i].w += v.w;
      }
    }
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      results.store(4 * (q + i), sum[i].x);
      results.store(4 * (q + i) + 1, sum[i].y);
      results.store(4 * (q + i) + 2, sum[i].z);
      results.store(4 * (q + i) + 3, sum[i].w);
    }
  }
}

/// Writes a part's sums; those of a shared tile to its place, and if all others are there, adds them.
template <class S>
__device__ __forceinline__ void store_part(const pair_args& p, const pair_block<S>& block,
                                           const pair_part& part, const float (&sums)[S::n / 2]) noexcept {
  constexpr int threads = 32 * pair_multipliers;
  if (part.first == 0 && part.last == p.plan.groups) {
    const pair_results results(p, block, part.tile);
#pragma unroll
    for (int j = 0; j < S::n / 2; ++j) results.store(j, sums[j]);
    return;
  }
  float4* to = partial_of(p, block, block.cluster, part.first > 0);
#pragma unroll
  for (int q = 0; q < S::n / 8; ++q)
    __stcg(to + q * threads, make_float4(sums[4 * q], sums[4 * q + 1], sums[4 * q + 2], sums[4 * q + 3]));
  __threadfence();
  ptx::sync_threads<1, threads>();
  if (block.thread == 0) {
    // Groups that are done, so that nobody needs to know the number of parts.
    const int groups = part.last - part.first;
    *block.done = static_cast<int>(atomicAdd(p.finished + part.tile * S::cluster + block.rank,
                                             static_cast<std::uint32_t>(groups))) +
                  groups;
  }
  ptx::sync_threads<1, threads>();
  if (*block.done == p.plan.groups) {
    __threadfence();
    add_pair_parts(p, block, part.tile);
  }
}

}  // namespace detail

template <any_format F, int Align, class S>
__device__ __forceinline__ void multiply_pairs(const pair_args& p) noexcept {
  using ring = typename S::template ring<F, Align>;
  static_assert(pair_fits<F, Align, S>);
  extern __shared__ __align__(128) std::uint8_t shared[];
  const detail::pair_block<S> block(p, shared);
  ptx::launch_dependents();
  block.init_barriers();
  detail::ring_position<S::stages> at;
  if (block.thread >= 32 * pair_multipliers) {
    ptx::fewer_registers<S::decoder_registers>();
    const detail::pair_decoder me(block.thread);
    ptx::wait_for_prerequisites();
    detail::for_parts(p, block, [&](const detail::pair_part& part) {
      detail::decode_part<F, ring>(p, block, me, part, at);
    });
    ptx::wait_copies<0>();
  } else {
    ptx::more_registers<S::multiplier_registers>();
    ptx::wait_for_prerequisites();
    detail::for_parts(p, block, [&](const detail::pair_part& part) {
      float sums[S::n / 2];
      detail::multiply_part(block, part, sums, at);
      detail::store_part(p, block, part, sums);
    });
  }
  // Nobody leaves while others may still write to its shared memory or arrive on its barriers.
  ptx::cluster_arrive(), ptx::cluster_wait();
}

template <any_format F, int Align, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1) pair_kernel(const __grid_constant__ pair_args p) {
  if constexpr (ptx::hopper)
    multiply_pairs<F, Align, Shape>(p);
  else
    ptx::trap();
}

}  // namespace quantal::cuda
