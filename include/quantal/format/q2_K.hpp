// q2_K: 2.625 bits per weight. Super-blocks of 256: sixteen groups of 16, each with a 4-bit scale and a 4-bit
// min under two f16 super-scales (formats.md section 5).
//
//   offset 0    u8   scales[16]   low nibble scale, high nibble min of group h
//   offset 16   u8   qs[64]       byte 32 * n + l: weights 128 * n + l, +32, +64, +96, two bits each
//   offset 80   f16  d
//   offset 82   f16  dmin
//
//   weight[e] = (d * sc[h]) * q[e] - (dmin * mn[h]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct q2_K : detail::super_scaled<q2_K> {
  static constexpr std::string_view name = "q2_K";
  static constexpr std::uint32_t gguf_id = 10;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 84, .group = 16, .has_offset = true};
  static constexpr int min_code = 0, max_code = 3;

  struct block {
    std::uint8_t scales[16];
    std::uint8_t qs[64];
    detail::half_bits d, dmin;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::bits(b.qs[32 * (e / 128) + e % 32], 2 * (e % 128 / 32), 2);
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::nib(b.scales[g], 0);
  }
  QUANTAL_HD static constexpr int sub_min(const block& b, int g) noexcept {
    return detail::nib(b.scales[g], 1);
  }
  QUANTAL_HD static constexpr float offset(const block& b, float, int g) noexcept {
    return -(b.dmin.get() * static_cast<float>(sub_min(b, g)));
  }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[32 * (e / 128) + e % 32], 2 * (e % 128 / 32), 2, code);
  }
  /// All 256 codes, in order.
  QUANTAL_HD static void set_codes(block& b, const std::int8_t* code) noexcept {
    std::uint8_t byte[64];
    for (int i = 0; i < 64; ++i) {
      const std::int8_t* c = code + 128 * (i / 32) + i % 32;
      byte[i] = static_cast<std::uint8_t>(c[0] | c[32] << 2 | c[64] << 4 | c[96] << 6);
    }
    __builtin_memcpy(b.qs, byte, sizeof byte);
  }

  // Super-block parameters, as the quantizers see them.
  static constexpr int max_sub_scale = 15, max_sub_min = 15;
  static constexpr float super_min(const block& b) noexcept { return b.dmin.get(); }
  QUANTAL_HD static constexpr void set_super_min(block& b, float d) noexcept { b.dmin.set(d); }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.scales[g], 0, 4, v);
  }
  QUANTAL_HD static constexpr void set_sub_min(block& b, int g, int v) noexcept {
    detail::set_bits(b.scales[g], 4, 4, v);
  }
};

static_assert(block_format<q2_K>);

}  // namespace quantal
