// Panels of codes folded with sub-scales: what they hold is code * sub-scale. Where such products fit a byte
// (q2_K, q3_K), a panel needs one scale per 128 weights rather than one per 16, and mins stay integers.
// Sixteen weights of one sub-scale are one 128-bit lane, whose products come from a table of that lane's own.
#pragma once

#include "quantal/kernel/q8_activations.hpp"
#include "quantal/kernel/slice.hpp"

namespace quantal::kernel {

/// Are panels of the format filled with products of codes and sub-scales?
template <block_format F, class A>
inline constexpr bool folds_scales = false;
/// What is added to the products.
template <block_format F>
inline constexpr int folded_bias = 0;

#if QUANTAL_WITH_AVX512_VNNI
namespace avx512_vnni {

struct product_range {
  int lowest = 0, highest = 0;
};
template <planar_slices F>
constexpr product_range folded_products() noexcept {
  product_range r;
  for (const int code : {F::min_code, F::max_code})
    for (const int scale : {lowest_sub_scale<F>, lowest_sub_scale<F> + sub_scale_plan<F>.mask()}) {
      r.lowest = code * scale < r.lowest ? code * scale : r.lowest;
      r.highest = code * scale > r.highest ? code * scale : r.highest;
    }
  return r;
}
/// At most eight codes, sub-scales of 16 weights, products that fit a byte; mins do without a bias.
template <block_format F>
inline constexpr bool folds = false;
template <planar_slices F>
requires(!has_levels<F> && has_sub_scales<F> && slice_blocks<F> == 1 && F::layout.group == 16 &&
         requires { F::max_code; }) inline constexpr bool folds<F> = [] {
  if constexpr (F::max_code - F::min_code < 8 && sub_scale_plan<F>.found &&
                scale_formula_of<F> == scale_formula::half_times && has_planned_scales<F>) {
    constexpr product_range r = folded_products<F>();
    return r.highest - r.lowest <= 255 && (r.lowest == 0 || !F::layout.has_offset);
  }
  return false;
}();

/// codes = sub-scale of their sixteen * (codes - low) + add, for codes of at most three bits in order.
QUANTAL_INLINE void fold(__m256i sub_scales, int low, int add, __m512i (&codes)[4]) noexcept {
  const __m512i scales = _mm512_castsi256_si512(sub_scales);
  const __m512i level = _mm512_sub_epi16(_mm512_broadcast_i32x4(_mm_setr_epi16(0, 1, 2, 3, 4, 5, 6, 7)),
                                         _mm512_set1_epi16(static_cast<short>(low)));
  const __m512i lane = _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002,
                                        0x0002000200020002, 0x0001000100010001, 0x0001000100010001, 0, 0);
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    const __m512i scale = _mm512_permutexvar_epi16(_mm512_add_epi16(lane, _mm512_set1_epi16(4 * c)), scales);
    const __m512i table =
        _mm512_add_epi16(_mm512_mullo_epi16(scale, level), _mm512_set1_epi16(static_cast<short>(add)));
    // The low bytes of the table's words.
    codes[c] = _mm512_shuffle_epi8(table, _mm512_add_epi8(codes[c], codes[c]));
  });
}

template <block_format F>
QUANTAL_INLINE void folded_slice(const typename F::block& b, coded_slice& out) noexcept {
  using lanes = scales_in_order<16>;
  const auto* const slice = reinterpret_cast<const std::uint8_t*>(&b);
  __m512i codes[4];
  slice_codes_in<F, order_of_slice>(slice, codes);
  fold(_mm512_cvtepi32_epi16(sub_scale_lanes<F, lanes>(slice)), code_bias<F>, folded_bias<F>, codes);
  simd::unroll<4>([&](auto r) QUANTAL_LAMBDA { _mm512_store_si512(out.codes + 64 * r, codes[r]); });
  out.scales[0] = out.scales[1] = half_of(b.d);
  if constexpr (F::layout.has_offset) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(out.offsets),
                       _mm512_cvtepi32_epi16(planned_lanes<F, lanes, sub_min_plan<F>>(slice)));
    out.offsets[paired_scale_at] = -half_of(b.dmin);
  }
}

}  // namespace avx512_vnni

template <block_format F, avx512_vnni::arch A>
inline constexpr bool folds_scales<F, A> = avx512_vnni::folds<F>;
/// The highest product becomes 255.
template <block_format F>
requires(avx512_vnni::folds<F> && !F::layout.has_offset) inline constexpr int folded_bias<F> =
    255 - avx512_vnni::folded_products<F>().highest;

template <block_format F, class A>
void decode_folded(const std::byte* row, std::int64_t first, int count, coded_slice* out) noexcept {
  const auto* block = row_blocks<F>(row) + first / slice_weights;
  for (; count > 0; count -= slice_weights) avx512_vnni::folded_slice<F>(*block++, *out++);
}
#endif

/// How panels of a format see it; few columns see form_of.
template <block_format F, class A>
constexpr code_form panel_form_of() noexcept {
  if constexpr (folds_scales<F, A>)
    return {q8_block, F::layout.has_offset, !F::layout.has_offset, simd::code_kind::u8, F::layout.has_offset};
  else
    return form_of<F, A>();
}
template <block_format F, class A>
inline constexpr int panel_bias = !panel_form_of<F, A>().biased ? 0
                                  : folds_scales<F, A>          ? folded_bias<F>
                                                                : code_bias<F>;

/// Decodes slices in the form that panels want them.
template <block_format F, class A>
constexpr code_decoder panel_codes_of() noexcept {
#if QUANTAL_WITH_AVX512_VNNI
  if constexpr (folds_scales<F, A>) return &decode_folded<F, A>;
#endif
  return &decode_run<F, A>;
}

}  // namespace quantal::kernel
