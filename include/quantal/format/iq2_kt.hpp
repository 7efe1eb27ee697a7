// iq2_kt: 2.125 bits per weight and a float32 scale per row. Groups of 8 weights are outputs of a pseudo-
// random sequence with a 16-bit seed; table-coded 4-bit scales per 32 (formats.md section 10).
//
//   row metadata: f32 D
//   offset 0   u8   scales[4]   nibble g / 4 of byte g % 4: scale index of 32-group g
//   offset 4   u16  ql[32]      sequence index of 8-group v
//
//   weight[e] = (D * lut4_nl[s[g]]) * trellis(4096 + ql[e / 8], e % 8),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/trellis.hpp"

namespace quantal {

struct iq2_kt : detail::row_scaled_levels<iq2_kt, detail::float_field> {
  static constexpr std::string_view name = "iq2_kt";
  static constexpr std::uint32_t gguf_id = 153;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 68, .group = 32, .row_meta = 4};

  struct block {
    detail::nibble_halves<8> scales;
    detail::le_u16 ql[32];
  };

  static constexpr int vector = 8, grid_size = 1 << 16;
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::trellis(4096u + static_cast<std::uint32_t>(index), k);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return grid_value(b.ql[e / 8].get(), e % 8);
  }

  QUANTAL_HD static constexpr int scale_index(const block& b, int g) noexcept { return b.scales.get(g); }

  QUANTAL_HD static constexpr void set_scale_index(block& b, int g, int index) noexcept {
    b.scales.set(g, index);
  }
  /// Sequence index of the 8-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.ql[v].set(static_cast<std::uint16_t>(index));
  }
};

static_assert(block_format<iq2_kt>);

}  // namespace quantal
