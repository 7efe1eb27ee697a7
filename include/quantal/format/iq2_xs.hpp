// iq2_xs: 2.3125 bits per weight. Groups of 8 weights are vectors of a 512-entry grid with signs of even
// parity; 4-bit scales per 16 under one f16 per 256 (formats.md section 7).
//
//   offset 0    f16  d
//   offset 2    u16  qs[32]      word v of the 8-group v: bits 0..8 grid index, bits 9..15 sign index
//   offset 66   u8   scales[8]   nibble h % 2 of byte h / 2
//
//   weight[e] = ((d * (0.5 + s[h])) / 4) * (+-grid[index][e % 8]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq2_xs.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/signs7.hpp"

namespace quantal {

struct iq2_xs : detail::odd_super_scaled<iq2_xs> {
  static constexpr std::string_view name = "iq2_xs";
  static constexpr std::uint32_t gguf_id = 17;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 74, .group = 16};
  static constexpr int min_code = -43, max_code = 43;

  struct block {
    detail::half_bits d;
    detail::le_u16 qs[32];
    detail::nibble_list<16> scales;
  };

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 8, grid_size = 512, max_sub_scale = 15;
  static constexpr bool even_signs = true;
  static constexpr float scale_unit = 0.125f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::grid_iq2_xs(index, k);
  }

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const std::uint32_t q = b.qs[e / 8].get();
    const int magnitude = grid_value(detail::bits(q, 0, 9), e % 8);
    return detail::bit(detail::signs7(detail::bits(q, 9, 7)), e % 8) ? -magnitude : magnitude;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g); }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v); }
  /// Grid index and sign byte (even number of set bits) of the 8-group v.
  QUANTAL_HD static constexpr void set_vector(block& b, int v, int index, int signs) noexcept {
    b.qs[v].set(static_cast<std::uint16_t>(index | (signs & 127) << 9));
  }
};

static_assert(block_format<iq2_xs>);

}  // namespace quantal
