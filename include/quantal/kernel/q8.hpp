// Activation policy `q8`: activations rounded to int8, dotted with the integer codes of the weights.
//
// One float scale per 128 activations (fewer at the end of a row). The normalised MSE of the rounding is
// about 3.7e-5 on Gaussian activations. Integer sums cover at most 32 products of u8 <= 255 and |s8| <= 127
// in int32, and scales are float32: nothing overflows, however large the activations are.
//
// Many columns: 16 rows are decoded into a panel of unsigned bytes, four weights of a row to a 32-bit lane,
// so that one broadcast of four activations feeds 16 rows; bound by the int8 dot product (dpbusd on
// avx512_vnni). Per scale there is one conversion and one multiply-add per column, and one more where the
// format has offsets. Few columns: rows are decoded one slice at a time and dotted along the row; bound by
// decoding and by the memory that the weights come from.
#pragma once

#include <cmath>
#include <cstring>

#include "quantal/kernel/exact.hpp"
#include "quantal/simd/dot4.hpp"

namespace quantal::kernel {

/// Activations per scale.
inline constexpr int q8_block = 128;

/// Quantized activation rows in the caller's workspace, as five arrays per row.
struct q8_activations {
  std::byte* data;
  std::int64_t cols;
  int sub, bias;  ///< weights per weight scale, code bias of the weights

  QUANTAL_INLINE std::int64_t blocks() const noexcept { return (cols + q8_block - 1) / q8_block; }
  QUANTAL_INLINE std::int64_t subs() const noexcept { return cols / sub; }
  QUANTAL_INLINE std::int64_t stride() const noexcept {
    return (cols + 4 * blocks() + 12 * subs() + 63) / 64 * 64;
  }
  QUANTAL_INLINE std::byte* row(std::int64_t i) const noexcept { return data + i * stride(); }

  QUANTAL_INLINE std::int8_t* codes(std::int64_t i) const noexcept {
    return reinterpret_cast<std::int8_t*>(row(i));
  }
  QUANTAL_INLINE float* scales(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + cols);
  }
  /// -bias * sum of codes per sub: the start value that undoes the bias of the weight codes.
  QUANTAL_INLINE std::int32_t* starts(std::int64_t i) const noexcept {
    return reinterpret_cast<std::int32_t*>(row(i) + cols + 4 * blocks());
  }
  /// Sum of codes per sub, and the same times the scale: what a weight offset is multiplied by.
  QUANTAL_INLINE float* sums(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + cols + 4 * blocks() + 4 * subs());
  }
  QUANTAL_INLINE float* shifts(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + cols + 4 * blocks() + 8 * subs());
  }
};

/// Rounds n <= q8_block activations to int8, the largest magnitude to 127, and sums the codes per `sub`;
/// returns the scale. Infinite or NaN activations give a NaN scale, and so NaN results.
template <class A>
QUANTAL_INLINE float quantize_block(const float* x, int n, int sub, std::int8_t* codes,
                                    std::int32_t* sums) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  batch most(0.0f), finite(0.0f);
  for (int k = 0; k < n; k += lanes) {
    const batch v = batch::load_unaligned(x + k);
    most = xsimd::max(most, xsimd::abs(v));
    finite = xsimd::fma(v, batch(0.0f), finite);
  }
  const float largest = xsimd::reduce_max(most);
  const batch inverse(largest > 0.0f ? 127.0f / largest : 0.0f);
  // 1.5 * 2^23 makes the FPU round to the nearest integer, which then sits in the low bits. The limits matter
  // for NaN and for subnormal activations, whose inverse is infinite.
  const batch magic(12582912.0f), limit(127.0f);
  alignas(64) std::int32_t wide[q8_block];
  for (int k = 0; k < n; k += lanes) {
    const batch v = xsimd::max(xsimd::min(batch::load_unaligned(x + k) * inverse, limit), -limit);
    (xsimd::bitwise_cast<std::int32_t>(v + magic) - simd::i32<A>(0x4b400000)).store_aligned(wide + k);
  }
  for (int s = 0; s < n / sub; ++s) {
    simd::i32<A> sum(0);
    for (int k = s * sub; k < (s + 1) * sub; k += lanes) sum += simd::i32<A>::load_aligned(wide + k);
    sums[s] = xsimd::reduce_add(sum);
  }
  for (int k = 0; k < n; ++k) codes[k] = static_cast<std::int8_t>(wide[k]);
  return largest / 127.0f + xsimd::reduce_add(finite);
}

