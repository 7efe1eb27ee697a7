// What the decoders of avx512_vnni have in common: constants of whole registers, and the order of a slice's
// weights in four of them.
#pragma once

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>

#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/unpack.hpp"
#include "quantal/simd/unroll.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel::avx512_vnni {

/// Archs that these decoders serve.
template <class A>
concept arch = std::derived_from<A, simd::avx512_vnni>;

/// Weights that are decoded at a time; their codes fill four registers.
inline constexpr int weights = 256;

/// A constant of 64 bytes from byte(i).
template <class Fn>
constexpr std::array<std::uint8_t, 64> bytes_of(Fn byte) {
  std::array<std::uint8_t, 64> t{};
  for (int i = 0; i < 64; ++i) t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(byte(i));
  return t;
}
/// A constant of sixteen 32-bit lanes from at(lane).
template <class Fn>
constexpr std::array<std::uint32_t, 16> lanes_of(Fn at) {
  std::array<std::uint32_t, 16> t{};
  for (int l = 0; l < 16; ++l) t[static_cast<std::size_t>(l)] = static_cast<std::uint32_t>(at(l));
  return t;
}
QUANTAL_INLINE __m512i load(const std::array<std::uint8_t, 64>& t) noexcept {
  return _mm512_loadu_si512(t.data());
}
QUANTAL_INLINE __m512i load(const std::array<std::uint32_t, 16>& t) noexcept {
  return _mm512_loadu_si512(t.data());
}

/// Which weight of the slice a byte of a register holds. Of every distance * fields words of four weights,
/// field f has the words from distance * f on; fields lie in different registers and in the same lanes, so
/// that one permutation serves what shares a byte. Without fields: 64 weights after another to a register.
struct lane_order {
  int distance = 1, fields = 4;  ///< of words

  constexpr int weight(int reg, int byte) const noexcept {
    if (fields == 0) return 64 * reg + byte;
    const int per_field = 4 / fields, lanes = distance / per_field, lane = byte / 4;
    const int field = reg / per_field, in_field = lane % lanes * per_field + reg % per_field;
    return 4 * ((lane / lanes * fields + field) * distance + in_field) + byte % 4;
  }
  constexpr bool operator==(const lane_order&) const = default;
};
/// Register r: the 64 weights from 64 * r on.
inline constexpr lane_order order_of_slice{.distance = 0, .fields = 0};
/// Lane l: the 16 weights from 16 * l on.
inline constexpr lane_order order_of_16{};
/// Lanes 2 * g and 2 * g + 1: the 32 weights from 32 * g on, eight to a register.
inline constexpr lane_order order_of_32{.distance = 2, .fields = 4};

/// v[l / 2] in lane l, of eight values.
QUANTAL_INLINE __m512 each_twice(__m256 v) noexcept {
  return _mm512_permutexvar_ps(_mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0),
                               _mm512_castps256_ps512(v));
}
/// d * v, one rounding: as formats multiply their scales.
QUANTAL_INLINE __m512 times(float d, __m512i v) noexcept {
  return _mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(v));
}
QUANTAL_INLINE float half_of(const quantal::detail::half_bits& h) noexcept { return _cvtsh_ss(h.raw.get()); }

}  // namespace quantal::kernel::avx512_vnni

#endif
