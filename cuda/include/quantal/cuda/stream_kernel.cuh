// The product with few vectors: weights stream through once, int8 tensor-core instructions multiply them with
// int8 activations (mma.sync, compute capability 8.0 and later).
//
// A block owns 16 * Tiles rows. Its warps share the columns of the matrix, each taking every Warps-th group
// of 256; a warp copies the bytes and the activations of its groups itself, so nothing is shared until the
// partial sums are added in the order of the warps.
#pragma once

#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/q8_records.cuh"
#include "quantal/cuda/unrolled.hpp"
#include "quantal/cuda/weight_stages.cuh"

namespace quantal::cuda {

struct stream_args {
  const std::byte* weights;
  std::int64_t row_stride, expert_stride;
  int rows, cols;
  const std::uint8_t* records;  ///< q8_records.cuh
  columns x;
  float* out;
};

/// Columns: 8 * Columns_ vectors. Groups: of 256 weights per stage. Blocks: how many are meant to share a
/// multiprocessor.
template <int Tiles_, int Columns_, int Warps_, int Groups_, int Stages_, int Blocks_>
struct stream_shape {
  static constexpr int Tiles = Tiles_, Columns = Columns_, Warps = Warps_, Groups = Groups_, Stages = Stages_,
                       Blocks = Blocks_;
  static constexpr int rows = 16 * Tiles, n = 8 * Columns, threads = 32 * Warps;
};

namespace detail {

/// d = a * b + c for 16 rows, 8 columns and 32 (k32) or 16 values; a: unsigned bytes, b: signed bytes.
__device__ inline void mma_k32(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t a2,
                               std::uint32_t a3, std::uint32_t b0, std::uint32_t b1, std::int32_t c0,
                               std::int32_t c1) noexcept {
  asm("mma.sync.aligned.m16n8k32.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%10, "
      "%11, %10, %11};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1), "r"(c0), "r"(c1));
}
__device__ inline void mma_k16(std::int32_t (&d)[4], std::uint32_t a0, std::uint32_t a1, std::uint32_t b0,
                               std::int32_t c0, std::int32_t c1) noexcept {
  asm("mma.sync.aligned.m16n8k16.row.col.s32.u8.s8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%7, %8, %7, %8};"
      : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3])
      : "r"(a0), "r"(a1), "r"(b0), "r"(c0), "r"(c1));
}

/// The scales of one row's group, worked out as bf16_scales does.
template <block_format F>
class float_scales {
  static constexpr int count = group_weights / F::layout.group;
  static constexpr int own = (count + 3) / 4;

 public:
  template <class Bytes>
  __device__ float_scales(const Bytes& bytes, float row_scale, int t) noexcept {
    unrolled<own>([&]<int I>() {
      const affine a = scale_reader<F>::template get<I>(bytes, row_scale, count >= 4 ? t : t % count);
      scale_[I] = a.scale;
      if constexpr (F::layout.has_offset) offset_[I] = a.offset;
    });
  }
  /// Scale G of the group, or G + more where that is one of the same four, handed to all lanes of the row.
  template <int G>
  __device__ affine at(int lane, int more = 0) const noexcept {
    if constexpr (count == 1) return {scale_[0], F::layout.has_offset ? offset_[0] : 0};
    const int from = (lane & ~3) + G % 4 + more;
    affine a{__shfl_sync(0xffffffffu, scale_[G / 4], from), 0};
    if constexpr (F::layout.has_offset) a.offset = __shfl_sync(0xffffffffu, offset_[G / 4], from);
    return a;
  }

 private:
  float scale_[own];
  float offset_[F::layout.has_offset ? own : 1];
};

}  // namespace detail

template <block_format F, int Align, class Shape>
using stream_weights = weight_stages<F, Align, Shape::Groups, Shape::Stages>;

/// Bytes of shared memory of a block, for tiles of up to n vectors.
template <block_format F, int Align, class Shape>
constexpr int stream_shared_bytes(std::int64_t n) noexcept {
  const int record_bytes = static_cast<int>(n < Shape::n ? n : Shape::n) * q8_record<F>::bytes;
  const int pipeline = Shape::Warps * (Shape::Tiles * stream_weights<F, Align, Shape>::bytes +
                                       Shape::Stages * Shape::Groups * record_bytes);
  const int result = Shape::Warps * Shape::rows * Shape::n * 4;
  return pipeline > result ? pipeline : result;
}

