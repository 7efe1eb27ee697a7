// binary16 scales to float32, with the arch's own instruction where it has one.
#pragma once

#include "quantal/format/detail/half.hpp"
#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// The value of h; a signalling NaN may come out quiet.
template <class A>
QUANTAL_INLINE float half_on(quantal::detail::half_bits h, const on<A>&) noexcept {
#if XSIMD_WITH_AVX2 && defined(__F16C__)
  return _cvtsh_ss(h.raw.get());
#elif XSIMD_WITH_NEON64
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h.raw.get()))), 0);
#else
  return h.get();
#endif
}

/// out[i] = value of the half at first + i * stride bytes, for 8 halves; one store, so that vector loads of
/// `out` that follow need not wait.
template <class A>
QUANTAL_INLINE void halves8_on(const void* first, int stride, float* out, const on<A>& tag) noexcept {
  const auto* p = static_cast<const unsigned char*>(first);
#if XSIMD_WITH_AVX2 && defined(__F16C__)
  std::uint16_t h[8];
  for (int i = 0; i < 8; ++i) __builtin_memcpy(h + i, p + i * stride, 2);
  const __m128i all = _mm_set_epi16(
      static_cast<short>(h[7]), static_cast<short>(h[6]), static_cast<short>(h[5]), static_cast<short>(h[4]),
      static_cast<short>(h[3]), static_cast<short>(h[2]), static_cast<short>(h[1]), static_cast<short>(h[0]));
  _mm256_storeu_ps(out, _mm256_cvtph_ps(all));
  (void)tag;
#else
  for (int i = 0; i < 8; ++i) {
    quantal::detail::half_bits h;
    __builtin_memcpy(&h, p + i * stride, 2);
    out[i] = half_on(h, tag);
  }
#endif
}

}  // namespace quantal::simd
