// Octets of formats whose nibbles index a table of sixteen levels: iq4_nl, iq4_xs, mxfp4.
#pragma once

#include "quantal/cuda/octets.hpp"

namespace quantal::cuda {

/// Sixteen bytes, looked up for every nibble of a word.
struct nibble_table {
  std::uint32_t words[4];

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

namespace detail {
constexpr int iq4_nl_codes(int chunk) { return 18 * chunk + 2; }
constexpr int iq4_xs_codes(int chunk) { return 8 + 16 * chunk; }
constexpr int mxfp4_codes(int chunk) { return 17 * chunk + 1; }
}  // namespace detail

template <>
struct octets<iq4_nl> : nibble_table_octets<iq4_nl, detail::iq4_nl_codes> {};
template <>
struct octets<iq4_xs> : nibble_table_octets<iq4_xs, detail::iq4_xs_codes> {};
template <>
struct octets<mxfp4> : nibble_table_octets<mxfp4, detail::mxfp4_codes> {};

}  // namespace quantal::cuda
