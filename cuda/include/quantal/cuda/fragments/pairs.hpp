// Codes of iq2_kl: an index names a pair of levels.
#pragma once

#include "quantal/cuda/fragments/lookup.hpp"
#include "quantal/format/iq2_kl.hpp"

namespace quantal::cuda {

template <>
struct fragment_reader<iq2_kl> : code_reader<iq2_kl> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    constexpr auto levels =
        detail::level_words<8>::of([](int i) { return quantal::detail::lut3_k(i); }, code_bias<iq2_kl>);
    // Entries are pairs of indices, as nibbles.
    constexpr auto pairs = detail::level_words<32>::of(
        [](int i) {
          return (quantal::detail::pairs2_kl_entries[i] & 7) |
                 quantal::detail::pairs2_kl_entries[i] >> 3 << 4;
        },
        0);
    const std::uint32_t low = bytes.template u32<6 + 16 * (C / 2)>(4 * t),
                        high = bytes.template u32<70>(4 * t);
    // Nibbles of bytes 0..3 to nibbles 0, 1, 4, 5; their fifth bits to the highest of a nibble.
    const std::uint32_t nibbles =
        (low >> 4 * (C % 2) & 0x000f000fu) | (low >> (4 + 4 * (C % 2)) & 0x00f000f0u);
    const std::uint32_t fifth =
        (detail::shift_left<3 - C>(high) & 0x00080008u) | (high >> (C + 1) & 0x00800080u);
    const detail::eighths e(byte_permute(nibbles, 0, 0x4420), byte_permute(fifth, 0, 0x4420));
    const auto from = [&](int i) {
      return detail::byte_or_sign(pairs.words[2 * i], pairs.words[2 * i + 1], e.of[i]);
    };
    return detail::lookup_8(levels, from(0) | from(1) | from(2) | from(3));
  }
};

}  // namespace quantal::cuda
