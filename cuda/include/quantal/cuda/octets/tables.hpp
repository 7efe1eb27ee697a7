// Octets of formats whose codes are levels of tables, of 4 to 64 entries: iq4_nl, iq4_xs, mxfp4, nvfp4, and
// the iq*_k, iq*_ks, iq4_kss and iq2_kl. Tables are constants in registers; byte_permute looks up four
// entries of eight at a time.
//
// Lookups take their indices as nibbles. Words of codes come with one index in each byte, so two words are
// merged, a lookup gives bytes that alternate between the two, and the octet is `interleaved` or has to be
// unmixed.
#pragma once

#include "quantal/cuda/octets/bits.hpp"
#include "quantal/cuda/octets/k.hpp"

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
QUANTAL_HD octet lookup_8(const level_words<8>& t, std::uint32_t index) noexcept {
  return {byte_permute(t.words[0], t.words[1], index), byte_permute(t.words[0], t.words[1], index >> 16)};
}

/// Byte i is the entry of nibble i, low nibble first.
QUANTAL_HD octet lookup_16(const level_words<16>& t, std::uint32_t nibbles) noexcept {
  const std::uint32_t index = nibbles & 0x77777777u, half = choose_by_bit_2(nibbles >> 1);
  const auto pick = [&](std::uint32_t i, std::uint32_t h) {
    return byte_permute(byte_permute(t.words[0], t.words[1], i), byte_permute(t.words[2], t.words[3], i), h);
  };
  return {pick(index, half), pick(index >> 16, half >> 16)};
}

/// The same for entries below 128, cheaper: a selector of 8 or more gives the sign of an entry, which is 0.
QUANTAL_HD octet lookup_16_narrow(const level_words<16>& t, std::uint32_t nibbles) noexcept {
  const std::uint32_t flipped = nibbles ^ 0x88888888u;
  const auto pick = [&](std::uint32_t n, std::uint32_t f) {
    return byte_or_sign(t.words[0], t.words[1], n) | byte_or_sign(t.words[2], t.words[3], f);
  };
  return {pick(nibbles, flipped), pick(nibbles >> 16, flipped >> 16)};
}

/// Entries of 32, below 128 in the first half and above in the second: signs are the neutral element of the
/// operation that joins the lookups. Bit 2 of each nibble of `fifth` is the highest bit of the index.
QUANTAL_HD octet lookup_32(const level_words<32>& t, std::uint32_t nibbles, std::uint32_t fifth) noexcept {
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
QUANTAL_HD octet lookup_64(const level_words<64>& t, std::uint32_t nibbles, std::uint32_t fifth,
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

/// Signed 6-bit scales as in scales6x16 at byte 4.
template <class Bytes>
QUANTAL_HD float scale_6x16(const Bytes& bytes, int g) noexcept {
  const std::uint32_t low = bytes.template u32<8>(4 * (g >> 3)) >> 4 * (g & 7) & 15;
  return biased_float<32>(low | (bytes.template u32<4>() >> 2 * g & 3) << 4);
}

/// Two words of fields of two bits of chunk C and C ^ 1, as merged nibbles (pair_plane at byte Plane).
template <int Plane, int C, class Bytes>
QUANTAL_HD std::uint32_t merged_pairs(const Bytes& bytes, int t) noexcept {
  return merge_nibbles<C / 2 % 2>(pair_bytes<Plane, C, 0>(bytes, t), pair_bytes<Plane, C, 1>(bytes, t));
}

/// Two words of bits of chunks C & ~3 .., bit C % 4 of each nibble being that of chunk C (bit_plane at
/// Plane).
template <int Plane, int C, class Bytes>
QUANTAL_HD std::uint32_t merged_bits(const Bytes& bytes, int t) noexcept {
  return merge_nibbles<C / 4>(bytes.template u32<Plane>(4 * t), bytes.template u32<Plane + 16>(4 * t));
}

constexpr int iq4_nl_codes(int chunk) { return 18 * chunk + 2; }
constexpr int iq4_xs_codes(int chunk) { return 8 + 16 * chunk; }
constexpr int mxfp4_codes(int chunk) { return 17 * chunk + 1; }

/// Biased levels of a format with one table, by nibbles.
template <block_format F>
QUANTAL_HD octet levels_of(std::uint32_t nibbles) noexcept {
  constexpr level_words<16> t = level_words<16>::of([](int i) { return F::level(i); }, code_bias<F>);
  if constexpr (code_bias<F> < 64)
    return lookup_16_narrow(t, nibbles);
  else
    return lookup_16(t, nibbles);
}

}  // namespace detail

/// Formats of 16 bytes per 32 weights: low nibbles the first half, high nibbles the second.
template <block_format F, int (*Offset)(int)>
struct nibble_table_octets : generic_octets<F> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    return detail::levels_of<F>(bytes.template u32<Offset(C)>(4 * t));
  }
};