/// Rounds one activation row.
template <class A>
void quantize_activation(const q8_activations& q, std::int64_t i, const float* x) noexcept {
  std::int32_t* const starts = q.starts(i);
  float *const sums = q.sums(i), *const shifts = q.shifts(i);
  for (std::int64_t from = 0; from < q.cols; from += q8_block) {
    const int n = static_cast<int>(q.cols - from < q8_block ? q.cols - from : q8_block);
    std::int32_t sum[q8_block / 16];
    const float scale = quantize_block<A>(x + from, n, q.sub, q.codes(i) + from, sum);
    q.scales(i)[from / q8_block] = scale;
    const std::int64_t first = from / q.sub;
    for (int s = 0; s < n / q.sub; ++s) {
      starts[first + s] = -q.bias * sum[s];
      sums[first + s] = static_cast<float>(sum[s]);
      shifts[first + s] = scale * sums[first + s];
    }
  }
}

/// One slice of 16 rows: codes interleaved in fours, scales and offsets by row.
struct coded_panel {
  alignas(64) std::uint8_t codes[slice_weights * panel_rows];
  alignas(64) float scales[slice_scales * panel_rows];
  alignas(64) float offsets[slice_scales * panel_rows];
};

/// Decodes one slice of rows [p, p + rows) into a panel; rows past the end repeat the last one, their sums
/// are dropped.
using panel_filler = void (*)(const weight_rows& w, int p, int rows, std::int64_t first, int count,
                              coded_panel& panel) noexcept;

template <block_format F, class A>
void fill_panel(const weight_rows& w, int p, int rows, std::int64_t first, int count,
                coded_panel& panel) noexcept {
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

/// The tile in plain C++: emulated registers would only slow the compiler down.
template <code_form form, int C>
QUANTAL_INLINE void plain_coded_tile(const coded_panel& panel, int count, const coded_column* x,
                                     float (*result)[panel_rows]) noexcept {
  for (int c = 0; c < C; ++c)
    for (int from = 0; from < count; from += q8_block) {
      const int to = count - from < q8_block ? count : from + q8_block;
      float total[panel_rows] = {};
      for (int g = from / form.sub; g < to / form.sub; ++g) {
        std::int32_t acc[panel_rows];
        for (int r = 0; r < panel_rows; ++r) acc[r] = x[c].starts[g];
        for (int k = g * form.sub; k < (g + 1) * form.sub; k += 4)
          for (int r = 0; r < panel_rows; ++r)
            for (int j = 0; j < 4; ++j) acc[r] += panel.codes[k * panel_rows + 4 * r + j] * x[c].codes[k + j];
        for (int r = 0; r < panel_rows; ++r) {
          total[r] += static_cast<float>(acc[r]) * panel.scales[g * panel_rows + r];
          if constexpr (form.offset) total[r] += panel.offsets[g * panel_rows + r] * x[c].sums[g];
        }
      }
      for (int r = 0; r < panel_rows; ++r)
        result[c][r] = (from ? result[c][r] : 0.0f) + total[r] * x[c].scales[from / q8_block];
    }
}

template <class A, code_form form, int C>
QUANTAL_INLINE void register_coded_tile(const coded_panel& panel, int count, const coded_column* x,
                                        float (*result)[panel_rows]) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), regs = panel_rows / lanes, sub = form.sub;
  for (int from = 0; from < count; from += q8_block) {
    const int to = count - from < q8_block ? count : from + q8_block;
    batch total[C][regs];
    simd::unroll<C, regs>([&](auto c, auto r) QUANTAL_LAMBDA { total[c][r] = batch(0.0f); });
    for (int g = from / sub; g < to / sub; ++g) {
      simd::i32<A> acc[C][regs];
      simd::unroll<C, regs>(
          [&](auto c, auto r) QUANTAL_LAMBDA { acc[c][r] = simd::i32<A>(form.biased ? x[c].starts[g] : 0); });
      // Unrolled, the loads of the column pointers are shared by all steps of a group.
      const std::uint8_t* const codes = panel.codes + g * sub * panel_rows;
      simd::unroll<sub / 4>([&](auto k) QUANTAL_LAMBDA {
        simd::u8<A> w[regs];
        simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
          w[r] = simd::u8<A>::load_aligned(codes + 4 * k * panel_rows + 4 * r * lanes);
        });
        simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
          const simd::s8<A> a = simd::broadcast4<A>(x[c].codes + g * sub + 4 * k);
          simd::unroll<regs>(
              [&](auto r) QUANTAL_LAMBDA { acc[c][r] = simd::dot4_of<A, form.narrow>(acc[c][r], w[r], a); });
        });
      });
      simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
        const batch scale = batch::load_aligned(panel.scales + g * panel_rows + r * lanes);
        simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
          total[c][r] = xsimd::fma(xsimd::to_float(acc[c][r]), scale, total[c][r]);
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
      const batch scale(x[c].scales[from / q8_block]);
      if (from == 0)
        (total[c][r] * scale).store_aligned(out);
      else
        xsimd::fma(total[c][r], scale, batch::load_aligned(out)).store_aligned(out);
    });
  }
}

