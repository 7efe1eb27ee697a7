// A 16-entry byte table, read once per byte: xsimd's swizzle differs between versions and archs here.
#pragma once

#include <cstdint>

#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// out[i] = table[low nibble of in[i]], out[16 + i] = table[high nibble of in[i]], for 16 bytes.
QUANTAL_INLINE void lookup_nibbles16(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out,
                                     const base&) noexcept {
  for (int i = 0; i < 16; ++i) {
    out[i] = table[in[i] & 15];
    out[16 + i] = table[in[i] >> 4];
  }
}

#if XSIMD_WITH_AVX2
QUANTAL_INLINE void lookup_nibbles16(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out,
                                     const xsimd::avx2&) noexcept {
  const __m128i t = _mm_loadu_si128(reinterpret_cast<const __m128i*>(table));
  const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(in)), low = _mm_set1_epi8(15);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm_shuffle_epi8(t, _mm_and_si128(x, low)));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 16), _mm_shuffle_epi8(t, _mm_and_si128(_mm_srli_epi16(x, 4), low)));
}
#endif

#if XSIMD_WITH_NEON64
QUANTAL_INLINE void lookup_nibbles16(const std::uint8_t* table, const std::uint8_t* in, std::uint8_t* out,
                                     const xsimd::neon64&) noexcept {
  const uint8x16_t t = vld1q_u8(table), x = vld1q_u8(in);
  vst1q_u8(out, vqtbl1q_u8(t, vandq_u8(x, vdupq_n_u8(15))));
  vst1q_u8(out + 16, vqtbl1q_u8(t, vshrq_n_u8(x, 4)));
}
#endif

}  // namespace quantal::simd
