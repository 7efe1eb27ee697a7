// Weights decoded to operands of their own: for so many vectors that decoding once pays for writing them.
#pragma once

#include "quantal/cuda/activations.cuh"
#include "quantal/cuda/lane_rows.cuh"
#include "quantal/cuda/operand.cuh"
#include "quantal/cuda/unrolled.hpp"

namespace quantal::cuda {

struct expand_args {
  const std::byte* weights;
  std::int64_t row_stride;
  int rows, cols;
  std::uint8_t* out;  ///< operand.cuh, row_groups groups of 8 rows
  std::int64_t row_groups;
  const float* bounds;  ///< e4m3: no weight of the row is larger
};

inline constexpr int expand_warps = 8, expand_stages = 2;
inline constexpr int expand_groups = 4;  ///< groups of 256 weights a warp does, one after the other

template <any_format F, int Align>
using expand_ring = weight_stages<F, Align, 1, expand_stages>;

namespace detail {

/// Two values, rounded to e4m3; the first is the low byte. Too large ones become the largest.
__device__ inline std::uint32_t pack_e4m3(float first, float second) noexcept {
  std::uint16_t r = 0;
  if constexpr (ptx::hopper)
    asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(r) : "f"(second), "f"(first));
  return r;
}
__device__ inline std::uint32_t pack_e4m3(float a, float b, float c, float d) noexcept {
  return pack_e4m3(a, b) | pack_e4m3(c, d) << 16;
}
__device__ inline float low_bf16(std::uint32_t pair) noexcept { return __uint_as_float(pair << 16); }
__device__ inline float high_bf16(std::uint32_t pair) noexcept { return __uint_as_float(pair & 0xffff0000u); }

/// The factor that takes values up to `bound` to e4m3's range.
__device__ inline float e4m3_factor(float bound) noexcept {
  return bound > 0 ? e4m3_operand::top / bound : 0;
}

/// Stores lane (g, t)'s fragment_codes of chunk C (of 32) at row g of a group of 8 rows.
__device__ inline void store_fragment(bf16_operand, std::uint8_t* group, int c, int g, int t,
                                      const bf16_fragment& o, float) noexcept {
#pragma unroll
  for (int j = 0; j < 4; ++j)
    *reinterpret_cast<std::uint32_t*>(group + 512 * (c % 2) + 128 * j + 16 * g + 4 * t) = o.pairs[j];
}
__device__ inline void store_fragment(e4m3_operand, std::uint8_t* group, int c, int g, int t,
                                      const bf16_fragment& o, float factor) noexcept {
  std::uint32_t words[2];
#pragma unroll
  for (int i = 0; i < 2; ++i)
    words[i] = pack_e4m3(low_bf16(o.pairs[2 * i]) * factor, high_bf16(o.pairs[2 * i]) * factor,
                         low_bf16(o.pairs[2 * i + 1]) * factor, high_bf16(o.pairs[2 * i + 1]) * factor);
  *reinterpret_cast<uint2*>(group + 256 * (c % 4) + 128 * (t / 2) + 16 * g + 8 * (t % 2)) =
      make_uint2(words[0], words[1]);
}

/// Stores chunk C of a group of the block's sixteen rows, unless it lies behind the columns.
template <class Operand, int C>
__device__ inline void store_chunk(const expand_args& p, int group, const bf16_fragment& upper,
                                   const bf16_fragment& lower, const float (&factors)[2], int lane) noexcept {
  const std::int64_t at = static_cast<std::int64_t>(group) * (group_weights / Operand::chunk_values) +
                          32 * C / Operand::chunk_values;
  if (at * Operand::chunk_values >= p.cols) return;
  std::uint8_t* out = p.out + (at * p.row_groups + 2 * blockIdx.x) * operand_group_bytes;
  store_fragment(Operand{}, out, C, lane / 4, lane % 4, upper, factors[0]);
  store_fragment(Operand{}, out + operand_group_bytes, C, lane / 4, lane % 4, lower, factors[1]);
}

}  // namespace detail

/// blockIdx.x: sixteen rows; every warp has expand_groups groups of 256 columns.
template <any_format F, int Align, class Operand>
__global__ void __launch_bounds__(32 * expand_warps) expand(const __grid_constant__ expand_args p) {
  using ring_t = expand_ring<F, Align>;
  extern __shared__ __align__(128) std::uint8_t shared[];
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4;
  const int groups = (p.cols + group_weights - 1) / group_weights;
  const int first = (blockIdx.y * expand_warps + warp) * expand_groups,
            last = min(groups, first + expand_groups);
  const int row0 = 16 * blockIdx.x;
  const std::byte* end = p.weights + p.row_stride * (p.rows - 1) + row_bytes<F>(p.cols);
  lane_rows<F, ring_t> rows(shared + warp * ring_t::bytes, lane, p.cols, end,
                            [&](int i) { return p.weights + p.row_stride * min(row0 + i, p.rows - 1); });
  float factors[2] = {1, 1};
  if constexpr (std::is_same_v<Operand, e4m3_operand>)
    for (int h = 0; h < 2; ++h) factors[h] = detail::e4m3_factor(p.bounds[min(row0 + g + 8 * h, p.rows - 1)]);

  if (first < last) rows.start(first, 0);
  ptx::commit_copies();
  for (int group = first, stage = 0; group < last; ++group, stage ^= 1) {
    if (group + 1 < last) rows.start(group + 1, stage ^ 1);
    ptx::commit_copies();
    ptx::wait_copies<1>();
    __syncwarp();
    const auto upper = rows.get(0, stage, group), lower = rows.get(1, stage, group);
    unrolled<8>([&]<int C>() {
      const bf16_fragment u = upper.template get<C>(lane), l = lower.template get<C>(lane);
      detail::store_chunk<Operand, C>(p, group, u, l, factors, lane);
    });
    __syncwarp();
  }
}

