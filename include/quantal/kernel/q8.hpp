// Activation policy `q8`: activations rounded to int8, dotted with the integer codes of the weights.
//
// One float scale per 32 activations, per 128 where the weights come in super-blocks. The normalised MSE of the rounding
// is about 2.7e-5 and 3.7e-5 on Gaussian activations. Integer sums cover at most 32 products of u8 <= 255 and
// |s8| <= 127 in int32, and scales are float32: nothing overflows, however large the activations are.
//
// Many columns: 16 rows are decoded into a panel of unsigned bytes, four weights of a row to a 32-bit lane, so that one
// broadcast of four activations feeds 16 rows; bound by the int8 dot product (dpbusd on avx512_vnni). Per scale there is
// one conversion and one multiply-add per column (two where activations have a scale per 32). Few columns: rows are
// decoded one slice at a time and dotted along the row; bound by decoding and by the memory that the weights come from.
#pragma once

#include <cmath>
#include <cstring>

#include "quantal/kernel/exact.hpp"
#include "quantal/simd/dot4.hpp"

namespace quantal::kernel {

/// Quantized activation rows in the caller's workspace, as four arrays per row.
struct q8_activations {
  std::byte* data;
  std::int64_t cols;
  int sub, block, bias;  ///< weights per weight scale, activations per activation scale, code bias of the weights

  QUANTAL_INLINE std::int64_t blocks() const noexcept { return cols / block; }
  QUANTAL_INLINE std::int64_t subs() const noexcept { return cols / sub; }
  QUANTAL_INLINE std::int64_t stride() const noexcept { return (cols + 4 * blocks() + 8 * subs() + 63) / 64 * 64; }
  QUANTAL_INLINE std::byte* row(std::int64_t i) const noexcept { return data + i * stride(); }

  QUANTAL_INLINE std::int8_t* codes(std::int64_t i) const noexcept { return reinterpret_cast<std::int8_t*>(row(i)); }
  QUANTAL_INLINE float* scales(std::int64_t i) const noexcept { return reinterpret_cast<float*>(row(i) + cols); }
  /// -bias * sum of codes per sub: the start value that undoes the bias of the weight codes.
  QUANTAL_INLINE std::int32_t* starts(std::int64_t i) const noexcept {
    return reinterpret_cast<std::int32_t*>(row(i) + cols + 4 * blocks());
  }
  /// Sum of codes per sub, times the scale where a block is 32: what a weight offset is multiplied by.
  QUANTAL_INLINE float* sums(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + cols + 4 * blocks() + 4 * subs());
  }
};

/// Rounds one block to int8, the largest magnitude to 127; returns its scale. Infinite or NaN activations give a NaN
/// scale, and so NaN results.
template <class A>
QUANTAL_INLINE float quantize_block(const float* x, int n, std::int8_t* codes) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  batch most(0.0f), finite(0.0f);
  for (int k = 0; k < n; k += lanes) {
    const batch v = batch::load_unaligned(x + k);
    most = xsimd::max(most, xsimd::abs(v));
    finite = xsimd::fma(v, batch(0.0f), finite);
  }
  const float largest = xsimd::reduce_max(most), inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
  // 1.5 * 2^23 makes the FPU round to the nearest integer, which then sits in the low bits; a NaN is masked off, and an
  // infinite `inverse` (subnormal activations) is clamped like any value.
  for (int k = 0; k < n; ++k) {
    float v = x[k] * inverse;
    v = v < 127.0f ? v : 127.0f;
    v = v > -127.0f ? v : -127.0f;
    codes[k] = static_cast<std::int8_t>(quantal::detail::bits_from_float(v + 12582912.0f) & 255);
  }
  return largest / 127.0f + xsimd::reduce_add(finite);
}

