// iq3_xxs: 3.0625 bits per weight. Groups of 4 weights are vectors of a 256-entry grid, signs of even parity
// per 8; 4-bit scales per 32 under one f16 per 256 (formats.md section 7).
//
//   offset 0    f16  d
//   offset 2    u8   qs[64]   grid index of each group of 4
//   offset 66   u32  w[8]     bits 7t..7t+6 sign index of 8-group t of 32-group b, bits 28..31 its scale
//
//   weight[e] = ((d * (0.5 + s[b])) / 2) * (+-grid[qs[e / 4]][e % 4]),   b = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq3_xxs.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/signs7.hpp"

namespace quantal {

struct iq3_xxs : detail::odd_super_scaled<iq3_xxs> {
  static constexpr std::string_view name = "iq3_xxs";
  static constexpr std::uint32_t gguf_id = 18;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 98, .group = 32};
  static constexpr int min_code = -62, max_code = 62;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[64];
    detail::le_u32 w[8];
  };

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 4, grid_size = 256, max_sub_scale = 15;
  static constexpr bool even_signs = true;
  static constexpr float scale_unit = 0.25f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::grid_iq3_xxs(index, k);
  }

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int magnitude = grid_value(b.qs[e / 4], e % 4);
    const std::uint8_t signs = detail::signs7(detail::bits(b.w[e / 32].get(), 7 * (e % 32 / 8), 7));
    return detail::bit(signs, e % 8) ? -magnitude : magnitude;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::bits(b.w[g].get(), 28, 4);
  }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.w[g], 28, 4, v);
  }
  /// Grid index of the 4-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.qs[v] = static_cast<std::uint8_t>(index);
  }
  /// Sign byte (even number of set bits) of the 8-group s.
  QUANTAL_HD static constexpr void set_signs(block& b, int s, int signs) noexcept {
    detail::set_bits(b.w[s / 4], 7 * (s % 4), 7, signs & 127);
  }
};

static_assert(block_format<iq3_xxs>);

}  // namespace quantal
