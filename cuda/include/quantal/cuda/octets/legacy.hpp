// Octets of the legacy formats: q4_0, q4_1, q5_0, q5_1, q6_0, q8_0.
#pragma once

#include "quantal/cuda/octets/bits.hpp"

namespace quantal::cuda {

/// Formats whose blocks have one scale, a binary16 at byte D, and where they have an offset, that behind it.
template <block_format F, int D = 0>
struct block_scaled_octets : generic_octets<F> {
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const int block = g * F::layout.bytes;
    affine a{detail::low_half(bytes.template u16<D>(block)), 0};
    if constexpr (F::layout.has_offset) a.offset = detail::low_half(bytes.template u16<D + 2>(block));
    return a;
  }
};

/// 4 bits: 16 bytes at Codes, low nibbles for the first half of the weights.
template <block_format F, int Codes>
struct nibble_octets : block_scaled_octets<F> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t w = bytes.template u32<F::layout.bytes * C + Codes>(4 * t);
    return {w & 0x0f0f0f0fu, w >> 4 & 0x0f0f0f0fu};
  }
};

/// 5 bits: the fifth ones in four bytes at High, nibbles behind.
template <block_format F, int High>
struct five_bit_octets : block_scaled_octets<F> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr int block = F::layout.bytes * C;
    const octet n = nibble_octets<F, High + 4>::template codes<C>(bytes, t);
    // Two halves: cheaper than a word where blocks are not made of words.
    const std::uint32_t low = bytes.template u16<block + High>() >> 4 * t & 15;
    const std::uint32_t high = bytes.template u16<block + High + 2>() >> 4 * t & 15;
    return {n.low | detail::spread_bits<4>(low), n.high | detail::spread_bits<4>(high)};
  }
};

template <>
struct octets<q4_0> : nibble_octets<q4_0, 2> {};
template <>
struct octets<q4_1> : nibble_octets<q4_1, 4> {};
template <>
struct octets<q5_0> : five_bit_octets<q5_0, 2> {};
template <>
struct octets<q5_1> : five_bit_octets<q5_1, 4> {};

template <>
struct octets<q6_0> : block_scaled_octets<q6_0> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const octet n = nibble_octets<q6_0, 10>::codes<C>(bytes, t);
    // Lanes 0 and 1 own the low nibbles, lanes 2 and 3 the high ones; bits 4 and 5 are those of the first
    // half of the weights.
    const std::uint32_t h = bytes.template u32<26 * C + 2>(4 * (t & 1)) << (4 - 4 * (t >> 1));
    return {n.low | (h & 0x30303030u), n.high | (h >> 2 & 0x30303030u)};
  }
};

template <>
struct octets<q8_0> : block_scaled_octets<q8_0> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const word_pair w = bytes.template u64<34 * C + 2>(8 * t);
    return {w.low ^ 0x80808080u, w.high ^ 0x80808080u};
  }
};

}  // namespace quantal::cuda
