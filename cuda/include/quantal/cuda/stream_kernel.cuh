// The product with few vectors: weights stream through once, int8 tensor-core instructions multiply them with
// int8 activations (mma.sync, compute capability 8.0 and later).
//
// A block owns 16 * Tiles rows. Its warps share the columns of the matrix, each taking every Warps-th group
// of 256; a warp copies the bytes and the activations of its groups itself, so nothing is shared until the
// partial sums are added in the order of the warps.
#pragma once

#include "quantal/cuda/columns.cuh"
#include "quantal/cuda/q8_records.cuh"
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
#pragma unroll
    for (int i = 0; i < own; ++i) {
      const affine a = octets<F>::scale(bytes, row_scale, count >= 4 ? 4 * i + t : t % count);
      scale_[i] = a.scale;
      if constexpr (F::layout.has_offset) offset_[i] = a.offset;
    }
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

template <block_format F, int Align, class Shape>
__global__ void __launch_bounds__(Shape::threads, Shape::Blocks)
    stream_kernel(const __grid_constant__ stream_args p) {
  constexpr int tiles = Shape::Tiles, columns = Shape::Columns, stages = Shape::Stages, step = Shape::Groups;
  using ring_t = stream_weights<F, Align, Shape>;
  using record = q8_record<F>;
  extern __shared__ __align__(128) std::uint8_t shared[];

  const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32, g = lane / 4, t = lane % 4;
  ptx::launch_dependents();
  // Routing is the work of the kernels in front of this one; without it the weights may be fetched while they
  // run.
  if (p.x.tiles) ptx::wait_for_prerequisites();
  const column_tile vectors = p.x.template tile<Shape::n>(blockIdx.y);
  if (vectors.count == 0) return;
  const std::byte* matrix = p.weights + vectors.expert * p.expert_stride;
  const int row0 = blockIdx.x * Shape::rows, here = vectors.count;
  const int groups = (p.cols + group_weights - 1) / group_weights;
  const int record_bytes = here * record::bytes;
  std::uint8_t* records = shared + Shape::Warps * tiles * ring_t::bytes + warp * stages * step * record_bytes;

  const std::byte* matrix_end = matrix + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
  const auto row_of = [&](int i) { return matrix + p.row_stride * min(row0 + i, p.rows - 1); };
  ring_t ring[tiles];
  std::uint32_t addresses[tiles][2];
  float row_scales[tiles][2];
#pragma unroll
  for (int m = 0; m < tiles; ++m) {
    ring[m] = ring_t(shared + (warp * tiles + m) * ring_t::bytes, lane, p.cols, matrix_end,
                     [&](int i) { return row_of(16 * m + i); });
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::byte* row = row_of(16 * m + 8 * h + g);
      addresses[m][h] =
          static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(row)) + F::layout.row_meta;
      row_scales[m][h] = row_scale<F>(row);
    }
  }
  const auto start_weights = [&](int group, int stage) {
    if (group >= groups) return;
#pragma unroll
    for (int m = 0; m < tiles; ++m) ring[m].start(group, stage);
  };
  const auto start_records = [&](int group, int stage) {
    for (int j = 0; j < step && group + j < groups; ++j) {
      std::uint8_t* to = records + (stage * step + j) * record_bytes;
      const std::uint8_t* from =
          p.records + (static_cast<std::int64_t>(group + j) * p.x.n + vectors.begin) * record::bytes;
      for (int i = 16 * lane; i < record_bytes; i += 512) ptx::copy16(ptx::shared_address(to) + i, from + i);
    }
  };

  constexpr int stride = Shape::Warps * step, ahead = stages - 1;
#pragma unroll
  for (int i = 0; i < ahead; ++i) start_weights(warp * step + i * stride, i);
  ptx::wait_for_prerequisites();
#pragma unroll
  for (int i = 0; i < ahead; ++i) {
    start_records(warp * step + i * stride, i);
    ptx::commit_copies();
  }

  // The records of this lane's columns: that of its fragment, and the two whose sums it holds. Columns that
  // do not exist read the last one; their results are dropped.
  int fragment_at[columns], left_at[columns], right_at[columns];
