// Byte tables of 16, 32 and 64 entries: xsimd's swizzle differs between versions and archs here.
#pragma once

#include <cstdint>

#include "quantal/simd/unpack.hpp"

namespace quantal::simd {

namespace detail {

/// Where an arch has no shuffle for it.
template <class A>
QUANTAL_INLINE bytes32<A> lookup_each(const std::uint8_t* table, const bytes32<A>& index) noexcept {
  std::uint8_t i[32], out[32];
  index.store(i);
  for (int k = 0; k < 32; ++k) out[k] = table[i[k]];
  return bytes32<A>::load(out);
}

}  // namespace detail

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
  return detail::lookup_each<A>(table, index);
}

/// The same for 32 entries.
template <class A>
QUANTAL_INLINE bytes32<A> lookup32(const std::uint8_t* table, const bytes32<A>& index) noexcept {
#if defined(__AVX512VBMI__) && defined(__AVX512VL__)
  if constexpr (bytes32<A>::parts == 1)
    return {{_mm256_permutexvar_epi8(index.part[0],
                                     _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table)))}};
#endif
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const auto low = lookup16<A>(table, index),
               high = lookup16<A>(table + 16, index);  // look at four bits only
    return {{_mm256_blendv_epi8(low.part[0], high.part[0], _mm256_slli_epi16(index.part[0], 3))}};
  }
#elif XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    const uint8x16x2_t t = vld1q_u8_x2(table);
    return {{vqtbl2q_u8(t, index.part[0]), vqtbl2q_u8(t, index.part[1])}};
  }
#endif
  return detail::lookup_each<A>(table, index);
}

/// The same for 64 entries.
template <class A>
QUANTAL_INLINE bytes32<A> lookup64(const std::uint8_t* table, const bytes32<A>& index) noexcept {
#if defined(__AVX512VBMI__) && defined(__AVX512VL__)
  if constexpr (bytes32<A>::parts == 1)
    return {
        {_mm256_permutex2var_epi8(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(table)), index.part[0],
                                  _mm256_loadu_si256(reinterpret_cast<const __m256i*>(table + 32)))}};
#endif
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const auto low = lookup32<A>(table, index), high = lookup32<A>(table + 32, index);
    return {{_mm256_blendv_epi8(low.part[0], high.part[0], _mm256_slli_epi16(index.part[0], 2))}};
  }
#elif XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    const uint8x16x4_t t = vld1q_u8_x4(table);
    return {{vqtbl4q_u8(t, index.part[0]), vqtbl4q_u8(t, index.part[1])}};
  }
#endif
  return detail::lookup_each<A>(table, index);
}

}  // namespace quantal::simd
