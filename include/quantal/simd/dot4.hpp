// dot4: the int8 dot product that xsimd lacks. acc[i] += sum over j < 4 of u[4i + j] * s[4i + j], exact for
// every input: no arch may saturate (x86 pmaddubsw would).
#pragma once

#include <type_traits>

#include "quantal/simd/bits.hpp"
#include "quantal/simd/lane_ops.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::simd {

template <class A>
using i32 = xsimd::batch<std::int32_t, A>;
template <class A>
using u8 = xsimd::batch<std::uint8_t, A>;
template <class A>
using s8 = xsimd::batch<std::int8_t, A>;

/// Definition and fallback.
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const base&) noexcept {
  alignas(64) std::uint8_t x[u8<A>::size];
  alignas(64) std::int8_t y[s8<A>::size];
  alignas(64) std::int32_t r[i32<A>::size];
  u.store_aligned(x);
  s.store_aligned(y);
  acc.store_aligned(r);
  for (std::size_t i = 0; i < u8<A>::size; ++i) r[i / 4] += x[i] * y[i];
  return i32<A>::load_aligned(r);
}

#if XSIMD_WITH_AVX2
/// Even and odd bytes widened to 16 bits: two exact pmaddwd.
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const xsimd::avx2&) noexcept {
  const __m256i u0 = _mm256_and_si256(u, _mm256_set1_epi16(255)), u1 = _mm256_srli_epi16(u, 8);
  const __m256i s0 = _mm256_srai_epi16(_mm256_slli_epi16(s, 8), 8), s1 = _mm256_srai_epi16(s, 8);
  return acc + i32<A>(_mm256_add_epi32(_mm256_madd_epi16(u0, s0), _mm256_madd_epi16(u1, s1)));
}
#endif

#if QUANTAL_WITH_AVX2_VNNI
/// AVX-VNNI and the 256-bit form of AVX-512 VNNI are one operation in two encodings.
QUANTAL_INLINE __m256i dot4_256(__m256i acc, __m256i u, __m256i s) noexcept {
#if defined(__AVXVNNI__)
  return _mm256_dpbusd_avx_epi32(acc, u, s);
#else
  return _mm256_dpbusd_epi32(acc, u, s);
#endif
}
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const on<avx2_vnni>&) noexcept {
  return dot4_256(acc, u, s);
}
#endif

#if XSIMD_WITH_AVX512BW
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const xsimd::avx512bw&) noexcept {
  const __m512i u0 = _mm512_and_si512(u, _mm512_set1_epi16(255)), u1 = _mm512_srli_epi16(u, 8);
  const __m512i s0 = _mm512_srai_epi16(_mm512_slli_epi16(s, 8), 8), s1 = _mm512_srai_epi16(s, 8);
  return acc + i32<A>(_mm512_add_epi32(_mm512_madd_epi16(u0, s0), _mm512_madd_epi16(u1, s1)));
}
#endif

#if QUANTAL_WITH_AVX512_VNNI
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const on<avx512_vnni>&) noexcept {
  return _mm512_dpbusd_epi32(acc, u, s);
}
#endif

#if XSIMD_WITH_NEON64
/// Bytes widened to 16 bits, products pairwise added.
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const xsimd::neon64&) noexcept {
  const uint8x16_t x = u;
  const int8x16_t y = s;
  const int16x8_t x0 = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x))),
                  x1 = vreinterpretq_s16_u16(vmovl_high_u8(x));
  const int16x8_t y0 = vmovl_s8(vget_low_s8(y)), y1 = vmovl_high_s8(y);
  const int32x4_t a = vmull_s16(vget_low_s16(x0), vget_low_s16(y0)), b = vmull_high_s16(x0, y0);
  const int32x4_t c = vmull_s16(vget_low_s16(x1), vget_low_s16(y1)), d = vmull_high_s16(x1, y1);
  return i32<A>(vaddq_s32(acc, vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))));
}
#if defined(__ARM_FEATURE_DOTPROD)
/// sdot takes signed bytes: u = (u - 128) + 128, and the 128 part is a second sdot of s alone.
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const neon64_dotprod&) noexcept {
  const int8x16_t y = s;
  const int8x16_t x = vreinterpretq_s8_u8(veorq_u8(u, vdupq_n_u8(128)));
  const int32x4_t ones = vdotq_s32(vdupq_n_s32(0), vdupq_n_s8(1), y);
  return i32<A>(vdotq_s32(vaddq_s32(acc, vshlq_n_s32(ones, 7)), x, y));
}
#endif
#if defined(__ARM_FEATURE_MATMUL_INT8)
template <class A>
QUANTAL_INLINE i32<A> dot4_on(i32<A> acc, u8<A> u, s8<A> s, const neon64_i8mm&) noexcept {
  return i32<A>(vusdotq_s32(acc, u, s));
}
#endif
#endif

