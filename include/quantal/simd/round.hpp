// Lanes to the nearest whole number. Adding and subtracting 1.5 * 2^23 does it too, but -ffast-math lets the compiler
// take both away: an instruction, or a sum that the compiler cannot see through.
#pragma once

#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// v, of which the compiler no longer knows how it came about.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> opaque(const xsimd::batch<float, A>& v) noexcept {
  [[maybe_unused]] auto r = static_cast<typename xsimd::batch<float, A>::register_type>(v);
#if XSIMD_WITH_SSE2
  if constexpr (std::is_base_of_v<xsimd::avx512f, A>) {
    asm("" : "+v"(r));
    return r;
  } else if constexpr (std::is_base_of_v<xsimd::sse2, A> || std::is_base_of_v<xsimd::avx, A>) {
    asm("" : "+x"(r));
    return r;
  }
#elif XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    asm("" : "+w"(r));
    return r;
  }
#endif
  return v;
}

/// Fallback: |v| must lie below 2^22.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> nearest_on(const xsimd::batch<float, A>& v, const base&) noexcept {
  const xsimd::batch<float, A> magic(12582912.0f);
  return opaque(v + magic) - magic;
}
#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> nearest_on(const xsimd::batch<float, A>& v,
                                                 const xsimd::avx2&) noexcept {
  return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif
#if XSIMD_WITH_AVX512F
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> nearest_on(const xsimd::batch<float, A>& v,
                                                 const xsimd::avx512f&) noexcept {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
#endif
#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> nearest_on(const xsimd::batch<float, A>& v,
                                                 const xsimd::neon64&) noexcept {
  return xsimd::batch<float, A>(vrndnq_f32(v));
}
#endif

/// v to the nearest whole number, ties to even. |v| must lie below 2^22.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> nearest(const xsimd::batch<float, A>& v) noexcept {
  return nearest_on<A>(v, on<A>{});
}

}  // namespace quantal::simd
