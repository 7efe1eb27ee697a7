// q3_K: 3.4375 bits per weight. Super-blocks of 256: sixteen groups of 16 with signed 6-bit scales under one
// f16 super-scale (formats.md section 5).
//
//   offset 0     u8   hmask[32]    bit g of byte l = third bit of weight 32 * g + l
//   offset 32    u8   qs[64]       byte 32 * n + l: low two bits of weights 128 * n + l, +32, +64, +96
//   offset 96    u8   scales[12]   sixteen 6-bit values: low nibbles in bytes 0..7, upper pairs in
//   bytes 8..11 offset 108   f16  d
//
//   weight[e] = (d * (scale6[h] - 32)) * q[e],   h = e / 16,   q in -4..3
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct q3_K : detail::super_scaled<q3_K> {
  static constexpr std::string_view name = "q3_K";
  static constexpr std::uint32_t gguf_id = 11;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 110, .group = 16};
  static constexpr int min_code = -4, max_code = 3;

  struct block {
    std::uint8_t hmask[32];
    std::uint8_t qs[64];
    std::uint8_t scales[12];
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::bits(b.qs[32 * (e / 128) + e % 32], 2 * (e % 128 / 32), 2) +
           4 * detail::bit(b.hmask[e % 32], e / 32) - 4;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::nib(b.scales[g % 8], g / 8) + 16 * detail::bits(b.scales[8 + g % 4], 2 * (g / 4), 2) - 32;
  }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[32 * (e / 128) + e % 32], 2 * (e % 128 / 32), 2, (code + 4) & 3);
    detail::set_bits(b.hmask[e % 32], e / 32, 1, (code + 4) >> 2);
  }
  /// All 256 codes, in order.
  QUANTAL_HD static void set_codes(block& b, const std::int8_t* code) noexcept {
    std::uint8_t low[64], high[32];
    for (int i = 0; i < 64; ++i) {
      const std::int8_t* c = code + 128 * (i / 32) + i % 32;
      low[i] = static_cast<std::uint8_t>((c[0] & 3) | (c[32] & 3) << 2 | (c[64] & 3) << 4 | (c[96] & 3) << 6);
    }
    for (int i = 0; i < 32; ++i) {
      int bits = 0;
      for (int g = 0; g < 8; ++g) bits |= (code[32 * g + i] >= 0) << g;
      high[i] = static_cast<std::uint8_t>(bits);
    }
    __builtin_memcpy(b.qs, low, sizeof low);
    __builtin_memcpy(b.hmask, high, sizeof high);
  }

  static constexpr int min_sub_scale = -32, max_sub_scale = 31;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.scales[g % 8], 4 * (g / 8), 4, (v + 32) & 15);
    detail::set_bits(b.scales[8 + g % 4], 2 * (g / 4), 2, (v + 32) >> 4);
  }
};

static_assert(block_format<q3_K>);

}  // namespace quantal