namespace detail {

/// What a warp multiplies, on its way through shared memory: its rows' bytes and its vectors' records.
template <block_format F, int Align, class Shape>
class stream_source {
  static constexpr int tiles = Shape::Tiles, step = Shape::Groups;
  using ring_t = stream_weights<F, Align, Shape>;
  using record = q8_record<F>;

 public:
  __device__ stream_source(const stream_args& p, const column_tile& vectors, std::uint8_t* shared, int row0,
                           int warp, int lane) noexcept
      : groups((p.cols + group_weights - 1) / group_weights),
        p_(p),
        lane_(lane),
        begin_(vectors.begin),
        record_bytes_(vectors.count * record::bytes),
        records_(shared + Shape::Warps * tiles * ring_t::bytes +
                 warp * Shape::Stages * step * record_bytes_) {
    const std::byte* matrix = p.weights + vectors.expert * p.expert_stride;
    const std::byte* end = matrix + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
    const auto row_of = [&](int i) { return matrix + p.row_stride * min(row0 + i, p.rows - 1); };
#pragma unroll
    for (int m = 0; m < tiles; ++m) {
      ring_[m] = ring_t(shared + (warp * tiles + m) * ring_t::bytes, lane, p.cols, end,
                        [&](int i) { return row_of(16 * m + i); });
#pragma unroll
      for (int h = 0; h < 2; ++h) {
        const std::byte* row = row_of(16 * m + 8 * h + lane / 4);
        addresses_[m][h] =
            static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(row)) + F::layout.row_meta;
        row_scales[m][h] = row_scale<F>(row);
      }
    }
  }

  __device__ void start_weights(int group, int stage) noexcept {
    if (group >= groups) return;
#pragma unroll
    for (int m = 0; m < tiles; ++m) ring_[m].start(group, stage);
  }
  __device__ void start_records(int group, int stage) noexcept {
#pragma unroll 1
    for (int j = 0; j < step && group + j < groups; ++j) {
      std::uint8_t* to = records_ + (stage * step + j) * record_bytes_;
      const std::uint8_t* from =
          p_.records + (static_cast<std::int64_t>(group + j) * p_.x.n + begin_) * record::bytes;
      for (int i = 16 * lane_; i < record_bytes_; i += 512)
        ptx::copy16(ptx::shared_address(to) + i, from + i);
    }
  }
  /// Group j of a stage that begins with group `first`: of row g + 8 * h of tile m, and of the vectors.
  __device__ group_bytes<Align> row(int m, int h, int stage, int j, int first) const noexcept {
    return ring_[m].row(stage, lane_ / 4 + 8 * h, j, addresses_[m][h] + first * group_size<F>);
  }
  __device__ const std::uint8_t* records(int stage, int j) const noexcept {
    return records_ + (stage * step + j) * record_bytes_;
  }

  int groups;  ///< of 256 columns in a row
  float row_scales[tiles][2];

 private:
  const stream_args& p_;
  int lane_, begin_, record_bytes_;
  std::uint8_t* records_;
  ring_t ring_[tiles];
  std::uint32_t addresses_[tiles][2];
};

/// Where a lane finds the records of its columns: that of its fragment, and the two whose sums it holds.
/// Columns that do not exist read the last one; their results are dropped.
template <block_format F, class Shape>
struct stream_columns {
  int fragment[Shape::Columns], left[Shape::Columns], right[Shape::Columns];

  __device__ stream_columns(int count, int lane) noexcept {
    const int g = lane / 4, t = lane % 4;
    constexpr int bytes = q8_record<F>::bytes;
#pragma unroll
    for (int c = 0; c < Shape::Columns; ++c) {
      fragment[c] = min(8 * c + g, count - 1) * bytes + 8 * t;
      left[c] = min(8 * c + 2 * t, count - 1) * bytes;
      right[c] = min(8 * c + 2 * t + 1, count - 1) * bytes;
    }
  }
};

/// A lane's two rows of a tile: 256 weights of each.
template <block_format F, int Align>
struct stream_rows {
  group_bytes<Align> upper, lower;
  float_scales<F> upper_scales, lower_scales;

  __device__ stream_rows(const group_bytes<Align>& u, const group_bytes<Align>& l,
                         const float (&row_scales)[2], int t) noexcept
      : upper(u), lower(l), upper_scales(u, row_scales[0], t), lower_scales(l, row_scales[1], t) {}
};

/// The product of chunk C of sixteen rows and eight vectors.
template <block_format F, int C>
struct chunk_product {
  using record = q8_record<F>;
  const std::uint8_t *left, *right;  ///< records of the columns whose sums this lane holds
  int lane;

