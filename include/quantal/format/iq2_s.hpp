// iq2_s: 2.5625 bits per weight. Groups of 8 weights are vectors of a 1024-entry grid with free signs; 4-bit
// scales per 16 under one f16 per 256 (formats.md section 7).
//
//   offset 0    f16  d
//   offset 2    u8   qs[32]      low 8 bits of the grid index of 8-group v
//   offset 34   u8   signs[32]   sign byte of 8-group v
//   offset 66   u8   qh[8]       bits 2t, 2t+1 of byte b: index bits 8, 9 of 8-group 4 * b + t
//   offset 74   u8   scales[8]   nibble h % 2 of byte h / 2
//
//   weight[e] = ((d * (0.5 + s[h])) / 4) * (+-grid[index][e % 8]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq2_s.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct iq2_s : detail::odd_super_scaled<iq2_s> {
  static constexpr std::string_view name = "iq2_s";
  static constexpr std::uint32_t gguf_id = 22;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 82, .group = 16};
  static constexpr int min_code = -43, max_code = 43;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[32];
    std::uint8_t signs[32];
    std::uint8_t qh[8];
    detail::nibble_list<16> scales;
  };

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 8, grid_size = 1024, max_sub_scale = 15;
  static constexpr bool even_signs = false;
  static constexpr float scale_unit = 0.125f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::grid_iq2_s(index, k);
  }

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int v = e / 8;
    const int magnitude = grid_value(b.qs[v] + 256 * detail::bits(b.qh[v / 4], 2 * (v % 4), 2), e % 8);
    return detail::bit(b.signs[v], e % 8) ? -magnitude : magnitude;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g); }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v); }
  /// Grid index and sign byte of the 8-group v.
  QUANTAL_HD static constexpr void set_vector(block& b, int v, int index, int signs) noexcept {
    b.qs[v] = static_cast<std::uint8_t>(index);
    detail::set_bits(b.qh[v / 4], 2 * (v % 4), 2, index >> 8);
    b.signs[v] = static_cast<std::uint8_t>(signs);
  }
};

static_assert(block_format<iq2_s>);

}  // namespace quantal