/// Rounds one activation row.
template <class A>
void quantize_activation(const q8_activations& q, std::int64_t i, const float* x) noexcept {
  std::int8_t* const codes = q.codes(i);
  float* const scales = q.scales(i);
  for (std::int64_t b = 0; b < q.blocks(); ++b)
    scales[b] = quantize_block<A>(x + b * q.block, q.block, codes + b * q.block);
  std::int32_t* const starts = q.starts(i);
  float* const sums = q.sums(i);
  for (std::int64_t s = 0; s < q.subs(); ++s) {
    int sum = 0;
    for (int k = 0; k < q.sub; ++k) sum += codes[s * q.sub + k];
    starts[s] = -q.bias * sum;
    sums[s] = static_cast<float>(sum) * (q.block == 32 ? scales[s * q.sub / 32] : 1.0f);
  }
}

/// One slice of 16 rows: codes interleaved in fours, scales and offsets by row.
struct coded_panel {
  alignas(64) std::uint8_t codes[slice_weights * panel_rows];
  alignas(64) float scales[slice_scales * panel_rows];
  alignas(64) float offsets[slice_scales * panel_rows];
};

/// Decodes one slice of rows [p, p + rows) into a panel; rows past the end repeat the last one, their sums are dropped.
using panel_filler = void (*)(const weight_rows& w, int p, int rows, std::int64_t first, int count,
                              coded_panel& panel) noexcept;

template <block_format F, class A>
void fill_panel(const weight_rows& w, int p, int rows, std::int64_t first, int count, coded_panel& panel) noexcept {
  coded_slice s[panel_rows];
  for (int r = 0; r < panel_rows; ++r) {
    const std::byte* row = w.row(p + (r < rows ? r : rows - 1));
    decode_codes<F, A>(row, row_scale<F>(row), first, count, s[r]);
  }
  constexpr int stride = static_cast<int>(sizeof(coded_slice) / 4);
  static_assert(stride % 16 == 0);
  const auto words = [](const void* v) { return reinterpret_cast<const std::uint32_t*>(v); };
  const auto out = [](void* v) { return reinterpret_cast<std::uint32_t*>(v); };
  simd::transpose16<A>(words(s[0].codes), stride, count / 4, out(panel.codes));
  simd::transpose16<A>(words(s[0].scales), stride, count / sub_group<F>, out(panel.scales));
  if constexpr (F::layout.has_offset)
    simd::transpose16<A>(words(s[0].offsets), stride, count / sub_group<F>, out(panel.offsets));
}

/// What a tile reads of one column, at the start of a slice.
struct coded_column {
  const std::int8_t* codes;
  const float* scales;
  const std::int32_t* starts;
  const float* sums;
};

/// result[c][0..16) = panel times the columns.
template <class A, code_form form, int C>
void coded_tile(const coded_panel& panel, int count, const coded_column* x, float (*result)[panel_rows]) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), regs = panel_rows / lanes, sub = form.sub;
  // One pass per activation scale, or the whole slice where scales are per 32 and enter with the weights'.
  constexpr int span = form.block == 32 ? slice_weights : form.block;
  for (int from = 0; from < count; from += span) {
    const int to = count - from < span ? count : from + span;
    batch total[C][regs];
    simd::unroll<C, regs>([&](auto c, auto r) QUANTAL_LAMBDA { total[c][r] = batch(0.0f); });
    for (int g = from / sub; g < to / sub; ++g) {
      simd::i32<A> acc[C][regs];
      simd::unroll<C, regs>([&](auto c, auto r) QUANTAL_LAMBDA { acc[c][r] = simd::i32<A>(x[c].starts[g]); });
      for (int k = g * sub; k < (g + 1) * sub; k += 4) {
        simd::u8<A> w[regs];
        simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
          w[r] = simd::u8<A>::load_aligned(panel.codes + k * panel_rows + 4 * r * lanes);
        });
        simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
          const simd::s8<A> a = simd::broadcast4<A>(x[c].codes + k);
          simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
            acc[c][r] = simd::dot4_of<A, form.narrow>(acc[c][r], w[r], a);
          });
        });
      }
      simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
        const batch scale = batch::load_aligned(panel.scales + g * panel_rows + r * lanes);
        simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
          batch s = scale;
          if constexpr (form.block == 32) s = scale * batch(x[c].scales[g * sub / 32]);
          total[c][r] = xsimd::fma(xsimd::to_float(acc[c][r]), s, total[c][r]);
        });
        if constexpr (form.offset) {
          const batch offset = batch::load_aligned(panel.offsets + g * panel_rows + r * lanes);
          simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
            total[c][r] = xsimd::fma(offset, batch(x[c].sums[g]), total[c][r]);
          });
        }
      });
    }
    simd::unroll<C, regs>([&](auto c, auto r) QUANTAL_LAMBDA {
      float* const out = result[c] + r * lanes;
      if constexpr (form.block == 32) total[c][r].store_aligned(out);
      else if (from == 0) (total[c][r] * batch(x[c].scales[0])).store_aligned(out);
      else xsimd::fma(total[c][r], batch(x[c].scales[from / span]), batch::load_aligned(out)).store_aligned(out);
    });
  }
}

