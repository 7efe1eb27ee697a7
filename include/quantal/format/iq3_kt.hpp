// iq3_kt: 3.125 bits per weight and a float32 scale per row. Groups of 8 magnitudes are outputs of a pseudo-
// random sequence with a 16-bit seed, signs are stored; 4-bit scales per 32 (formats.md section 10).
//
//   row metadata: f32 D
//   offset 0    u8   scales[4]   nibble g / 4 of byte g % 4: scale of 32-group g
//   offset 4    u16  ql[32]      sequence index of 8-group v
//   offset 68   u8   qh[32]      bit g of byte l: sign of weight 32 * g + l
//
//   weight[e] = +-((D * s[g]) * |trellis(4096 + ql[e / 8], e % 8)|),   g = e / 32;  a negated zero is -0
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/trellis.hpp"

namespace quantal {

struct iq3_kt : detail::row_scaled<iq3_kt, detail::float_field> {
  static constexpr std::string_view name = "iq3_kt";
  static constexpr std::uint32_t gguf_id = 154;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 100, .group = 32, .row_meta = 4};

  struct block {
    detail::nibble_halves<8> scales;
    detail::le_u16 ql[32];
    detail::bit_plane qh;
  };

  static constexpr int vector = 8, grid_size = 1 << 16, max_sub_scale = 15;
  static constexpr bool even_signs = false;
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    const int t = detail::trellis(4096u + static_cast<std::uint32_t>(index), k);
    return t < 0 ? -t : t;
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int magnitude = grid_value(b.ql[e / 8].get(), e % 8);
    return b.qh.get(e) ? -magnitude : magnitude;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g); }
  /// The sign applies after the product: integers have no -0, the format has.
  QUANTAL_HD static constexpr float weight(const block& b, float row_scale, int e) noexcept {
    const float magnitude =
        scale(b, row_scale, e / layout.group) * static_cast<float>(grid_value(b.ql[e / 8].get(), e % 8));
    return b.qh.get(e) ? -magnitude : magnitude;
  }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v); }
  /// Sequence index of the 8-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.ql[v].set(static_cast<std::uint16_t>(index));
  }
  /// Sign byte of the 8-group v.
  QUANTAL_HD static constexpr void set_signs(block& b, int v, int signs) noexcept {
    for (int k = 0; k < 8; ++k) b.qh.set(8 * v + k, signs >> k & 1);
  }
};

static_assert(block_format<iq3_kt>);

}  // namespace quantal
