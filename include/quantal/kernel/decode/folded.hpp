// q2_K and q3_K with their sub-scales multiplied into the codes: the products fit a byte, so that a panel
// needs one scale per 128 weights rather than one per 16, and q2_K's mins stay integers. Sixteen weights of
// one sub-scale are one 128-bit lane, whose products come from a table of that lane's own.
#pragma once

#include "quantal/kernel/q8_activations.hpp"
#include "quantal/kernel/slice.hpp"

namespace quantal::kernel {

/// Are panels of the format filled with products of codes and sub-scales?
template <block_format F, class A>
inline constexpr bool folds_scales = std::same_as<A, simd::avx512_vnni> &&
                                     (std::same_as<F, q2_K> || std::same_as<F, q3_K>);

/// What is added to the products of q3_K: they lie in -124 .. 128.
inline constexpr int folded_bias = 127;

/// How panels of a format see it; few columns see form_of.
template <block_format F, class A>
constexpr code_form panel_form_of() noexcept {
  if constexpr (folds_scales<F, A>)
    return {q8_block, F::layout.has_offset, !F::layout.has_offset, simd::code_kind::u8,
            F::layout.has_offset};
  else
    return form_of<F, A>();
}
template <block_format F, class A>
inline constexpr int panel_bias = !panel_form_of<F, A>().biased ? 0
                                  : folds_scales<F, A>          ? folded_bias
                                                                : code_bias<F>;

#if QUANTAL_WITH_AVX512_VNNI
namespace detail {

/// codes[e] = scale of e's sixteen * (codes[e] - low) + add, for codes of at most three bits.
template <int low, int add>
QUANTAL_INLINE void fold_scales(__m256i sub_scales, std::uint8_t* codes) noexcept {
  const __m512i scales = _mm512_castsi256_si512(sub_scales);
  const __m512i level = _mm512_broadcast_i32x4(
      _mm_setr_epi16(-low, 1 - low, 2 - low, 3 - low, 4 - low, 5 - low, 6 - low, 7 - low));
  const __m512i lane = _mm512_set_epi64(0x0003000300030003, 0x0003000300030003, 0x0002000200020002,
                                        0x0002000200020002, 0x0001000100010001, 0x0001000100010001, 0, 0);
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    const __m512i scale = _mm512_permutexvar_epi16(_mm512_add_epi16(lane, _mm512_set1_epi16(4 * c)), scales);
    const __m512i table = _mm512_add_epi16(_mm512_mullo_epi16(scale, level), _mm512_set1_epi16(add));
    // The low bytes of the table's words.
    const __m512i code = _mm512_loadu_si512(codes + 64 * c);
    _mm512_storeu_si512(codes + 64 * c, _mm512_shuffle_epi8(table, _mm512_add_epi8(code, code)));
  });
}

/// The sixteen sub-scales of q3_K as 16-bit numbers.
QUANTAL_INLINE __m256i sub_scales_of(const q3_K::block& b) noexcept {
  std::uint64_t low;
  std::uint32_t high;
  std::memcpy(&low, b.scales, 8);
  std::memcpy(&high, b.scales + 8, 4);
  const auto fields = [&](int h) QUANTAL_LAMBDA {
    const std::uint64_t top = static_cast<std::uint64_t>(high >> (4 * h) & 0x03030303u) |
                              static_cast<std::uint64_t>(high >> (4 * h + 2) & 0x03030303u) << 32;
    return static_cast<long long>((low >> (4 * h) & 0x0f0f0f0f0f0f0f0fu) | top << 4);
  };
  return _mm256_sub_epi16(_mm256_cvtepu8_epi16(_mm_set_epi64x(fields(1), fields(0))), _mm256_set1_epi16(32));
}

QUANTAL_INLINE void folded_slice(const q3_K::block& b, coded_slice& out) noexcept {
  const simd::on<simd::avx512_vnni> tag;
  block_codes(q3_K{}, b, out.codes, tag);
  fold_scales<4, folded_bias>(sub_scales_of(b), out.codes);
  out.scales[0] = out.scales[1] = simd::half_on(b.d, tag);
}

QUANTAL_INLINE void folded_slice(const q2_K::block& b, coded_slice& out) noexcept {
  const simd::on<simd::avx512_vnni> tag;
  const __m256i both = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales)));
  block_codes(q2_K{}, b, out.codes, tag);
  fold_scales<0, 0>(_mm256_and_si256(both, _mm256_set1_epi16(15)), out.codes);
  out.scales[0] = out.scales[1] = simd::half_on(b.d, tag);
  _mm256_store_si256(reinterpret_cast<__m256i*>(out.offsets), _mm256_srli_epi16(both, 4));
  out.offsets[paired_scale_at] = -simd::half_on(b.dmin, tag);
}

}  // namespace detail

template <block_format F, class A>
void decode_folded(const std::byte* row, std::int64_t first, int count, coded_slice* out) noexcept {
  const auto* block = row_blocks<F>(row) + first / slice_weights;
  for (; count > 0; count -= slice_weights) detail::folded_slice(*block++, *out++);
}
#endif

/// Decodes slices in the form that panels want them.
template <block_format F, class A>
constexpr code_decoder panel_codes_of() noexcept {
#if QUANTAL_WITH_AVX512_VNNI
  if constexpr (folds_scales<F, A>) return &decode_folded<F, A>;
#endif
  return &decode_run<F, A>;
}

}  // namespace quantal::kernel