/// Rows x columns through panels; four panels share one pass over the activations.
template <class A, code_form form>
void coded_panels(panel_filler fill, const weight_rows& w, const q8_activations& x, const columns& cols) noexcept {
  constexpr int group = coded_panels_at_once, wide = tile_for<A>().coded_columns;
  coded_panel panels[group];
  alignas(64) float sums[wide][panel_rows];
  const int used = (w.count + panel_rows - 1) / panel_rows;
  for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
    const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
    const auto rows = [&](int q) { return w.count - q * panel_rows < panel_rows ? w.count - q * panel_rows : panel_rows; };
    for (int q = 0; q < used; ++q) fill(w, q * panel_rows, rows(q), first, count, panels[q]);
    const auto tile = [&]<int C>(std::int64_t at) {
      coded_column v[C];
      for (int c = 0; c < C; ++c) {
        const std::int64_t i = cols.activation_row(at + c);
        v[c] = {x.codes(i) + first, x.scales(i) + first / form.block, x.starts(i) + first / form.sub,
                x.sums(i) + first / form.sub};
      }
      for (int q = 0; q < used; ++q) {
        coded_tile<A, form, C>(panels[q], count, v, sums);
        for (int c = 0; c < C; ++c)
          put_column(sums[c], cols.result(at + c) + w.first + q * panel_rows, rows(q), first != 0);
      }
    };
    std::int64_t at = 0;
    for (; at + wide <= cols.n; at += wide) tile.template operator()<wide>(at);
    if constexpr (wide > 8)
      for (; at + 8 <= cols.n; at += 8) tile.template operator()<8>(at);
    if constexpr (wide > 4)
      for (; at + 4 <= cols.n; at += 4) tile.template operator()<4>(at);
    for (; at < cols.n; ++at) tile.template operator()<1>(at);
  }
}

/// Per-lane scales of the register of codes that starts at weight k: lane l holds weights k + 4l .. k + 4l + 3.
template <class A, int sub>
QUANTAL_INLINE xsimd::batch<float, A> lane_scales(const float* scales, int k) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int step = 4 * static_cast<int>(batch::size);
  if constexpr (step <= sub) {
    return batch(scales[k / sub]);
  } else {
#if XSIMD_WITH_AVX512F
    if constexpr (step == 64) {
      const __m512 all = _mm512_castps128_ps512(_mm_loadu_ps(scales + k / sub));
      if constexpr (sub == 16) return _mm512_permutexvar_ps(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0), all);
      else return _mm512_permutexvar_ps(_mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0), all);
    }
#endif
    alignas(64) float wide[batch::size];
    for (int l = 0; l < step / 4; ++l) wide[l] = scales[(k + 4 * l) / sub];
    return batch::load_aligned(wide);
  }
}

/// Products of n corrections with the activation sums, in any lanes. n is a power of two.
template <class A, int n>
QUANTAL_INLINE xsimd::batch<float, A> dot_corrections(const float* corrections, const float* sums) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  if constexpr (n >= lanes) {
    batch total = batch::load_unaligned(corrections) * batch::load_unaligned(sums);
    for (int g = lanes; g < n; g += lanes)
      total = xsimd::fma(batch::load_unaligned(corrections + g), batch::load_unaligned(sums + g), total);
    return total;
  } else {
    alignas(64) float wide[batch::size] = {};
    for (int g = 0; g < n; ++g) wide[g] = corrections[g] * sums[g];
    return batch::load_aligned(wide);
  }
}

