// Formats that no model file holds, of layouts that the list does not have: what reads formats by their bit
// plans is held to reading these.
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

/// Three bits in blocks of 128: pairs and packed bits, a byte of scale for every 32 weights.
struct pairs_and_bits {
  static constexpr std::string_view name = "pairs_and_bits";
  static constexpr std::uint32_t gguf_id = 901;
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
  static constexpr std::uint32_t gguf_id = 902;
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
  static constexpr std::uint32_t gguf_id = 903;
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
  static constexpr std::uint32_t gguf_id = 904;
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

static_assert(block_format<pairs_and_bits> && block_format<nibbles_and_quads> && block_format<two_tables> &&
              block_format<sub_scaled_128>);

}  // namespace quantal