template <class A>
QUANTAL_INLINE i32<A> dot4(i32<A> acc, u8<A> u, s8<A> s) noexcept {
  return dot4_on<A>(acc, u, s, on<A>{});
}

/// dot4 for u <= 127 and |s| <= 127: no pair sum exceeds 32258, so the instructions that saturate or take
/// signed bytes on both sides are exact too.
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const base&) noexcept {
  return dot4_on<A>(acc, u, s, on<A>{});
}

#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const xsimd::avx2&) noexcept {
  return i32<A>(_mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(u, s), _mm256_set1_epi16(1))));
}
#endif

#if QUANTAL_WITH_AVX2_VNNI
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const on<avx2_vnni>&) noexcept {
  return dot4_256(acc, u, s);
}
#endif

#if XSIMD_WITH_AVX512BW
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const xsimd::avx512bw&) noexcept {
  return i32<A>(_mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_maddubs_epi16(u, s), _mm512_set1_epi16(1))));
}
#endif

#if QUANTAL_WITH_AVX512_VNNI
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const on<avx512_vnni>&) noexcept {
  return _mm512_dpbusd_epi32(acc, u, s);
}
#endif

#if XSIMD_WITH_NEON64 && defined(__ARM_FEATURE_DOTPROD)
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const neon64_dotprod&) noexcept {
  return i32<A>(vdotq_s32(acc, vreinterpretq_s8_u8(u), s));
}
#endif

/// acc[i] += sum over j < 4 of w[4i + j] * s[4i + j] with both sides signed and s > -128; exact.
template <class A>
QUANTAL_INLINE i32<A> dot4_signed_on(i32<A> acc, s8<A> w, s8<A> s, const base&) noexcept {
  alignas(64) std::int8_t x[s8<A>::size], y[s8<A>::size];
  alignas(64) std::int32_t r[i32<A>::size];
  w.store_aligned(x);
  s.store_aligned(y);
  acc.store_aligned(r);
  for (std::size_t i = 0; i < s8<A>::size; ++i) r[i / 4] += x[i] * y[i];
  return i32<A>::load_aligned(r);
}

#if XSIMD_WITH_AVX2
/// |w| as unsigned bytes and its sign moved to s: pair sums are at most 2 * 128 * 127 and do not saturate.
template <class A>
QUANTAL_INLINE i32<A> dot4_signed_on(i32<A> acc, s8<A> w, s8<A> s, const xsimd::avx2&) noexcept {
  const __m256i pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(w), _mm256_sign_epi8(s, w));
  return i32<A>(_mm256_add_epi32(acc, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))));
}
#endif

#if XSIMD_WITH_AVX512BW
template <class A>
QUANTAL_INLINE i32<A> dot4_signed_on(i32<A> acc, s8<A> w, s8<A> s, const xsimd::avx512bw&) noexcept {
  const __m512i moved = _mm512_mask_sub_epi8(s, _mm512_movepi8_mask(w), _mm512_setzero_si512(), s);
  const __m512i pairs = _mm512_maddubs_epi16(_mm512_abs_epi8(w), moved);
  return i32<A>(_mm512_add_epi32(acc, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))));
}
#endif

#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE i32<A> dot4_signed_on(i32<A> acc, s8<A> w, s8<A> s, const xsimd::neon64&) noexcept {
  const int8x16_t x = w, y = s;
  const int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(x), vget_low_s8(y)));
  return i32<A>(vaddq_s32(acc, vpaddq_s32(low, vpaddlq_s16(vmull_high_s8(x, y)))));
}
template <class A>
QUANTAL_INLINE i32<A> dot4_narrow_on(i32<A> acc, u8<A> u, s8<A> s, const xsimd::neon64& tag) noexcept {
  return dot4_signed_on<A>(acc, s8<A>(vreinterpretq_s8_u8(u)), s, tag);
}
#if defined(__ARM_FEATURE_DOTPROD)
template <class A>
QUANTAL_INLINE i32<A> dot4_signed_on(i32<A> acc, s8<A> w, s8<A> s, const neon64_dotprod&) noexcept {
  return i32<A>(vdotq_s32(acc, w, s));
}
#endif
#endif

/// How the bytes of weights meet signed activations above -128.
enum class code_kind : std::uint8_t {
  u7,  ///< at most 127: every arch has a short form
  u8,  ///< any unsigned byte
  s8,  ///< unsigned byte minus 128, for archs whose instructions cannot take all of u8
};