#pragma unroll
  for (int c = 0; c < columns; ++c) {
    fragment_at[c] = min(8 * c + g, here - 1) * record::bytes + 8 * t;
    left_at[c] = min(8 * c + 2 * t, here - 1) * record::bytes;
    right_at[c] = min(8 * c + 2 * t + 1, here - 1) * record::bytes;
  }

  float sums[tiles][columns][4] = {};
  const auto multiply = [&](const std::uint8_t* here_records, int stage, int j, int first) {
    float part[tiles][columns][4] = {};
    const auto bytes_of = [&](int m, int h) {
      return ring[m].row(stage, g + 8 * h, j, addresses[m][h] + first * group_size<F>);
    };
    using scales_t = detail::float_scales<F>;
    const auto tile = [&]<int m>() {
      const auto upper = bytes_of(m, 0), lower = bytes_of(m, 1);
      const scales_t upper_scales(upper, row_scales[m][0], t), lower_scales(lower, row_scales[m][1], t);
      const auto chunk = [&]<int C>() {
        const octet u = octets<F>::template codes<C>(upper, t), l = octets<F>::template codes<C>(lower, t);
#pragma unroll
        for (int c = 0; c < columns; ++c) {
          const uint2 b = *reinterpret_cast<const uint2*>(here_records + fragment_at[c] + 32 * C);
          const std::uint8_t *left = here_records + left_at[c], *right = here_records + right_at[c];
          const auto accumulate = [&](const std::int32_t(&d)[4], int h, const affine& su, const affine& sl) {
            float(&s)[4] = part[m][c];
            s[0] = fmaf(su.scale, __int_as_float(d[0]) - integer_float, s[0]);
            s[1] = fmaf(su.scale, __int_as_float(d[1]) - integer_float, s[1]);
            s[2] = fmaf(sl.scale, __int_as_float(d[2]) - integer_float, s[2]);
            s[3] = fmaf(sl.scale, __int_as_float(d[3]) - integer_float, s[3]);
            if constexpr (F::layout.has_offset) {
              const int at = record::sums + 4 * (record::sums_per_chunk * C + h);
              const float x = *reinterpret_cast<const float*>(left + at),
                          y = *reinterpret_cast<const float*>(right + at);
              s[0] = fmaf(su.offset, x, s[0]);
              s[1] = fmaf(su.offset, y, s[1]);
              s[2] = fmaf(sl.offset, x, s[2]);
              s[3] = fmaf(sl.offset, y, s[3]);
            }
          };
          const auto start = [&](const std::uint8_t* r, int h) {
            return *reinterpret_cast<const std::int32_t*>(r + record::starts +
                                                          4 * (record::sums_per_chunk * C + h));
          };
          std::int32_t d[4];
          if constexpr (F::layout.group >= 32) {
            constexpr int G = 32 * C / F::layout.group;
            detail::mma_k32(d, u.low, l.low, u.high, l.high, b.x, b.y, start(left, 0), start(right, 0));
            accumulate(d, 0, upper_scales.template at<G>(lane), lower_scales.template at<G>(lane));
          } else if constexpr (split_octets<F>) {
            detail::mma_k16(d, u.low, l.low, b.x, start(left, 0), start(right, 0));
            accumulate(d, 0, upper_scales.template at<2 * C>(lane), lower_scales.template at<2 * C>(lane));
            detail::mma_k16(d, u.high, l.high, b.y, start(left, 1), start(right, 1));
            accumulate(d, 1, upper_scales.template at<2 * C + 1>(lane),
                       lower_scales.template at<2 * C + 1>(lane));
          } else {
            // The halves of the chunk sit in different lanes: each product sees the activations of one half
            // only.
            const bool first = t < 2;
            detail::mma_k32(d, u.low, l.low, u.high, l.high, first ? b.x : 0, first ? b.y : 0, start(left, 0),
                            start(right, 0));
            accumulate(d, 0, upper_scales.template at<2 * C>(lane), lower_scales.template at<2 * C>(lane));
            detail::mma_k32(d, u.low, l.low, u.high, l.high, first ? 0 : b.x, first ? 0 : b.y, start(left, 1),
                            start(right, 1));
            accumulate(d, 1, upper_scales.template at<2 * C + 1>(lane),
                       lower_scales.template at<2 * C + 1>(lane));
          }
        }
      };
      chunk.template operator()<0>();
      chunk.template operator()<1>();
      chunk.template operator()<2>();
      chunk.template operator()<3>();
      chunk.template operator()<4>();
      chunk.template operator()<5>();
      chunk.template operator()<6>();
      chunk.template operator()<7>();
    };
    tile.template operator()<0>();
    if constexpr (tiles == 2) tile.template operator()<1>();
#pragma unroll
    for (int c = 0; c < columns; ++c) {
      const float x = *reinterpret_cast<const float*>(here_records + left_at[c] + record::scale);
      const float y = *reinterpret_cast<const float*>(here_records + right_at[c] + record::scale);
#pragma unroll
      for (int m = 0; m < tiles; ++m)
#pragma unroll
        for (int i = 0; i < 4; ++i) sums[m][c][i] = fmaf(part[m][c][i], i % 2 ? y : x, sums[m][c][i]);
    }
  };
  int stage = 0, next = ahead;
  for (int first = warp * step; first < groups; first += stride) {
    start_weights(first + ahead * stride, next);
    start_records(first + ahead * stride, next);
    ptx::commit_copies();
    ptx::wait_copies<ahead>();
    __syncwarp();
    for (int j = 0; j < step && first + j < groups; ++j)
      multiply(records + (stage * step + j) * record_bytes, stage, j, first);
    __syncwarp();
    stage = stage + 1 == stages ? 0 : stage + 1;
    next = next + 1 == stages ? 0 : next + 1;
  }
  ptx::wait_copies<0>();
  __syncthreads();
  float* result = reinterpret_cast<float*>(shared);  // [warp][column][row]
#pragma unroll
  for (int m = 0; m < tiles; ++m)
#pragma unroll
    for (int c = 0; c < columns; ++c)
#pragma unroll
      for (int i = 0; i < 4; ++i)
        result[(warp * Shape::n + 8 * c + 2 * t + i % 2) * Shape::rows + 16 * m + g + 8 * (i / 2)] =
            sums[m][c][i];
  __syncthreads();
  for (int i = thread; i < Shape::rows * here; i += Shape::threads) {
    float sum = 0;
#pragma unroll
    for (int w = 0; w < Shape::Warps; ++w) sum += result[w * Shape::n * Shape::rows + i];
    const int row = row0 + i % Shape::rows;
    if (row < p.rows) p.out[p.x.out(vectors.begin + i / Shape::rows) + row] = sum;
  }
}

}  // namespace quantal::cuda
