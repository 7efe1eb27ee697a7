// Activation policy `q8`: activations rounded to int8, one float scale per 32, dotted with the integer codes.
//
// Normalised MSE of the rounding is about 2.7e-5 on Gaussian activations. Integer sums cover at most 32 products of
// |code| <= 128 and |activation| <= 127 in int32: nothing overflows. The scale is float32, so large activations
// cannot either. Bound by the int8 dot product (dpbusd on avx512_vnni) for many columns, by decoding for few.
#pragma once

#include <cmath>
#include <cstring>

#include "quantal/kernel/exact.hpp"
#include "quantal/simd/dot4.hpp"

namespace quantal::kernel {

inline constexpr int q8_block = 32;

/// Quantized activation rows in the caller's workspace, as four arrays per row.
struct q8_activations {
  std::byte* data;
  std::int64_t cols;
  int sub;  ///< weights per weight scale: 16 or 32

  std::int64_t blocks() const noexcept { return cols / q8_block; }
  std::int64_t subs() const noexcept { return cols / sub; }
  std::int64_t stride() const noexcept { return (cols + 4 * blocks() + 8 * subs() + 63) / 64 * 64; }
  std::byte* row(std::int64_t i) const noexcept { return data + i * stride(); }

  std::int8_t* codes(std::int64_t i) const noexcept { return reinterpret_cast<std::int8_t*>(row(i)); }
  float* scales(std::int64_t i) const noexcept { return reinterpret_cast<float*>(row(i) + cols); }
  /// -128 * sum of codes per sub: the start value that makes unsigned (code + 128) weights signed again.
  std::int32_t* bias(std::int64_t i) const noexcept {
    return reinterpret_cast<std::int32_t*>(row(i) + cols + 4 * blocks());
  }
  /// scale * sum of codes per sub: what a weight offset is multiplied by.
  float* sums(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + cols + 4 * blocks() + 4 * subs());
  }
};

/// Rounds one activation row; NaN or infinite activations make the affected results NaN or zero, never undefined.
template <class A>
void quantize_activation(const q8_activations& q, std::int64_t i, const float* x) noexcept {
  std::int8_t* codes = q.codes(i);
  for (std::int64_t b = 0; b < q.blocks(); ++b) {
    const float* v = x + b * q8_block;
    float largest = 0.0f;
    for (int k = 0; k < q8_block; ++k) largest = std::fabs(v[k]) > largest ? std::fabs(v[k]) : largest;
    const float scale = largest / 127.0f, inverse = largest > 0.0f && largest <= 3.4e38f ? 127.0f / largest : 0.0f;
    q.scales(i)[b] = scale;
    for (int k = 0; k < q8_block; ++k) {
      // 1.5 * 2^23 makes the FPU round to the nearest integer, which then sits in the low bits; a NaN is masked off.
      const float shifted = v[k] * inverse + 12582912.0f;
      const int code = static_cast<int>(quantal::detail::bits_from_float(shifted) & 0x7fffff) - 0x400000;
      codes[b * q8_block + k] = static_cast<std::int8_t>(code < -127 ? -127 : code > 127 ? 127 : code);
    }
  }
  for (std::int64_t s = 0; s < q.subs(); ++s) {
    int sum = 0;
    for (int k = 0; k < q.sub; ++k) sum += codes[s * q.sub + k];
    q.bias(i)[s] = -128 * sum;
    q.sums(i)[s] = q.scales(i)[s * q.sub / q8_block] * static_cast<float>(sum);
  }
}

/// One slice of 16 rows: codes + 128 interleaved in fours, scales and offsets by row.
template <block_format F>
struct coded_panel {
  static constexpr int subs = coded_slice<F>::subs;
  alignas(64) std::uint8_t codes[slice_weights * panel_rows];
  alignas(64) float scales[subs * panel_rows];
  alignas(64) float offsets[subs * panel_rows];
};

