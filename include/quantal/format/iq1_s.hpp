// iq1_s: 1.5625 bits per weight. Groups of 8 weights are vectors of a 2048-entry ternary grid, shifted by
// +-1/8; 3-bit scale and shift sign per 32 under one f16 per 256 (formats.md section 7).
//
//   offset 0    f16  d
//   offset 2    u8   qs[32]   low 8 bits of the grid index of 8-group v
//   offset 34   u16  qh[8]    word b: bits 3t..3t+2 index bits 8..10 of 8-group t,
//                             bits 12..14 scale, bit 15 shift sign
//
//   weight[e] = ((d * (2 * s[b] + 1)) / 8) * (8 * grid[index][e % 8] +- 1),   b = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq1.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct iq1_s : detail::odd_super_scaled<iq1_s> {
  static constexpr std::string_view name = "iq1_s";
  static constexpr std::uint32_t gguf_id = 19;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 50, .group = 32};
  static constexpr int min_code = -9, max_code = 9;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[32];
    detail::le_u16 qh[8];
  };

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 8, grid_size = 2048, max_sub_scale = 7;
  static constexpr int shift_group = 32;       ///< weights that share one shift sign
  static constexpr float scale_unit = 0.125f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  /// Component k of a grid entry, -1, 0 or 1; the code is 8 * grid_value + shift.
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept { return detail::grid_iq1(index, k); }
  /// +1 or -1, for the 32-group i.
  QUANTAL_HD static constexpr int shift(const block& b, int i) noexcept {
    return 1 - 2 * detail::bit(b.qh[i].get(), 15);
  }

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int index = b.qs[e / 8] + 256 * detail::bits(b.qh[e / 32].get(), 3 * (e % 32 / 8), 3);
    return 8 * grid_value(index, e % 8) + shift(b, e / 32);
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::bits(b.qh[g].get(), 12, 3);
  }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.qh[g], 12, 3, v);
  }
  QUANTAL_HD static constexpr void set_shift(block& b, int i, int shift) noexcept {
    detail::set_bits(b.qh[i], 15, 1, shift < 0);
  }
  /// Grid index of the 8-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.qs[v] = static_cast<std::uint8_t>(index);
    detail::set_bits(b.qh[v / 4], 3 * (v % 4), 3, index >> 8);
  }
};

static_assert(block_format<iq1_s>);

}  // namespace quantal
