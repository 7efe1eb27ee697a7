// iq3_s: 3.4375 bits per weight. Groups of 4 weights are vectors of a 512-entry grid with free signs; 4-bit
// scales per 32 under one f16 per 256 (formats.md section 7).
//
//   offset 0     f16  d
//   offset 2     u8   qs[64]      low 8 bits of the grid index of each group of 4
//   offset 66    u8   qh[8]       bit v % 8 of byte v / 8: index bit 8 of 4-group v
//   offset 74    u8   signs[32]   sign byte of each group of 8
//   offset 106   u8   scales[4]   nibble b % 2 of byte b / 2
//
//   weight[e] = (d * (1 + 2 * s[b])) * (+-grid[index][e % 4]),   b = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq3_s.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct iq3_s : detail::odd_super_scaled<iq3_s> {
  static constexpr std::string_view name = "iq3_s";
  static constexpr std::uint32_t gguf_id = 21;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 110, .group = 32};
  static constexpr int min_code = -15, max_code = 15;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[64];
    std::uint8_t qh[8];
    std::uint8_t signs[32];
    detail::nibble_list<8> scales;
  };

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 4, grid_size = 512, max_sub_scale = 15;
  static constexpr bool even_signs = false;
  static constexpr float scale_unit = 1.0f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::grid_iq3_s(index, k);
  }

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int v = e / 4;
    const int magnitude = grid_value(b.qs[v] + 256 * detail::bit(b.qh[v / 8], v % 8), e % 4);
    return detail::bit(b.signs[e / 8], e % 8) ? -magnitude : magnitude;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g); }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v); }
  /// Grid index of the 4-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.qs[v] = static_cast<std::uint8_t>(index);
    detail::set_bits(b.qh[v / 8], v % 8, 1, index >> 8);
  }
  /// Sign byte of the 8-group s.
  QUANTAL_HD static constexpr void set_signs(block& b, int s, int signs) noexcept {
    b.signs[s] = static_cast<std::uint8_t>(signs);
  }
};

static_assert(block_format<iq3_s>);

}  // namespace quantal