/// result[c][0..16) = panel times the columns.
template <class A, code_form form, int C>
void coded_tile(const coded_panel& panel, int count, const coded_column* x,
                float (*result)[panel_rows]) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>)
    plain_coded_tile<form, C>(panel, count, x, result);
  else
    register_coded_tile<A, form, C>(panel, count, x, result);
}

/// Rows x columns through panels; four panels share one pass over the activations.
template <class A, code_form form>
void coded_panels(panel_filler fill, const weight_rows& w, const q8_activations& x,
                  const columns& cols) noexcept {
  constexpr int group = coded_panels_at_once, wide = tile_for<A>().coded_columns;
  coded_panel panels[group];
  alignas(64) float sums[wide][panel_rows];
  const int used = (w.count + panel_rows - 1) / panel_rows;
  for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
    const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
    const auto rows = [&](int q) {
      return w.count - q * panel_rows < panel_rows ? w.count - q * panel_rows : panel_rows;
    };
    for (int q = 0; q < used; ++q) fill(w, q * panel_rows, rows(q), first, count, panels[q]);
    const auto tile = [&]<int C>(std::int64_t at) {
      coded_column v[C];
      for (int c = 0; c < C; ++c) {
        const std::int64_t i = cols.activation_row(at + c);
        v[c] = {x.codes(i) + first, x.scales(i) + first / q8_block, x.starts(i) + first / form.sub,
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

/// Per-lane scales of the register of codes that starts at weight k: lane l holds weights k + 4l .. k + 4l
/// + 3.
template <class A, int sub>
QUANTAL_INLINE xsimd::batch<float, A> lane_scales(const float* scales, int k) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int step = 4 * static_cast<int>(batch::size);
  if constexpr (step <= sub) {
    return batch(scales[k / sub]);
  } else {
#if XSIMD_WITH_AVX512F
    if constexpr (step == 64) {
      // Loads that lie within one earlier store: 8 scales, or an aligned quarter of 16.
      if constexpr (sub == 16)
        return _mm512_permutexvar_ps(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
                                     _mm512_castps128_ps512(_mm_load_ps(scales + k / sub)));
      else
        return _mm512_permutexvar_ps(
            _mm512_add_epi32(_mm512_set1_epi32(k / sub),
                             _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)),
            _mm512_castps256_ps512(_mm256_load_ps(scales)));
    }
#endif
    alignas(64) float wide[batch::size];
    for (int l = 0; l < step / 4; ++l) wide[l] = scales[(k + 4 * l) / sub];
    return batch::load_aligned(wide);
  }
}

/// What the sums of corrections accumulate in: at most eight lanes, since a slice has 8 or 16 of them.
#if XSIMD_WITH_AVX2
template <class A>
using correction_batch =
    xsimd::batch<float, std::conditional_t<std::is_same_v<A, simd::scalar>, A, simd::avx2>>;
#else
template <class A>
using correction_batch = xsimd::batch<float, A>;
#endif

/// 4 * lanes codes; on AVX-512 as two halves, because decoders of small blocks store 32 bytes at a time.
template <class A, bool halves>
QUANTAL_INLINE simd::u8<A> load_codes(const std::uint8_t* p) noexcept {
#if XSIMD_WITH_AVX512F
  if constexpr (halves && simd::u8<A>::size == 64) {
    const auto half = [](const std::uint8_t* q) {
      return _mm256_load_si256(reinterpret_cast<const __m256i*>(q));
    };
    return _mm512_inserti64x4(_mm512_castsi256_si512(half(p)), half(p + 32), 1);
  }
#endif
  return simd::u8<A>::load_aligned(p);
}

/// A decoded slice with what is derived from it once for all columns.
struct row_slice {
  coded_slice s{};
  alignas(64) float corrections[slice_scales] =
      {};  ///< offset - bias * scale: multiplies the sum of the activations
};

/// Codes times activations of q8_block weights from `from`, without corrections and the activations' scale.
/// `halves`: the decoder stored the codes 32 at a time.
template <class A, code_form form, bool halves>
QUANTAL_INLINE xsimd::batch<float, A> dot_codes(const coded_slice& s, const std::int8_t* x,
                                                int from) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int step = 4 * static_cast<int>(batch::size);
  batch total(0.0f);
  simd::unroll<q8_block / step>([&](auto i) QUANTAL_LAMBDA {
    const int k = from + step * i;
    const auto dot = simd::dot4_of<A, form.narrow>(simd::i32<A>(0), load_codes<A, halves>(s.codes + k),
                                                   simd::s8<A>::load_unaligned(x + k));
    total = xsimd::fma(xsimd::to_float(dot), lane_scales<A, form.sub>(s.scales, k), total);
  });
  return total;
}

/// The end of a row in a format of small blocks: less than a slice, perhaps less than a register.
template <class A, code_form form>
QUANTAL_INLINE float dot_tail(const row_slice& w, int count, const coded_column& x) noexcept {
  float total = 0.0f;
  for (int g = 0; g < count / form.sub; ++g) {
    int dot = 0;
    for (int k = g * form.sub; k < (g + 1) * form.sub; ++k) dot += w.s.codes[k] * x.codes[k];
    total += static_cast<float>(dot) * (w.s.scales[g] * x.scales[g * form.sub / q8_block]) +
             w.corrections[g] * x.sums[g];
  }
  return total;
}

/// Few columns: rows in order, each slice decoded once for all columns.
template <block_format F, class A>
void coded_rows(const weight_rows& w, const q8_activations& x, const columns& cols) noexcept {
  using batch = xsimd::batch<float, A>;
  using narrow = correction_batch<A>;
  constexpr code_form form = form_of<F>;
  constexpr int wide = tile_for<A>().panel_columns, lanes = static_cast<int>(narrow::size),
                subs = slice_weights / form.sub;
  row_slice slice;
  const int n = static_cast<int>(cols.n);
  coded_column v[wide];
  float* out[wide];
  for (int c = 0; c < n; ++c) {
    const std::int64_t i = cols.activation_row(c);
    v[c] = {x.codes(i), x.scales(i), nullptr, x.shifts(i)};
    out[c] = cols.result(c) + w.first;
  }
  for (int r = 0; r < w.count; ++r) {
    const std::byte* const row = w.row(r);
    const float scale = row_scale<F>(row);
    batch total[wide];
    narrow shift[wide];
    float tail[wide] = {};
    for (int c = 0; c < n; ++c) {
      total[c] = batch(0.0f);
      shift[c] = narrow(0.0f);
    }
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      decode_codes<F, A>(row, scale, first, count, slice.s);
      if constexpr (form.biased)
        for (int g = 0; g < subs; g += lanes) {
          auto c = narrow::load_aligned(slice.s.scales + g) * narrow(static_cast<float>(-code_bias<F>));
          if constexpr (form.offset) c += narrow::load_aligned(slice.s.offsets + g);
          c.store_aligned(slice.corrections + g);
        }
      const float* const corrections = form.biased ? slice.corrections : slice.s.offsets;
      for (int c = 0; c < n; ++c) {
        const coded_column at{v[c].codes + first, v[c].scales + first / q8_block, nullptr,
                              v[c].sums + first / form.sub};
        if (count < slice_weights) {
          if constexpr (!form.biased)
            std::memcpy(slice.corrections, slice.s.offsets, sizeof slice.corrections);
          tail[c] += dot_tail<A, form>(slice, count, at);
          continue;
        }
        simd::unroll<slice_weights / q8_block>([&](auto h) QUANTAL_LAMBDA {
          const batch part = dot_codes<A, form, (F::layout.elements < 64)>(slice.s, at.codes, h * q8_block);
          total[c] = xsimd::fma(part, batch(at.scales[h]), total[c]);
        });
        if constexpr (form.offset || form.biased)
          for (int g = 0; g < subs; g += lanes)
            shift[c] = xsimd::fma(narrow::load_aligned(corrections + g), narrow::load_unaligned(at.sums + g),
                                  shift[c]);
      }
    }
    for (int c = 0; c < n; ++c)
      out[c][r] = xsimd::reduce_add(total[c]) + xsimd::reduce_add(shift[c]) + tail[c];
  }
}

}  // namespace quantal::kernel