  /// Adds it to the lane's four sums; b: the lane's part of the vectors' codes.
  template <int Align>
  __device__ void add_to(float (&s)[4], const stream_rows<F, Align>& rows, const fragment_codes& u,
                         const fragment_codes& l, const uint2& b) const noexcept {
    std::int32_t d[4];
    if constexpr (F::layout.group >= 32) {
      mma_k32(d, u.low, l.low, u.high, l.high, b.x, b.y, start(left, 0), start(right, 0));
      add<32 * C / F::layout.group, 0>(s, d, rows);
    } else if constexpr (split_fragments<F>) {
      mma_k16(d, u.low, l.low, b.x, start(left, 0), start(right, 0));
      add<2 * C, 0>(s, d, rows);
      mma_k16(d, u.high, l.high, b.y, start(left, 1), start(right, 1));
      add<2 * C + 1, 1>(s, d, rows);
    } else {
      // The halves of the chunk sit in different lanes: each product sees the activations of one half only.
      const bool first = (lane & 3) < 2;
      mma_k32(d, u.low, l.low, u.high, l.high, first ? b.x : 0, first ? b.y : 0, start(left, 0),
              start(right, 0));
      add<2 * C, 0>(s, d, rows);
      mma_k32(d, u.low, l.low, u.high, l.high, first ? 0 : b.x, first ? 0 : b.y, start(left, 1),
              start(right, 1));
      add<2 * C + 1, 1>(s, d, rows);
    }
  }

 private:
  /// The byte of a record's number for half H of the chunk.
  static constexpr int at(int h) noexcept { return 4 * (record::sums_per_chunk * C + h); }
  __device__ static std::int32_t start(const std::uint8_t* r, int h) noexcept {
    return *reinterpret_cast<const std::int32_t*>(r + record::starts + at(h));
  }
  __device__ static float sum(const std::uint8_t* r, int h) noexcept {
    return *reinterpret_cast<const float*>(r + record::sums + at(h));
  }
  /// The integers of half H, under scale G of the rows.
  template <int G, int H, int Align>
  __device__ void add(float (&s)[4], const std::int32_t (&d)[4],
                      const stream_rows<F, Align>& rows) const noexcept {
    const affine upper = rows.upper_scales.template at<G>(lane),
                 lower = rows.lower_scales.template at<G>(lane);
    s[0] = fmaf(upper.scale, __int_as_float(d[0]) - integer_float, s[0]);
    s[1] = fmaf(upper.scale, __int_as_float(d[1]) - integer_float, s[1]);
    s[2] = fmaf(lower.scale, __int_as_float(d[2]) - integer_float, s[2]);
    s[3] = fmaf(lower.scale, __int_as_float(d[3]) - integer_float, s[3]);
    if constexpr (F::layout.has_offset) {
      const float x = sum(left, H), y = sum(right, H);
      s[0] = fmaf(upper.offset, x, s[0]);
      s[1] = fmaf(upper.offset, y, s[1]);
      s[2] = fmaf(lower.offset, x, s[2]);
      s[3] = fmaf(lower.offset, y, s[3]);
    }
  }
};

/// A lane's sums: rows g and g + 8 of every tile, columns 2 * t and 2 * t + 1 of every eight.
template <class Shape>
using stream_sums = float[Shape::Tiles][Shape::Columns][4];

/// Adds the product of the lane's rows of one tile and all vectors, without the vectors' scales.
template <block_format F, class Shape, int Align>
__device__ __forceinline__ void multiply_rows(float (&part)[Shape::Columns][4],
                                              const stream_rows<F, Align>& rows, const std::uint8_t* records,
                                              const stream_columns<F, Shape>& at, int lane) noexcept {
  unrolled<8>([&]<int C>() {
    const fragment_codes u = fragment_reader<F>::template codes<C>(rows.upper, lane % 4),
                         l = fragment_reader<F>::template codes<C>(rows.lower, lane % 4);
#pragma unroll
    for (int c = 0; c < Shape::Columns; ++c) {
      const uint2 b = *reinterpret_cast<const uint2*>(records + at.fragment[c] + 32 * C);
      const chunk_product<F, C> product{records + at.left[c], records + at.right[c], lane};
      product.add_to(part[c], rows, u, l, b);
    }
  });
}

