// iq1_m: 1.75 bits per weight. The ternary grid of iq1_s with a shift sign per 8 weights and 3-bit scales per
// 16 under one f16 per 256 (formats.md section 7).
//
//   offset 0    u8   qs[32]   low 8 bits of the grid index of 8-group v
//   offset 32   u8   qh[16]   nibble v % 2 of byte v / 2: bits 0..2 index bits 8..10, bit 3 shift sign
//   offset 48   u16  sc[4]    word i: four 3-bit scales of the 16-groups 4i..4i+3; top nibble i of the f16 d
//
//   weight[e] = ((d * (2 * s[h] + 1)) / 8) * (8 * grid[index][e % 8] +- 1),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq1.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct iq1_m : detail::odd_super_scaled<iq1_m> {
  static constexpr std::string_view name = "iq1_m";
  static constexpr std::uint32_t gguf_id = 29;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 56, .group = 16};
  static constexpr int min_code = -9, max_code = 9;

  struct block {
    std::uint8_t qs[32];
    detail::nibble_list<32> qh;
    detail::le_u16 sc[4];
  };

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 8, grid_size = 2048, max_sub_scale = 7;
  static constexpr int shift_group = 8;        ///< weights that share one shift sign
  static constexpr float scale_unit = 0.125f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  /// Component k of a grid entry, -1, 0 or 1; the code is 8 * grid_value + shift.
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept { return detail::grid_iq1(index, k); }
  /// +1 or -1, for the 8-group i.
  QUANTAL_HD static constexpr int shift(const block& b, int i) noexcept { return 1 - 2 * (b.qh.get(i) >> 3); }

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int index = b.qs[e / 8] + 256 * (b.qh.get(e / 8) & 7);
    return 8 * grid_value(index, e % 8) + shift(b, e / 8);
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::bits(b.sc[g / 4].get(), 3 * (g % 4), 3);
  }

  QUANTAL_HD static constexpr float super(const block& b) noexcept {
    std::uint32_t d = 0;
    for (int i = 0; i < 4; ++i) d |= static_cast<std::uint32_t>(b.sc[i].get() >> 12) << (4 * i);
    return detail::half_to_float(static_cast<std::uint16_t>(d));
  }
  QUANTAL_HD static constexpr void set_super(block& b, float d) noexcept {
    for (int i = 0; i < 4; ++i) detail::set_bits(b.sc[i], 12, 4, detail::float_to_half(d) >> (4 * i) & 15);
  }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.sc[g / 4], 3 * (g % 4), 3, v);
  }
  QUANTAL_HD static constexpr void set_shift(block& b, int i, int shift) noexcept {
    b.qh.set(i, (b.qh.get(i) & 7) | (shift < 0) << 3);
  }
  /// Grid index of the 8-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.qs[v] = static_cast<std::uint8_t>(index);
    b.qh.set(v, (b.qh.get(v) & 8) | index >> 8);
  }
};

static_assert(block_format<iq1_m>);

}  // namespace quantal
