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

/// out[i] = value of the binary16 at p + 2 * i, for n of them.
template <class A>
QUANTAL_INLINE void halves_to_floats(const void* p, int n, float* out, const on<A>& tag) noexcept {
  const auto* bytes = static_cast<const unsigned char*>(p);
  int i = 0;
#if XSIMD_WITH_AVX512F
  if constexpr (xsimd::batch<float, A>::size == 16)
    for (; i + 16 <= n; i += 16)
      _mm512_storeu_ps(out + i,
                       _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 2 * i))));
#endif
#if XSIMD_WITH_AVX2 && defined(__F16C__)
  for (; i + 8 <= n; i += 8)
    _mm256_storeu_ps(out + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 2 * i))));
#elif XSIMD_WITH_NEON64
  for (; i + 4 <= n; i += 4) vst1q_f32(out + i, vcvt_f32_f16(vreinterpret_f16_u8(vld1_u8(bytes + 2 * i))));
#endif
  for (; i < n; ++i) {
    quantal::detail::half_bits h;
    __builtin_memcpy(&h, bytes + 2 * i, 2);
    out[i] = half_on(h, tag);
  }
}

/// The same for bfloat16: the upper halves of the floats.
QUANTAL_INLINE void bfloats_to_floats(const void* p, int n, float* out) noexcept {
  const auto* bytes = static_cast<const unsigned char*>(p);
  for (int i = 0; i < n; ++i) {
    std::uint16_t v;
    __builtin_memcpy(&v, bytes + 2 * i, 2);
    const std::uint32_t wide = static_cast<std::uint32_t>(v) << 16;
    __builtin_memcpy(out + i, &wide, 4);
  }
}

}  // namespace quantal::simd
