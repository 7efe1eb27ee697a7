// Codes that are levels of tables, of 4 to 64 entries. Tables are constants in registers; byte_permute looks
// up four entries of eight at a time.
//
// Lookups take their indices as nibbles. Words of codes come with one index in each byte, so two words are
// merged, and a lookup gives bytes that alternate between the two: `interleaved`, or to be unmixed.
#pragma once

#include "quantal/cuda/fragments/bits.hpp"

namespace quantal::cuda {

namespace detail {

/// A table of N levels, `add` added to each, four to a word.
template <int N>
struct level_words {
  std::uint32_t words[N / 4];

  template <class Level>
  static constexpr level_words of(Level level, int add) noexcept {
    level_words t{};
    for (int i = 0; i < N / 4; ++i) t.words[i] = table_word(4 * i, [&](int j) { return level(j) + add; });
    return t;
  }
};

/// Selectors of byte_permute that choose the second operand where bit 2 of a nibble is set.
QUANTAL_HD std::uint32_t choose_by_bit_2(std::uint32_t w) noexcept { return (w & 0x44444444u) | 0x32103210u; }

/// Entries of four nibbles, bit 3 being set in none.
QUANTAL_HD fragment_codes lookup_8(const level_words<8>& t, std::uint32_t index) noexcept {
  return {byte_permute(t.words[0], t.words[1], index), byte_permute(t.words[0], t.words[1], index >> 16)};
}

/// Byte i is the entry of nibble i, low nibble first.
QUANTAL_HD fragment_codes lookup_16(const level_words<16>& t, std::uint32_t nibbles) noexcept {
  const std::uint32_t index = nibbles & 0x77777777u, half = choose_by_bit_2(nibbles >> 1);
  const auto pick = [&](std::uint32_t i, std::uint32_t h) {
    return byte_permute(byte_permute(t.words[0], t.words[1], i), byte_permute(t.words[2], t.words[3], i), h);
  };
  return {pick(index, half), pick(index >> 16, half >> 16)};
}

/// The same for entries below 128, cheaper: a selector of 8 or more gives the sign of an entry, which is 0.
QUANTAL_HD fragment_codes lookup_16_narrow(const level_words<16>& t, std::uint32_t nibbles) noexcept {
  const std::uint32_t flipped = nibbles ^ 0x88888888u;
  const auto pick = [&](std::uint32_t n, std::uint32_t f) {
    return byte_or_sign(t.words[0], t.words[1], n) | byte_or_sign(t.words[2], t.words[3], f);
  };
  return {pick(nibbles, flipped), pick(nibbles >> 16, flipped >> 16)};
}

/// Entries of 32, below 128 in the first half and above in the second: signs are the neutral element of the
/// operation that joins the lookups. Bit 2 of each nibble of `fifth` is the highest bit of the index.
QUANTAL_HD fragment_codes lookup_32(const level_words<32>& t, std::uint32_t nibbles,
                                    std::uint32_t fifth) noexcept {
  const std::uint32_t flipped = nibbles ^ 0x88888888u, half = choose_by_bit_2(fifth);
  const auto pick = [&](std::uint32_t n, std::uint32_t f, std::uint32_t h) {
    const std::uint32_t low =
        byte_or_sign(t.words[0], t.words[1], n) | byte_or_sign(t.words[2], t.words[3], f);
    const std::uint32_t high =
        byte_or_sign(t.words[4], t.words[5], n) & byte_or_sign(t.words[6], t.words[7], f);
    return byte_permute(low, high, h);
  };
  return {pick(nibbles, flipped, half), pick(nibbles >> 16, flipped >> 16, half >> 16)};
}

/// Selectors for the four eighths of 32 entries, which have bit 3 set where the entry is in another: bit 3 of
/// the nibbles of `fifth` is the highest bit of the index.
struct eighths {
  std::uint32_t of[4];
  QUANTAL_HD eighths(std::uint32_t nibbles, std::uint32_t fifth) noexcept
      : of{nibbles | (fifth & 0x88888888u), (nibbles ^ 0x88888888u) | (fifth & 0x88888888u),
           nibbles | (~fifth & 0x88888888u), (nibbles ^ 0x88888888u) | (~fifth & 0x88888888u)} {}
};

/// Entries of 64, halves as in lookup_32. Bit 3 of each nibble of `fifth` and bit 2 of `sixth` are the
/// highest bits of the index.
QUANTAL_HD fragment_codes lookup_64(const level_words<64>& t, std::uint32_t nibbles, std::uint32_t fifth,
                                    std::uint32_t sixth) noexcept {
  const eighths e(nibbles, fifth);
  const std::uint32_t half = choose_by_bit_2(sixth);
  const auto pick = [&](int shift) {
    const auto from = [&](int i) {
      return byte_or_sign(t.words[2 * i], t.words[2 * i + 1], e.of[i % 4] >> shift);
    };
    return byte_permute(from(0) | from(1) | from(2) | from(3), from(4) & from(5) & from(6) & from(7),
                        half >> shift);
  };
  return {pick(0), pick(16)};
}

/// add_if_set in every byte if bit `bit` of w is set, add_else otherwise: the choice between two tables that
/// differ by a constant.
template <int bit, int add_if_set, int add_else = 0>
QUANTAL_HD std::uint32_t table_step(std::uint32_t w) noexcept {
  return w >> bit & 1 ? 0x01010101u * static_cast<std::uint32_t>(add_if_set)
                      : 0x01010101u * static_cast<std::uint32_t>(add_else);
}

}  // namespace detail
}  // namespace quantal::cuda