/// Adds the product of a group of 256 weights.
template <block_format F, int Align, class Shape>
__device__ __forceinline__ void multiply_group(stream_sums<Shape>& sums,
                                               const stream_source<F, Align, Shape>& source,
                                               const stream_columns<F, Shape>& at, int stage, int j,
                                               int first, int lane) noexcept {
  const std::uint8_t* records = source.records(stage, j);
  stream_sums<Shape> part = {};
  unrolled<Shape::Tiles>([&]<int M>() {
    const stream_rows<F, Align> rows(source.row(M, 0, stage, j, first), source.row(M, 1, stage, j, first),
                                     source.row_scales[M], lane % 4);
    multiply_rows<F, Shape>(part[M], rows, records, at, lane);
  });
#pragma unroll
  for (int c = 0; c < Shape::Columns; ++c) {
    const float x = *reinterpret_cast<const float*>(records + at.left[c] + q8_record<F>::scale);
    const float y = *reinterpret_cast<const float*>(records + at.right[c] + q8_record<F>::scale);
#pragma unroll
    for (int m = 0; m < Shape::Tiles; ++m)
#pragma unroll
      for (int i = 0; i < 4; ++i) sums[m][c][i] = fmaf(part[m][c][i], i % 2 ? y : x, sums[m][c][i]);
  }
}

/// Adds the sums of all warps, in their order, and writes them.
template <class Shape>
__device__ __forceinline__ void store_sums(const stream_args& p, const stream_sums<Shape>& sums,
                                           const column_tile& vectors, std::uint8_t* shared, int row0,
                                           int thread) noexcept {
  const int warp = thread / 32, g = thread % 32 / 4, t = thread % 4;
  float* result = reinterpret_cast<float*>(shared);  // [warp][column][row]
  __syncthreads();
#pragma unroll
  for (int m = 0; m < Shape::Tiles; ++m)
#pragma unroll
    for (int c = 0; c < Shape::Columns; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        result[(warp * Shape::n + 8 * c + 2 * t + i % 2) * Shape::rows + 16 * m + g + 8 * (i / 2)] =
            sums[m][c][i];
  __syncthreads();
  for (int i = thread; i < Shape::rows * vectors.count; i += Shape::threads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::Warps; ++w) sum += result[w * Shape::n * Shape::rows + i];
    const int row = row0 + i % Shape::rows;
    if (row < p.rows) p.out[p.x.out(vectors.begin + i / Shape::rows) + row] = sum;
  }
}

}  // namespace detail

template <block_format F, int Align, class Shape>
__global__ void __launch_bounds__(Shape::threads, Shape::Blocks)
    stream_kernel(const __grid_constant__ stream_args p) {
  constexpr int stages = Shape::Stages, step = Shape::Groups, stride = Shape::Warps * step,
                ahead = stages - 1;
  extern __shared__ __align__(128) std::uint8_t shared[];
  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32;
  const int row0 = blockIdx.x * Shape::rows;
  ptx::launch_dependents();
  // Routing is the work of the kernels in front of this one; without it the weights may be fetched while they
  // run.
  if (p.x.tiles) ptx::wait_for_prerequisites();
  const column_tile vectors = p.x.template tile<Shape::n>(blockIdx.y);
  if (vectors.count == 0) return;

  detail::stream_source<F, Align, Shape> source(p, vectors, shared, row0, warp, lane);
#pragma unroll
  for (int i = 0; i < ahead; ++i) source.start_weights(warp * step + i * stride, i);
  ptx::wait_for_prerequisites();
#pragma unroll
  for (int i = 0; i < ahead; ++i) {
    source.start_records(warp * step + i * stride, i);
    ptx::commit_copies();
  }

  const detail::stream_columns<F, Shape> at(vectors.count, lane);
  detail::stream_sums<Shape> sums = {};
  int stage = 0, next = ahead;
  for (int first = warp * step; first < source.groups; first += stride) {
    source.start_weights(first + ahead * stride, next);
    source.start_records(first + ahead * stride, next);
    ptx::commit_copies();
    ptx::wait_copies<ahead>();
    __syncwarp();
    for (int j = 0; j < step && first + j < source.groups; ++j)
      detail::multiply_group(sums, source, at, stage, j, first, lane);
    __syncwarp();
    stage = stage + 1 == stages ? 0 : stage + 1;
    next = next + 1 == stages ? 0 : next + 1;
  }
  ptx::wait_copies<0>();
  detail::store_sums<Shape>(p, sums, vectors, shared, row0, thread);
}

}  // namespace quantal::cuda
