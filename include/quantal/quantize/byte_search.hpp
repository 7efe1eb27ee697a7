// One scale for 32 weights and codes -127..127: sixteen scales at once in 16-bit integers.
//
// With so many levels a scale decides little but how the fractions of x / d fall. Scales from the smallest
// that clips nothing upwards are tried: x / d in 1/256 comes from one rounding product, its low byte is the
// fraction that rounding drops.
#pragma once

#include "quantal/quantize/code_tiles.hpp"
#include "quantal/quantize/group_coder.hpp"
#include "quantal/quantize/stored.hpp"

namespace quantal::quantize {

namespace detail {

/// sum + the squares of both halves of every word of fraction(x * factor / 2^15) * root / 2^15, rounded,
/// where a fraction is the low byte as a signed number, times 256. `x` and `root` are pairs, `factor` is per
/// word. Fallback.
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t root, const simd::base&) noexcept {
  constexpr int n = static_cast<int>(i16_lanes<A>::size);
  alignas(64) std::int16_t f[n];
  alignas(64) std::int32_t s[n / 2];
  factor.store_aligned(f);
  sum.store_aligned(s);
  const std::int16_t v[2] = {static_cast<std::int16_t>(x), static_cast<std::int16_t>(x >> 16)};
  const std::int16_t r[2] = {static_cast<std::int16_t>(root), static_cast<std::int16_t>(root >> 16)};
  for (int i = 0; i < n; ++i) {
    const int product = (v[i % 2] * f[i] + 16384) >> 15;
    const int fraction = static_cast<std::int16_t>(static_cast<std::uint16_t>(product) << 8);
    const int e = (fraction * r[i % 2] + 16384) >> 15;
    s[i / 2] += e * e;
  }
  return i32_lanes<A>::load_aligned(s);
}

#if XSIMD_WITH_SSE2
/// (a * b + 2^14) >> 15 from the two halves of the product.
QUANTAL_INLINE __m128i rounding_product(__m128i a, __m128i b) noexcept {
  const __m128i low = _mm_srli_epi16(_mm_mullo_epi16(a, b), 14),
                high = _mm_slli_epi16(_mm_mulhi_epi16(a, b), 1);
  // The two bits above the rounding one; the upper of them belongs to `high` too.
  return _mm_add_epi16(high, _mm_srli_epi16(_mm_add_epi16(low, _mm_set1_epi16(1)), 1));
}
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t root, const xsimd::sse2&) noexcept {
  const __m128i f = _mm_slli_epi16(rounding_product(_mm_set1_epi32(x), factor), 8);
  const __m128i e = rounding_product(f, _mm_set1_epi32(root));
  return _mm_add_epi32(sum, _mm_madd_epi16(e, e));
}
#endif

#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t root, const xsimd::avx2&) noexcept {
  const __m256i f = _mm256_slli_epi16(_mm256_mulhrs_epi16(_mm256_set1_epi32(x), factor), 8);
  const __m256i e = _mm256_mulhrs_epi16(f, _mm256_set1_epi32(root));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(e, e));
}
#endif

#if XSIMD_WITH_AVX512BW
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t root, const xsimd::avx512bw&) noexcept {
  const __m512i f = _mm512_slli_epi16(_mm512_mulhrs_epi16(_mm512_set1_epi32(x), factor), 8);
  const __m512i e = _mm512_mulhrs_epi16(f, _mm512_set1_epi32(root));
  return _mm512_add_epi32(sum, _mm512_madd_epi16(e, e));
}
#endif

#if QUANTAL_WITH_AVX512_VNNI
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t root, const simd::on<simd::avx512_vnni>&) noexcept {
  const __m512i f = _mm512_slli_epi16(_mm512_mulhrs_epi16(_mm512_set1_epi32(x), factor), 8);
  const __m512i e = _mm512_mulhrs_epi16(f, _mm512_set1_epi32(root));
  return _mm512_dpwssd_epi32(sum, e, e);
}
#endif

#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t root, const xsimd::neon64&) noexcept {
  const int16x8_t f = vshlq_n_s16(vqrdmulhq_s16(vreinterpretq_s16_s32(vdupq_n_s32(x)), factor), 8);
  const int16x8_t e = vqrdmulhq_s16(f, vreinterpretq_s16_s32(vdupq_n_s32(root)));
  return i32_lanes<A>(
      vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(e), vget_low_s16(e)), vmull_high_s16(e, e))));
}
#endif

}  // namespace detail

/// Codes of a byte, all of them.
template <class F>
concept byte_codes = uniform_codes<F> && codebook<F>::size == 255 && F::layout.group == 32;

/// The best of sixteen scales as `stored` rounds them, from the largest weight / 127 up to a tenth more.
template <byte_codes F, class Stored>
float search_byte_scale(const group_view& g, Stored&& stored) noexcept {
  using arch = typename lanes<F>::arch_type;
  using batch = xsimd::batch<std::int32_t, arch>;
  constexpr int n = F::layout.group, width = static_cast<int>(batch::size), registers = lane_count / width;
  const float largest = std::fabs(extreme_of<F, n>(g.x));
  if (largest < 1e-30f) return 0.0f;
  alignas(64) float scale[lane_count], error[lane_count];
  alignas(64) std::int32_t factor[lane_count];
  for (int k = 0; k < lane_count; ++k)
    scale[k] = stored(largest * (1.0f / 127) * (1.0f + 0.1f / (lane_count - 1) * static_cast<float>(k)));
  // Rounding may have lowered the first; where all were lowered to zero there is nothing to choose.
  if (!(scale[0] > 0.0f)) return scale[lane_count - 1];
  for (int k = 0; k < lane_count; ++k) {
    const float f = 32768.0f * (scale[0] / scale[k]);
    const int at = static_cast<int>(f > 32767.0f ? 32767.0f : f);
    factor[k] = at | at << 16;
  }
  alignas(64) std::int16_t x[n], root[n];
  const float inverse = 1.0f / scale[0];
  for (int i = 0; i < n; ++i) x[i] = target_of(g.x[i] * inverse);
  roots_of<F, n>(g.w, 4095.0f, root);
  batch sum[registers];
  for (int r = 0; r < registers; ++r) sum[r] = batch(0);
  for (int i = 0; i < n; i += 2)
    simd::unroll<registers>([&](auto r) QUANTAL_LAMBDA {
      const auto f = xsimd::bitwise_cast<std::int16_t>(batch::load_aligned(factor + r * width));
      sum[r] = detail::add_fractions_on<arch>(sum[r], pair_at(x + i), f, pair_at(root + i), simd::on<arch>{});
    });
  for (int r = 0; r < registers; ++r) xsimd::to_float(sum[r]).store_aligned(error + r * width);
  for (int k = 0; k < lane_count; ++k) error[k] *= scale[k] * scale[k];
  return scale[smallest<F, lane_count>(error)];
}

}  // namespace quantal::quantize