/// One row slice times one column.
template <class A, code_form form>
QUANTAL_INLINE xsimd::batch<float, A> dot_coded(const coded_slice& s, const float* corrections, int count,
                                                const coded_column& x, xsimd::batch<float, A> total) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), step = 4 * lanes, sub = form.sub;
  alignas(64) float scaled[slice_scales];
  const float* scales = s.scales;
  if constexpr (form.block == 32) {
    for (int g = 0; g < count / sub; ++g) scaled[g] = s.scales[g] * x.scales[g * sub / 32];
    scales = scaled;
  }
  if constexpr (form.block != 32) {
    constexpr int subs = form.block / sub;
    for (int h = 0; h < count / form.block; ++h) {
      batch part(0.0f);
      for (int k = h * form.block; k < (h + 1) * form.block; k += step) {
        const auto dot = simd::dot4_of<A, form.narrow>(simd::i32<A>(0), simd::u8<A>::load_aligned(s.codes + k),
                                                       simd::s8<A>::load_unaligned(x.codes + k));
        part = xsimd::fma(xsimd::to_float(dot), lane_scales<A, sub>(scales, k), part);
      }
      part += dot_corrections<A, subs>(corrections + h * subs, x.sums + h * subs);
      total = xsimd::fma(part, batch(x.scales[h]), total);
    }
  } else {
    int k = 0;
    for (; k + step <= count; k += step) {
      const auto dot = simd::dot4_of<A, form.narrow>(simd::i32<A>(0), simd::u8<A>::load_aligned(s.codes + k),
                                                     simd::s8<A>::load_unaligned(x.codes + k));
      total = xsimd::fma(xsimd::to_float(dot), lane_scales<A, sub>(scales, k), total);
    }
    if (count == slice_weights) return total + dot_corrections<A, slice_weights / sub>(corrections, x.sums);
    alignas(64) float tail[batch::size] = {};  // the end of a row, which may fill less than one register
    for (int l = 0; k + 4 * l < count; ++l) {
      int dot = 0;
      for (int j = 0; j < 4; ++j) dot += s.codes[k + 4 * l + j] * x.codes[k + 4 * l + j];
      tail[l] = static_cast<float>(dot) * scales[(k + 4 * l) / sub];
    }
    for (int g = 0; g < count / sub; ++g) tail[g % lanes] += corrections[g] * x.sums[g];
    total += batch::load_aligned(tail);
  }
  return total;
}

/// Few columns: rows in order, each slice decoded once for all columns.
template <block_format F, class A>
void coded_rows(const weight_rows& w, const q8_activations& x, const columns& cols) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr code_form form = form_of<F>;
  constexpr int wide = tile_for<A>().panel_columns;
  coded_slice s{};
  alignas(64) float corrections[slice_scales];
  const int n = static_cast<int>(cols.n);
  coded_column v[wide];
  float* out[wide];
  for (int c = 0; c < n; ++c) {
    const std::int64_t i = cols.activation_row(c);
    v[c] = {x.codes(i), x.scales(i), x.starts(i), x.sums(i)};
    out[c] = cols.result(c) + w.first;
  }
  for (int r = 0; r < w.count; ++r) {
    const std::byte* const row = w.row(r);
    const float scale = row_scale<F>(row);
    batch total[wide];
    for (int c = 0; c < n; ++c) total[c] = batch(0.0f);
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      decode_codes<F, A>(row, scale, first, count, s);
      // The bias of the codes is an offset like any other: it multiplies the sum of the activations.
      for (int g = 0; g < slice_scales; ++g) {
        corrections[g] = s.scales[g] * static_cast<float>(-code_bias<F>);
        if constexpr (F::layout.has_offset) corrections[g] += s.offsets[g];
      }
      for (int c = 0; c < n; ++c) {
        const coded_column at{v[c].codes + first, v[c].scales + first / form.block, nullptr, v[c].sums + first / form.sub};
        total[c] = dot_coded<A, form>(s, corrections, count, at, total[c]);
      }
    }
    for (int c = 0; c < n; ++c) out[c][r] = xsimd::reduce_add(total[c]);
  }
}

}  // namespace quantal::kernel
