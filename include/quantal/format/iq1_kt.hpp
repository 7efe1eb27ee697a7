// iq1_kt: 1.75 bits per weight and a float32 scale per row. Groups of 8 weights are outputs of a pseudo-
// random sequence with a 13-bit seed; table-coded 4-bit scales per 32 (formats.md section 10).
//
//   row metadata: f32 D
//   offset 0    u8  sh[8]    byte g: bits 0..3 scale index, bit 4 + t index bit 12 of 8-group t of 32-group g
//   offset 8    u8  ql[32]   index bits 0..7 of 8-group v
//   offset 40   u8  qh[16]   nibble v / 16 of byte v % 16: index bits 8..11
//
//   weight[e] = (D * lut4_nl[s[g]]) * trellis(4096 + index[e / 8], e % 8),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/trellis.hpp"

namespace quantal {

struct iq1_kt : detail::row_scaled_levels<iq1_kt, detail::float_field> {
  static constexpr std::string_view name = "iq1_kt";
  static constexpr std::uint32_t gguf_id = 158;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 56, .group = 32, .row_meta = 4};

  struct block {
    std::uint8_t sh[8];
    std::uint8_t ql[32];
    detail::nibble_halves<32> qh;
  };

  static constexpr int vector = 8, grid_size = 1 << 13;
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::trellis(4096u + static_cast<std::uint32_t>(index), k);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int v = e / 8;
    return grid_value(b.ql[v] + 256 * b.qh.get(v) + 4096 * detail::bit(b.sh[v / 4], 4 + v % 4), e % 8);
  }

  QUANTAL_HD static constexpr int scale_index(const block& b, int g) noexcept {
    return detail::bits(b.sh[g], 0, 4);
  }

  QUANTAL_HD static constexpr void set_scale_index(block& b, int g, int index) noexcept {
    detail::set_bits(b.sh[g], 0, 4, index);
  }
  /// Sequence index of the 8-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.ql[v] = static_cast<std::uint8_t>(index);
    b.qh.set(v, index >> 8 & 15);
    detail::set_bits(b.sh[v / 4], 4 + v % 4, 1, index >> 12);
  }
};

static_assert(block_format<iq1_kt>);

}  // namespace quantal
