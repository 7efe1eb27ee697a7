// How several formats arrange the bits of their elements and sub-scales.
#pragma once

#include "quantal/format/detail/bytes.hpp"

namespace quantal::detail {

/// n nibbles in order: nibble i % 2 of byte i / 2.
template <int n>
struct nibble_list {
  std::uint8_t bytes[std::size_t{n / 2}];
  QUANTAL_HD constexpr int get(int i) const noexcept { return nib(bytes[i / 2], i % 2); }
  QUANTAL_HD constexpr void set(int i, int v) noexcept { set_bits(bytes[i / 2], 4 * (i % 2), 4, v); }
};

/// n nibbles in two halves: the first n/2 are the low nibbles, the others the high nibbles.
template <int n>
struct nibble_halves {
  std::uint8_t bytes[std::size_t{n / 2}];
  QUANTAL_HD constexpr int get(int i) const noexcept { return nib(bytes[i % (n / 2)], i / (n / 2)); }
  QUANTAL_HD constexpr void set(int i, int v) noexcept {
    set_bits(bytes[i % (n / 2)], 4 * (i / (n / 2)), 4, v);
  }
  /// All n: elements i and n/2 + i in byte i.
  QUANTAL_HD void set_bytes(const std::uint8_t* v) noexcept { __builtin_memcpy(bytes, v, n / 2); }
};

/// 256 nibbles in runs of `run` elements, each run a nibble_halves: 32 as in iq4_xs, 64 as in q4_K.
template <int run>
struct nibble_runs {
  nibble_halves<run> runs[std::size_t{256 / run}];
  QUANTAL_HD constexpr int get(int e) const noexcept { return runs[e / run].get(e % run); }
  QUANTAL_HD constexpr void set(int e, int v) noexcept { runs[e / run].set(e % run, v); }
};

/// 256 two-bit fields as in q2_K: byte 32 * n + l holds elements 128 * n + l, +32, +64, +96.
struct pair_plane {
  std::uint8_t bytes[64];
  QUANTAL_HD constexpr int get(int e) const noexcept {
    return bits(bytes[32 * (e / 128) + e % 32], 2 * (e % 128 / 32), 2);
  }
  QUANTAL_HD constexpr void set(int e, int v) noexcept {
    set_bits(bytes[32 * (e / 128) + e % 32], 2 * (e % 128 / 32), 2, v);
  }
};

/// 256 bits as in q3_K: bit g of byte l belongs to element 32 * g + l.
struct bit_plane {
  std::uint8_t bytes[32];
  QUANTAL_HD constexpr int get(int e) const noexcept { return bit(bytes[e % 32], e / 32); }
  QUANTAL_HD constexpr void set(int e, int v) noexcept { set_bits(bytes[e % 32], e / 32, 1, v); }
};

/// Sixteen signed 6-bit scales (-32..31) as in iq4_k: upper two bits in four bytes, then nibbles.
struct scales6x16 {
  std::uint8_t high[4];
  nibble_list<16> low;
  QUANTAL_HD constexpr int get(int h) const noexcept {
    return low.get(h) + 16 * bits(high[h / 4], 2 * (h % 4), 2) - 32;
  }
  QUANTAL_HD constexpr void set(int h, int v) noexcept {
    low.set(h, (v + 32) & 15);
    set_bits(high[h / 4], 2 * (h % 4), 2, (v + 32) >> 4);
  }
};

/// Scale byte of iq4_ks, iq5_ks and iq4_kss: bit 0 selects the table, bits 1..7 hold an odd scale in
/// -127..127.
struct odd_scale {
  std::uint8_t byte;
  QUANTAL_HD constexpr int scale() const noexcept { return 2 * (byte >> 1) - 127; }
  QUANTAL_HD constexpr int table() const noexcept { return byte & 1; }
  QUANTAL_HD constexpr void set_scale(int v) noexcept { set_bits(byte, 1, 7, (v + 127) / 2); }
  QUANTAL_HD constexpr void set_table(int bit) noexcept { set_bits(byte, 0, 1, bit); }
};

/// Base of formats that choose one of two code tables per group: bit g of the block's field `extra`.
struct tables_in_extra {
  template <class Block>
  QUANTAL_HD static constexpr int table(const Block& b, int g) noexcept {
    return bit(b.extra.get(), g);
  }
  template <class Block>
  QUANTAL_HD static constexpr void set_table(Block& b, int g, int bit) noexcept {
    set_bits(b.extra, g, 1, bit);
  }
};

}  // namespace quantal::detail