/// The same where levels take more than seven bits: they are also looked up as bf16, a byte of each at a
/// time.
template <block_format F, int (*Offset)(int)>
struct wide_table_octets : nibble_table_octets<F, Offset> {
  template <int C, class Bytes>
  QUANTAL_HD static void levels(const Bytes& bytes, int t, std::uint32_t (&pairs)[4]) noexcept {
    constexpr auto low_bytes = detail::level_words<16>::of([](int i) { return bf16_byte(i, 0); }, 0);
    constexpr auto high_bytes = detail::level_words<16>::of([](int i) { return bf16_byte(i, 1); }, 0);
    const std::uint32_t nibbles = bytes.template u32<Offset(C)>(4 * t);
    const octet low = detail::lookup_16(low_bytes, nibbles), high = detail::lookup_16(high_bytes, nibbles);
    pairs[0] = byte_permute(low.low, high.low, 0x5140);
    pairs[1] = byte_permute(low.low, high.low, 0x7362);
    pairs[2] = byte_permute(low.high, high.high, 0x5140);
    pairs[3] = byte_permute(low.high, high.high, 0x7362);
  }

 private:
  static constexpr int bf16_byte(int level, int byte) noexcept {
    return __builtin_bit_cast(std::uint32_t, static_cast<float>(F::level(level))) >> (16 + 8 * byte) & 255;
  }
};

template <>
struct octets<iq4_nl> : wide_table_octets<iq4_nl, detail::iq4_nl_codes> {
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    return {detail::low_half(bytes.template u16<0>(18 * g)), 0};
  }
};

template <>
struct octets<iq4_xs> : wide_table_octets<iq4_xs, detail::iq4_xs_codes> {
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const word_pair w = bytes.template u64<0>();
    const std::uint32_t s = (w.high >> 4 * g & 15) | (w.low >> (16 + 2 * g) & 3) << 4;
    return {detail::low_half(w.low) * detail::biased_float<32>(s), 0};
  }
};

template <>
struct octets<mxfp4> : nibble_table_octets<mxfp4, detail::mxfp4_codes> {};

template <>
struct octets<nvfp4> : codeword_octets<nvfp4> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr int group = 36 * (C / 2) + 4 + 16 * (C % 2);
    // Lanes 0 and 1 own the low nibbles of both groups of 16, lanes 2 and 3 the high ones.
    const int high = 4 * (t >> 1);
    const std::uint32_t a = bytes.template u32<group>(4 * (t & 1)) >> high;
    const std::uint32_t b = bytes.template u32<group + 8>(4 * (t & 1)) << (4 - high);
    return detail::unmix(detail::levels_of<nvfp4>((a & 0x0f0f0f0fu) | (b & 0xf0f0f0f0u)));
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    // Seven bits of a UE4M3 are those of a binary16 2^-8 times as large; the format wants half the value.
    const std::uint32_t s = bytes.u8(36 * (g >> 2) + (g & 3)), half = s == 127 ? 0 : (s & 127) << 7;
    return {128 * detail::low_half(half), 0};
  }
};

template <>
struct octets<iq4_k> : codeword_octets<iq4_k> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr auto table = detail::level_words<16>::of([](int i) { return iq4_k::level(i, 0); }, 128);
    const std::uint32_t extra = bytes.template u32<0>();
    const octet o = detail::unmix(detail::lookup_16(table, bytes.template u32<16 + 16 * C>(4 * t)));
    return {o.low + detail::table_step<16 + 2 * C, 4>(extra),
            o.high + detail::table_step<17 + 2 * C, 4>(extra)};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    return {detail::low_half(bytes.template u16<0>()) * detail::scale_6x16(bytes, g), 0};
  }
};

/// Formats with a scale byte per group: bit 0 chooses the table, the others are an odd number.
template <block_format F>
struct odd_scale_octets : codeword_octets<F> {
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float row_scale, int g) noexcept {
    return {row_scale * detail::biased_float<127>(bytes.u8(g) & 254), 0};
  }
};