template <block_format F>
QUANTAL_INLINE void fill_panel(const weight_rows& w, int p, int rows, std::int64_t first, int count,
                               coded_panel<F>& panel) noexcept {
  coded_slice<F> s;
  for (int r = 0; r < panel_rows; ++r) {
    // Rows past the end repeat the last one: their sums are computed and dropped.
    const std::byte* row = w.row(p + (r < rows ? r : rows - 1));
    decode_codes<F>(row, row_scale<F>(row), first, count, s);
    for (int k = 0; k < count; k += 4) {
      std::uint32_t four;
      std::memcpy(&four, s.codes + k, 4);
      four ^= 0x80808080u;
      std::memcpy(panel.codes + k * panel_rows + 4 * r, &four, 4);
    }
    for (int g = 0; g < count / sub_group<F>; ++g) {
      panel.scales[g * panel_rows + r] = s.scales[g];
      if constexpr (F::layout.has_offset) panel.offsets[g * panel_rows + r] = s.offsets[g];
    }
  }
}

template <block_format F, class A, int C>
QUANTAL_INLINE void coded_tile(const coded_panel<F>& panel, std::int64_t first, int count, const q8_activations& x,
                               const std::int64_t* column, float* const* result, int rows) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), regs = panel_rows / lanes, sub = sub_group<F>;
  const std::int8_t* codes[C];
  const float *scales[C], *sums[C];
  const std::int32_t* bias[C];
  batch total[C][regs];
  for (int c = 0; c < C; ++c) {
    codes[c] = x.codes(column[c]) + first;
    scales[c] = x.scales(column[c]) + first / q8_block;
    bias[c] = x.bias(column[c]) + first / sub;
    sums[c] = x.sums(column[c]) + first / sub;
    for (int r = 0; r < regs; ++r) total[c][r] = batch(0.0f);
  }
  for (int g = 0; g < count / sub; ++g) {
    simd::i32<A> acc[C][regs];
    for (int c = 0; c < C; ++c)
      for (int r = 0; r < regs; ++r) acc[c][r] = simd::i32<A>(bias[c][g]);
    for (int k = g * sub; k < (g + 1) * sub; k += 4) {
      simd::u8<A> w[regs];
      for (int r = 0; r < regs; ++r) w[r] = simd::u8<A>::load_aligned(panel.codes + k * panel_rows + 4 * r * lanes);
      for (int c = 0; c < C; ++c) {
        const simd::s8<A> a = simd::broadcast4<A>(codes[c] + k);
        for (int r = 0; r < regs; ++r) acc[c][r] = simd::dot4<A>(acc[c][r], w[r], a);
      }
    }
    for (int r = 0; r < regs; ++r) {
      const batch scale = batch::load_aligned(panel.scales + g * panel_rows + r * lanes);
      for (int c = 0; c < C; ++c) {
        const batch product = scale * batch(scales[c][g * sub / q8_block]);
        total[c][r] = xsimd::fma(xsimd::to_float(acc[c][r]), product, total[c][r]);
        if constexpr (F::layout.has_offset) {
          const batch offset = batch::load_aligned(panel.offsets + g * panel_rows + r * lanes);
          total[c][r] = xsimd::fma(offset, batch(sums[c][g]), total[c][r]);
        }
      }
    }
  }
  for (int c = 0; c < C; ++c) {
    alignas(64) float sum[panel_rows];
    for (int r = 0; r < regs; ++r) total[c][r].store_aligned(sum + r * lanes);
    for (int i = 0; i < rows; ++i) result[c][i] = first ? result[c][i] + sum[i] : sum[i];
  }
}

template <block_format F, class A, class Columns>
void coded_panels(const weight_rows& w, const q8_activations& x, const Columns& cols) noexcept {
  constexpr int wide = tile_for<A>().columns;
  coded_panel<F> panel;
  std::int64_t column[wide];
  float* result[wide];
  for (int p = 0; p < w.count; p += panel_rows) {
    const int rows = w.count - p < panel_rows ? w.count - p : panel_rows;
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      fill_panel<F>(w, p, rows, first, count, panel);
      const auto tile = [&]<int C>(std::int64_t at) {
        for (int c = 0; c < C; ++c) {
          column[c] = cols.activation_row(at + c);
          result[c] = cols.result(at + c) + w.first + p;
        }
        coded_tile<F, A, C>(panel, first, count, x, column, result, rows);
      };
      const std::int64_t n = cols.count();
      std::int64_t at = 0;
      for (; at + wide <= n; at += wide) tile.template operator()<wide>(at);
      for (; at + 4 <= n; at += 4) tile.template operator()<4>(at);
      for (; at < n; ++at) tile.template operator()<1>(at);
    }
  }
}