/// acc[i] += sum over j < 4 of code[4i + j] * s[4i + j], the codes given as unsigned bytes.
template <class A, code_kind kind>
QUANTAL_INLINE i32<A> dot4_of(i32<A> acc, u8<A> u, s8<A> s) noexcept {
  if constexpr (kind == code_kind::u7)
    return dot4_narrow_on<A>(acc, u, s, on<A>{});
  else if constexpr (kind == code_kind::u8)
    return dot4_on<A>(acc, u, s, on<A>{});
  else
    return dot4_signed_on<A>(acc, bits_as<std::int8_t>(differing(u, u8<A>(std::uint8_t{128}))), s, on<A>{});
}

#if QUANTAL_WITH_AVX512_VNNI
/// acc[i] += w[2i] * x[2i] + w[2i + 1] * x[2i + 1], 16 bits each.
template <class A>
QUANTAL_INLINE i32<A> dot2_on(i32<A> acc, i32<A> w, i32<A> x, const on<avx512_vnni>&) noexcept {
  return _mm512_dpwssd_epi32(acc, w, x);
}
#endif

/// Four consecutive bytes in every 32-bit lane.
template <class A>
QUANTAL_INLINE s8<A> broadcast4(const std::int8_t* p) noexcept {
  std::int32_t v;
  __builtin_memcpy(&v, p, 4);
  return bits_as<std::int8_t>(i32<A>(v));
}

/// Does the arch multiply matrices of int8: rows in pairs, columns in pairs, eight products deep?
template <class A>
inline constexpr bool has_matrix_dot = std::is_base_of_v<neon64_i8mm, A>;

#if XSIMD_WITH_NEON64 && defined(__ARM_FEATURE_MATMUL_INT8)
/// acc[2i + j] += sum over k < 8 of u[8i + k] * s[8j + k], for i, j < 2.
template <class A>
QUANTAL_INLINE i32<A> matrix_dot8_on(i32<A> acc, u8<A> u, s8<A> s, const neon64_i8mm&) noexcept {
  return i32<A>(vusmmlaq_s32(acc, u, s));
}
/// The columns of such products from C columns interleaved in fours: eight values of each.
template <class A, int C>
QUANTAL_INLINE void matrix_columns_on(const std::int8_t* columns, s8<A> (&pair)[C / 2],
                                      const neon64_i8mm&) noexcept {
  const auto load = [&](int at) QUANTAL_LAMBDA { return vreinterpretq_s32_s8(vld1q_s8(columns + at)); };
  const auto bytes = [](int32x4_t v) QUANTAL_LAMBDA { return s8<A>(vreinterpretq_s8_s32(v)); };
  if constexpr (C == 2) {
    const int32x4_t v = load(0);
    pair[0] = bytes(vzip1q_s32(v, vextq_s32(v, v, 2)));
  } else {
    unroll<C / 4>([&](auto c) QUANTAL_LAMBDA {
      const int32x4_t low = load(16 * c), high = load(4 * C + 16 * c);
      pair[2 * c] = bytes(vzip1q_s32(low, high));
      pair[2 * c + 1] = bytes(vzip2q_s32(low, high));
    });
  }
}
/// Column j of two such results, four rows of it.
template <class A, int j>
QUANTAL_INLINE i32<A> matrix_column_on(i32<A> low, i32<A> high, const neon64_i8mm&) noexcept {
  return i32<A>(j == 0 ? vuzp1q_s32(low, high) : vuzp2q_s32(low, high));
}
#endif

/// bytes[i] = low byte of v[i]. `scratch` takes as many 32-bit values where the arch has no narrowing store.
template <class A>
QUANTAL_INLINE void store_low_bytes(i32<A> v, std::int32_t* scratch, std::int8_t* bytes) noexcept {
#if XSIMD_WITH_AVX512F
  if constexpr (i32<A>::size == 16) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), _mm512_cvtepi32_epi8(v));
    return;
  }
#endif
#if XSIMD_WITH_AVX2
  if constexpr (i32<A>::size == 8) {
    const __m256i low = _mm256_shuffle_epi8(v, _mm256_set1_epi32(0x0c080400));
    const __m256i packed = _mm256_permutevar8x32_epi32(low, _mm256_setr_epi32(0, 4, 0, 4, 0, 4, 0, 4));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), _mm256_castsi256_si128(packed));
    return;
  }
#elif XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    const int16x4_t low = vmovn_s32(v);
    vst1_lane_s32(reinterpret_cast<std::int32_t*>(bytes),
                  vreinterpret_s32_s8(vmovn_s16(vcombine_s16(low, low))), 0);
    return;
  }
#endif
  v.store_unaligned(scratch);
  for (std::size_t i = 0; i < i32<A>::size; ++i) bytes[i] = static_cast<std::int8_t>(scratch[i]);
}

}  // namespace quantal::simd