template <>
struct octets<iq4_ks> : odd_scale_octets<iq4_ks> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr auto table = detail::level_words<16>::of([](int i) { return iq4_ks::level(i, 0); }, 128);
    const octet o = detail::lookup_16(table, bytes.template u32<8 + 16 * C>(4 * t));
    const std::uint32_t step = detail::table_step<8 * (C % 4), 4>(bytes.template u32<C & 4>());
    return {o.low + step, o.high + step};
  }
};

template <>
struct octets<iq4_kss> : codeword_octets<iq4_kss> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr auto table = detail::level_words<16>::of([](int i) { return iq4_kss::level(i, 0); }, 128);
    // Bit 0 of the two 16-bit numbers of a word are bits of the scale, and the lower one is cleared before
    // the shift would take the upper one's into it.
    const std::uint32_t w = bytes.template u32<16 * C>(4 * t) & 0xfffefffeu;
    const octet o = detail::lookup_16(table, w ^ w >> 1);
    const std::uint32_t step = detail::table_step<0, 4>(bytes.template u32<16 * C>());
    return {o.low + step, o.high + step};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float row_scale, int g) noexcept {
    constexpr std::uint32_t ends = 0x00010001u;
    const word_pair a = bytes.template u64<0>(16 * g), b = bytes.template u64<8>(16 * g);
    const std::uint32_t v =
        (a.low & ends) | (a.high & ends) << 2 | (b.low & ends) << 4 | (b.high & ends) << 6;
    return {row_scale * detail::biased_float<127>((v | v >> 15) & 254), 0};
  }
};

/// 5 bits: nibbles as in q4_K at Codes, fifth bits behind.
template <block_format F, int Codes>
struct five_bit_table {
  /// Interleaved levels + 129, of the first table.
  template <int C, class Bytes>
  QUANTAL_HD static octet lookup(const Bytes& bytes, int t) noexcept {
    // 129 makes level 16, which is -1, the first of 128 and more.
    constexpr auto table = detail::level_words<32>::of([](int i) { return F::level(i, 0); }, 129);
    constexpr int run = Codes + 32 * (C / 2);
    const std::uint32_t nibbles =
        detail::merge_nibbles<C % 2>(bytes.template u32<run>(4 * t), bytes.template u32<run + 16>(4 * t));
    return detail::lookup_32(table, nibbles,
                             detail::shift_left<2 - C % 4>(detail::merged_bits<Codes + 128, C>(bytes, t)));
  }
};

template <>
struct octets<iq5_ks> : odd_scale_octets<iq5_ks> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const octet o = five_bit_table<iq5_ks, 8>::lookup<C>(bytes, t);
    const std::uint32_t step = detail::table_step<8 * (C % 4), 1, -1>(bytes.template u32<C & 4>());
    return {o.low + step, o.high + step};
  }
};

template <>
struct octets<iq5_k> : codeword_octets<iq5_k> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t extra = bytes.template u32<0>();
    const octet o = detail::unmix(five_bit_table<iq5_k, 16>::lookup<C>(bytes, t));
    return {o.low + detail::table_step<16 + 2 * C, 1, -1>(extra),
            o.high + detail::table_step<17 + 2 * C, 1, -1>(extra)};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    return {detail::low_half(bytes.template u16<0>()) * detail::scale_6x16(bytes, g), 0};
  }
};

template <>
struct octets<iq6_k> : codeword_octets<iq6_k> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    // 130 makes level 32, which is -2, the first of 128 and more.
    constexpr auto table = detail::level_words<64>::of([](int i) { return iq6_k::level(i, 0); }, 130);
    constexpr int run = 20 + 32 * (C / 2), field = 2 * (C % 2);
    const std::uint32_t extra = bytes.template u32<0>();
    const std::uint32_t nibbles =
        detail::merge_nibbles<C % 2>(bytes.template u32<run>(4 * t), bytes.template u32<run + 16>(4 * t));
    const std::uint32_t high = detail::merged_pairs<148, C>(bytes, t);
    const octet o = detail::unmix(
        detail::lookup_64(table, nibbles, high << (3 - field), detail::shift_left<1 - field>(high)));
    return {o.low + detail::table_step<16 + 2 * C, -1, -2>(extra),
            o.high + detail::table_step<17 + 2 * C, -1, -2>(extra)};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    return {detail::low_half(bytes.template u16<0>()) * detail::biased_float<128>(bytes.u8(4 + g) ^ 128), 0};
  }
};