/// Row slice (codes + 128) times one column: lanes run along the row, four weights each.
template <block_format F, class A>
QUANTAL_INLINE xsimd::batch<float, A> dot_coded_slice(const coded_slice<F>& s, const float* lane_scales, int count,
                                                      const std::int8_t* codes, const float* scales,
                                                      xsimd::batch<float, A> total) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), step = 4 * lanes;
  const simd::u8<A> bias(128);
  int k = 0;
  for (; k + step <= count; k += step) {
    const auto a = simd::s8<A>::load_unaligned(codes + k);
    const auto w = xsimd::bitwise_cast<std::uint8_t>(simd::s8<A>::load_aligned(s.codes + k)) ^ bias;
    const auto dot = simd::dot4<A>(simd::i32<A>(0), w, a) - simd::dot4<A>(simd::i32<A>(0), bias, a);
    batch scale = batch::load_aligned(lane_scales + k / 4);
    if constexpr (step <= q8_block) {
      scale *= batch(scales[k / q8_block]);
    } else {
      alignas(64) float wide[batch::size];
      for (int l = 0; l < lanes; ++l) wide[l] = scales[(k + 4 * l) / q8_block];
      scale *= batch::load_aligned(wide);
    }
    total = xsimd::fma(xsimd::to_float(dot), scale, total);
  }
  if (k < count) {  // the last blocks of a row that fill less than one register
    alignas(64) float tail[batch::size] = {};
    for (int l = 0; k + 4 * l < count; ++l) {
      int dot = 0;
      for (int j = 0; j < 4; ++j) dot += s.codes[k + 4 * l + j] * codes[k + 4 * l + j];
      tail[l] = static_cast<float>(dot) * lane_scales[k / 4 + l] * scales[(k + 4 * l) / q8_block];
    }
    total += batch::load_aligned(tail);
  }
  return total;
}

template <block_format F, class A, class Columns>
void coded_rows(const weight_rows& w, const q8_activations& x, const Columns& cols) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int wide = tile_for<A>().panel_columns, sub = sub_group<F>;
  coded_slice<F> s;
  alignas(64) float lane_scales[slice_weights / 4];
  for (std::int64_t at = 0; at < cols.count(); at += wide) {
    const int n = static_cast<int>(cols.count() - at < wide ? cols.count() - at : wide);
    for (int r = 0; r < w.count; ++r) {
      const std::byte* row = w.row(r);
      const float scale = row_scale<F>(row);
      batch total[wide];
      float shift[wide] = {};
      for (int c = 0; c < n; ++c) total[c] = batch(0.0f);
      for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
        const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
        decode_codes<F>(row, scale, first, count, s);
        for (int g = 0; g < count / sub; ++g)
          for (int l = 0; l < sub / 4; ++l) lane_scales[g * (sub / 4) + l] = s.scales[g];
        for (int c = 0; c < n; ++c) {
          const std::int64_t i = cols.activation_row(at + c);
          total[c] = dot_coded_slice<F, A>(s, lane_scales, count, x.codes(i) + first, x.scales(i) + first / q8_block,
                                           total[c]);
          if constexpr (F::layout.has_offset)
            for (int g = 0; g < count / sub; ++g) shift[c] += s.offsets[g] * x.sums(i)[first / sub + g];
        }
      }
      for (int c = 0; c < n; ++c) cols.result(at + c)[w.first + r] = xsimd::reduce_add(total[c]) + shift[c];
    }
  }
}

template <block_format F, class A, class Columns>
QUANTAL_INLINE void multiply_rows(const weight_rows& w, const q8_activations& x, const Columns& cols) noexcept {
  if (cols.count() >= tile_for<A>().panel_columns) coded_panels<F, A>(w, x, cols);
  else coded_rows<F, A>(w, x, cols);
}

}  // namespace quantal::kernel
