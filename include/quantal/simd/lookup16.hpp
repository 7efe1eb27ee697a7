// A 16-entry byte table: xsimd's swizzle differs between versions and archs here.
#pragma once

#include <cstdint>

#include "quantal/simd/unpack.hpp"

namespace quantal::simd {

/// result[i] = table[index[i]] for indices below 16; the table is 16 bytes.
template <class A>
QUANTAL_INLINE bytes32<A> lookup16(const std::uint8_t* table, const bytes32<A>& index) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const __m256i t = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(table)));
    return {{_mm256_shuffle_epi8(t, index.part[0])}};
  }
#elif XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    const uint8x16_t t = vld1q_u8(table);
    return {{vqtbl1q_u8(t, index.part[0]), vqtbl1q_u8(t, index.part[1])}};
  }
#endif
  std::uint8_t i[32], out[32];
  index.store(i);
  for (int k = 0; k < 32; ++k) out[k] = table[i[k]];
  return bytes32<A>::load(out);
}

}  // namespace quantal::simd