/// 3 bits: two of them in a pair_plane at Codes, the third in a bit_plane behind.
template <block_format F, int Codes>
struct three_bit_table {
  /// Interleaved, biased levels of the first table.
  template <int C, class Bytes>
  QUANTAL_HD static octet lookup(const Bytes& bytes, int t) noexcept {
    constexpr auto table = detail::level_words<8>::of([](int i) { return F::level(i, 0); }, code_bias<F>);
    const std::uint32_t low = detail::merged_pairs<Codes, C>(bytes, t) >> 2 * (C % 2) & 0x33333333u;
    const std::uint32_t high = detail::shift_left<2 - C % 4>(detail::merged_bits<Codes + 64, C>(bytes, t));
    return detail::lookup_8(table, low | (high & 0x44444444u));
  }
};

template <>
struct octets<iq3_k> : codeword_octets<iq3_k> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t extra = bytes.template u16<2>();
    const octet o = detail::unmix(three_bit_table<iq3_k, 14>::lookup<C>(bytes, t));
    return {o.low + detail::table_step<2 * C, 4>(extra), o.high + detail::table_step<2 * C + 1, 4>(extra)};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const std::uint32_t n = bytes.u8(6 + (g >> 1)) >> 4 * (g & 1) & 15;
    const float magnitude = detail::biased_float<-1>(2 * n);
    const float s = bytes.template u16<4>() >> g & 1 ? -magnitude : magnitude;
    return {detail::low_half(bytes.template u16<0>()) * s, 0};
  }
};

template <>
struct octets<iq3_ks> : codeword_octets<iq3_ks> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const octet o = three_bit_table<iq3_ks, 6>::lookup<C>(bytes, t);
    const std::uint32_t step = detail::table_step<8 + C, 4>(bytes.template u16<0>());
    return {o.low + step, o.high + step};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float row_scale, int g) noexcept {
    const std::uint32_t low = bytes.u8(2 + (g & 3)) >> 4 * (g >> 2) & 15;
    return {row_scale * detail::biased_float<16>(low | (bytes.template u16<0>() >> g & 1) << 4), 0};
  }
};

template <>
struct octets<iq2_k> : codeword_octets<iq2_k> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr auto table =
        detail::level_words<8>::of([](int i) { return iq2_k::level(i % 4, i / 4); }, code_bias<iq2_k>);
    const std::uint32_t extra = bytes.template u32<0>();
    // Bit 2 of an index chooses the table.
    const std::uint32_t first = extra >> (16 + 2 * C) & 1 ? 0x04040404u : 0;
    const std::uint32_t second = extra >> (17 + 2 * C) & 1 ? 0x40404040u : 0;
    const std::uint32_t low = detail::merged_pairs<12, C>(bytes, t) >> 2 * (C % 2) & 0x33333333u;
    return detail::unmix(detail::lookup_8(table, low | first | second));
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const std::uint32_t s = bytes.template u32<4>(4 * (g >> 3)) >> 4 * (g & 7) & 15;
    return {detail::low_half(bytes.template u16<0>()) * detail::biased_float<8>(s), 0};
  }
};

template <>
struct octets<iq2_ks> : codeword_octets<iq2_ks> {
  static constexpr octet_order order = octet_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr auto table =
        detail::level_words<8>::of([](int i) { return iq2_ks::level(i % 4, i / 4); }, code_bias<iq2_ks>);
    const std::uint32_t levels = bytes.template u16<0>() >> C & 1 ? table.words[1] : table.words[0];
    const std::uint32_t index = detail::merged_pairs<6, C>(bytes, t) >> 2 * (C % 2) & 0x33333333u;
    return {byte_permute(levels, 0, index), byte_permute(levels, 0, index >> 16)};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float row_scale, int g) noexcept {
    const std::uint32_t low = bytes.u8(2 + (g >> 1)) >> 4 * (g & 1) & 15;
    return {row_scale * detail::biased_float<16>(low | (bytes.template u16<0>() >> (8 + g) & 1) << 4), 0};
  }
};

template <>
struct octets<iq2_kl> : codeword_octets<iq2_kl> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
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
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float row_scale, int g) noexcept {
    const std::uint32_t low = bytes.u8(2 + (g & 3)) >> 4 * (g >> 2) & 15;
    return {row_scale * detail::biased_float<32>(low | (bytes.template u16<0>() >> 2 * g & 3) << 4), 0};
  }
};

}  // namespace quantal::cuda
