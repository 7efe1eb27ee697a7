// Formats that no model file holds, in layouts of their own: what a user adds in one header and one line. q5_64 is the
// one that benchmarks time.
#pragma once

#include <array>

#include "quantal/formats.hpp"
#include "support/q5_64.hpp"

namespace quantal {

/// Three bits: two packed one after another, the third in a plane; a byte of scale for every 32 of 128 weights.
struct q3_128 : detail::super_scaled<q3_128> {
  static constexpr std::string_view name = "q3_128";
  static constexpr std::uint32_t gguf_id = 901;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 128, .bytes = 54, .group = 32};
  static constexpr int min_code = -4, max_code = 3;

  struct block {
    detail::half_bits d;
    std::int8_t scales[4];
    std::uint8_t qs[32], qh[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::bits(b.qs[e / 4], 2 * (e % 4), 2) + 4 * detail::bit(b.qh[e % 16], e / 16) - 4;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales[g]; }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e / 4], 2 * (e % 4), 2, (code + 4) & 3);
    detail::set_bits(b.qh[e % 16], e / 16, 1, (code + 4) >> 2);
  }
  static constexpr int min_sub_scale = -128, max_sub_scale = 127;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales[g] = static_cast<std::int8_t>(v);
  }
};

/// Six bits in blocks of 32: nibbles in order, upper bits of weights 8 * r + i in byte i.
struct q6_32 {
  static constexpr std::string_view name = "q6_32";
  static constexpr std::uint32_t gguf_id = 902;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 28, .group = 32, .has_offset = true};
  static constexpr int min_code = 0, max_code = 63;

  struct block {
    std::uint8_t qs[16], qh[8];
    detail::half_bits d, m;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[e / 2], e % 2) + 16 * detail::bits(b.qh[e % 8], 2 * (e / 8), 2);
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  QUANTAL_HD static constexpr float offset(const block& b, float, int) noexcept { return b.m.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e / 2], 4 * (e % 2), 4, code & 15);
    detail::set_bits(b.qh[e % 8], 2 * (e / 8), 2, code >> 4);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
  QUANTAL_HD static constexpr void set_offset(block& b, float m) noexcept { b.m.set(m); }
};

/// Levels of two tables, chosen per sixteen weights, with six-bit scales in the order of the bits.
struct iq3_256 : detail::super_scaled<iq3_256>, detail::tables_in_extra {
  static constexpr std::string_view name = "iq3_256";
  static constexpr std::uint32_t gguf_id = 903;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 112, .group = 16};
  static constexpr int min_code = -63, max_code = 51;

  struct block {
    detail::pair_plane qs;
    detail::bit_plane qh;
    detail::scales6x16 scales;
    detail::le_u16 extra;
    detail::half_bits d;
  };

  static constexpr int levels = 8;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut3_k(index) + 4 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return b.qs.get(e) + 4 * b.qh.get(e);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g); }

  static constexpr int min_sub_scale = -32, max_sub_scale = 31;
  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs.set(e, index & 3);
    b.qh.set(e, index >> 2);
  }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v); }
};

/// Bits that lie in no planes: weight e has its nibble where an odd multiple of e says. code() alone must do.
struct q4_scattered {
  static constexpr std::string_view name = "q4_scattered";
  static constexpr std::uint32_t gguf_id = 904;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 34, .group = 64};
  static constexpr int min_code = -8, max_code = 7;

  struct block {
    detail::half_bits d;
    detail::nibble_list<64> qs;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return b.qs.get(e * 29 % 64) - 8; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    b.qs.set(e * 29 % 64, code + 8);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

/// Three bits in blocks of 128: pairs and packed bits, a byte of scale for every 32 weights.
struct pairs_and_bits {
  static constexpr std::string_view name = "pairs_and_bits";
  static constexpr std::uint32_t gguf_id = 905;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 128, .bytes = 54, .group = 32};
  static constexpr int min_code = -4, max_code = 3;

  struct block {
    std::uint8_t qh[16];
    std::uint8_t qs[32];
    std::uint8_t scales[4];
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::bits(b.qs[e % 32], 2 * (e / 32), 2) + 4 * detail::bit(b.qh[e / 8], e % 8) - 4;
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int g) noexcept {
    return b.d.get() * static_cast<float>(b.scales[g] + 1);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

/// Six bits in blocks of 32 with an offset: nibbles, and pairs packed four to a byte. An odd number of bytes.
struct nibbles_and_quads {
  static constexpr std::string_view name = "nibbles_and_quads";
  static constexpr std::uint32_t gguf_id = 906;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 29, .group = 32, .has_offset = true};
  static constexpr int min_code = 0, max_code = 63;

  struct block {
    std::uint8_t qh[8];
    detail::half_bits m;
    std::uint8_t qs[16];
    std::uint8_t unused;
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[e % 16], e / 16) + 16 * detail::bits(b.qh[e / 4], 2 * (e % 4), 2);
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  QUANTAL_HD static constexpr float offset(const block& b, float, int) noexcept { return b.m.get(); }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
  QUANTAL_HD static constexpr void set_offset(block& b, float m) noexcept { b.m.set(m); }
};

/// Indices in blocks of 64, two to a byte in order, and one of two tables for every 16 weights.
struct two_tables {
  static constexpr std::string_view name = "two_tables";
  static constexpr std::uint32_t gguf_id = 907;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 35, .group = 16};
  static constexpr int min_code = -105, max_code = 108;

  struct block {
    std::uint8_t tables;
    detail::half_bits d;
    detail::nibble_list<64> qs;
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return index * index - 105 - 12 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept { return b.qs.get(e); }
  QUANTAL_HD static constexpr int table(const block& b, int g) noexcept {
    return detail::bit(b.tables, 2 * g);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

/// Four bits in blocks of 128, sub-scales of 16 weights with their upper bits apart, under a half of its own.
struct sub_scaled_128 : detail::super_scaled<sub_scaled_128> {
  static constexpr std::string_view name = "sub_scaled_128";
  static constexpr std::uint32_t gguf_id = 908;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 128, .bytes = 71, .group = 16};
  static constexpr int min_code = -8, max_code = 7, min_sub_scale = -16;

  struct block {
    std::uint8_t high;
    detail::nibble_halves<8> low;
    detail::nibble_halves<64> qs[2];
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return b.qs[e / 64].get(e % 64) - 8;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return b.low.get(g) + 16 * detail::bit(b.high, g) - 16;
  }
};

using made_up_formats = format_list<q5_64, q3_128, q6_32, iq3_256, q4_scattered, pairs_and_bits,
                                    nibbles_and_quads, two_tables, sub_scaled_128>;

namespace test {

/// One entry per made-up format, in the order of the list.
inline constexpr auto made_up_table = quantal::detail::make_format_table(made_up_formats{});

/// visit_format, made-up formats included.
template <class Fn>
constexpr bool visit_any_format(std::uint32_t gguf_id, Fn&& fn) {
  return visit_format(gguf_id, fn) || quantal::detail::visit_format(gguf_id, fn, made_up_formats{});
}

}  // namespace test
}  // namespace quantal
