// iq4_xs: 4.25 bits per weight. The table of iq4_nl in super-blocks of 256: eight groups of 32 with signed
// 6-bit scales under one f16 super-scale (formats.md section 6).
//
//   offset 0   f16  d
//   offset 2   u16  scales_h      bits 2g, 2g+1 = upper two bits of group g's scale
//   offset 4   u8   scales_l[4]   lower four bits, nibble g % 2 of byte g / 2
//   offset 8   u8   qs[128]       16 bytes per group: low nibbles its first 16 weights, high nibbles the rest
//
//   weight[e] = (d * (scale6[g] - 32)) * lut4_nl[nibble(e)],   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq4_xs : detail::super_scaled<iq4_xs> {
  static constexpr std::string_view name = "iq4_xs";
  static constexpr std::uint32_t gguf_id = 23;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 136, .group = 32};

  struct block {
    detail::half_bits d;
    std::uint8_t scales_h[2];
    std::uint8_t scales_l[4];
    std::uint8_t qs[128];
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index) noexcept { return detail::lut4_nl(index); }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return detail::nib(b.qs[16 * (e / 32) + e % 16], e % 32 / 16);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return level(index(b, e)); }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::nib(b.scales_l[g / 2], g % 2) + 16 * detail::bits(b.scales_h[g / 4], 2 * (g % 4), 2) - 32;
  }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    detail::set_bits(b.qs[16 * (e / 32) + e % 16], 4 * (e % 32 / 16), 4, index);
  }

  static constexpr int min_sub_scale = -32, max_sub_scale = 31;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.scales_l[g / 2], 4 * (g % 2), 4, (v + 32) & 15);
    detail::set_bits(b.scales_h[g / 4], 2 * (g % 4), 2, (v + 32) >> 4);
  }
};

static_assert(block_format<iq4_xs>);

}  // namespace quantal