/// A bound of the weights of every row, from the scales alone. One warp per row.
template <any_format F>
__global__ void row_bounds(const std::byte* weights, std::int64_t row_stride, int rows, int cols,
                           float* bounds) {
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const int row = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
  if (row >= rows) return;
  const std::byte* data = weights + row * row_stride;
  const auto* blocks = row_blocks<F>(data);
  float bound = 0;
  if constexpr (float_format<F>) {
    for (int c = lane; c < cols; c += 32) bound = fmaxf(bound, fabsf(F::value(blocks[c])));
  } else {
    constexpr float largest = [] {
      if constexpr (requires { F::min_code + F::max_code; })
        return static_cast<float>(-F::min_code > F::max_code ? -F::min_code : F::max_code);
      else
        return 128.0f;
    }();
    constexpr int per_block = F::layout.groups();
    const float of_row = row_scale<F>(data);
    for (int i = lane; i < cols / F::layout.group; i += 32) {
      const auto& block = blocks[i / per_block];
      float b = fabsf(F::scale(block, of_row, i % per_block)) * largest;
      if constexpr (F::layout.has_offset) b += fabsf(F::offset(block, of_row, i % per_block));
      bound = fmaxf(bound, b);
    }
  }
#pragma unroll
  for (int d = 16; d; d /= 2) bound = fmaxf(bound, __shfl_xor_sync(0xffffffffu, bound, d));
  if (lane == 0) bounds[row] = bound;
}

/// The largest magnitude of every vector. One block per vector.
template <int Threads>
__global__ void vector_bounds(const vectors x, float* bounds) {
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  __shared__ float of_warps[Threads / 32];
  const float* v = x.at(blockIdx.x);
  float bound = 0;
  for (std::int64_t k = 4 * threadIdx.x; k < x.cols; k += 4 * Threads) {
    const float4 f = load_four(v, k, x.cols);
    bound = fmaxf(fmaxf(bound, fmaxf(fabsf(f.x), fabsf(f.y))), fmaxf(fabsf(f.z), fabsf(f.w)));
  }
#pragma unroll
  for (int d = 16; d; d /= 2) bound = fmaxf(bound, __shfl_xor_sync(0xffffffffu, bound, d));
  if (threadIdx.x % 32 == 0) of_warps[threadIdx.x / 32] = bound;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int w = 1; w < Threads / 32; ++w) bound = fmaxf(bound, of_warps[w]);
    bounds[blockIdx.x] = bound;
  }
}

/// Activations as e4m3 operand: one warp per chunk of 32 and group of 8 vectors, lane = 8 * t + vector.
template <fragment_order Order>
__global__ void __launch_bounds__(32 * prepare_warps)
    prepare_e4m3(const vectors x, const float* bounds, std::uint8_t* out) {
  __shared__ float staged[prepare_warps][8 * prepare_pitch];
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const std::int64_t warp = (blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x) >> 5;
  const int lane = threadIdx.x & 31;
  const std::int64_t groups = (x.n + 7) / 8, chunks = 4 * operand_chunks<e4m3_operand>(x.cols);
  if (warp >= chunks * groups) return;
  const std::int64_t chunk = warp / (4 * groups) * 4 + (warp & 3), group = warp % (4 * groups) >> 2;
  float* values = staged[threadIdx.x >> 5];
  chunk_part part;
  part.load(x, chunk, group, lane);
  part.share(values, lane);

  const int vector = lane & 7, t = lane >> 3;
  const std::int64_t v = 8 * group + vector;
  const float factor = detail::e4m3_factor(v < x.n ? bounds[v] : 0);
  const auto value = [&](int i) {
    return values[vector * prepare_pitch + fragment_element(Order, t, i)] * factor;
  };
  out += ((chunk >> 2) * groups + group) * operand_group_bytes + 256 * (chunk & 3);
  *reinterpret_cast<uint2*>(out + 128 * (t / 2) + 16 * vector + 8 * (t % 2)) =
      make_uint2(detail::pack_e4m3(value(0), value(1), value(2), value(3)),
                 detail::pack_e4m3(value(4), value(5), value(6), value(7)));
}

}  // namespace quantal::cuda
