// Octets of formats whose nibbles index a table of sixteen levels: iq4_nl, iq4_xs, mxfp4.
#pragma once

#include "quantal/cuda/octets.hpp"

namespace quantal::cuda {

/// Sixteen bytes, looked up for every nibble of a word.
struct nibble_table {
  std::uint32_t words[4];

  /// One byte (0: low, 1: high) of each level as bf16.
  template <block_format F, int Byte>
  static constexpr nibble_table of_bf16() noexcept {
    nibble_table t{};
    for (int i = 0; i < 16; ++i)
      t.words[i / 4] |=
          (__builtin_bit_cast(std::uint32_t, static_cast<float>(F::level(i))) >> (16 + 8 * Byte) & 255u)
          << (8 * (i % 4));
    return t;
  }
  /// level + bias of a format with sixteen levels.
  template <block_format F>
  static constexpr nibble_table of() noexcept {
    nibble_table t{};
    for (int i = 0; i < 16; ++i)
      t.words[i / 4] |= static_cast<std::uint32_t>(F::level(i) + code_bias<F>) << (8 * (i % 4));
    return t;
  }

  /// Byte i is the entry of nibble i, low nibble first.
  QUANTAL_HD octet lookup(std::uint32_t nibbles) const noexcept {
    const std::uint32_t index = nibbles & 0x77777777u;
    // Nibble i becomes i, or i + 4 where the upper half of the table is meant.
    const std::uint32_t half = (nibbles >> 1 & 0x44444444u) | 0x32103210u;
    return {pick(index, half), pick(index >> 16, half >> 16)};
  }

 private:
  QUANTAL_HD std::uint32_t pick(std::uint32_t index, std::uint32_t half) const noexcept {
    return byte_permute(byte_permute(words[0], words[1], index), byte_permute(words[2], words[3], index),
                        half);
  }
};

/// Formats of 16 bytes per 32 weights: low nibbles the first half, high nibbles the second.
template <block_format F, int (*Offset)(int)>
struct nibble_table_octets : generic_octets<F> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr nibble_table table = nibble_table::of<F>();
    return table.lookup(bytes.template u32<Offset(C)>(4 * t));
  }
};

/// The same where levels take more than seven bits: they are also looked up as bf16, pair by pair.
template <block_format F, int (*Offset)(int)>
struct wide_table_octets : nibble_table_octets<F, Offset> {
  template <int C, class Bytes>
  QUANTAL_HD static void levels(const Bytes& bytes, int t, std::uint32_t (&pairs)[4]) noexcept {
    constexpr nibble_table low_bytes = nibble_table::of_bf16<F, 0>(),
                           high_bytes = nibble_table::of_bf16<F, 1>();
    const std::uint32_t nibbles = bytes.template u32<Offset(C)>(4 * t);
    const octet low = low_bytes.lookup(nibbles), high = high_bytes.lookup(nibbles);
    pairs[0] = byte_permute(low.low, high.low, 0x5140);
    pairs[1] = byte_permute(low.low, high.low, 0x7362);
    pairs[2] = byte_permute(low.high, high.high, 0x5140);
    pairs[3] = byte_permute(low.high, high.high, 0x7362);
  }
};

namespace detail {
constexpr int iq4_nl_codes(int chunk) { return 18 * chunk + 2; }
constexpr int iq4_xs_codes(int chunk) { return 8 + 16 * chunk; }
constexpr int mxfp4_codes(int chunk) { return 17 * chunk + 1; }
}  // namespace detail

template <>
struct octets<iq4_nl> : wide_table_octets<iq4_nl, detail::iq4_nl_codes> {};
template <>
struct octets<iq4_xs> : wide_table_octets<iq4_xs, detail::iq4_xs_codes> {};
template <>
struct octets<mxfp4> : nibble_table_octets<mxfp4, detail::mxfp4_codes> {};

}  // namespace quantal::cuda
