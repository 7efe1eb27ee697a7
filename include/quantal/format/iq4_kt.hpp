// iq4_kt: 4 bits per weight and a float32 scale per row. Groups of 4 weights are outputs of a pseudo-random
// sequence with a 15-bit seed, offset by one more bit per 32; signed 7-bit scales per 32 (formats.md section
// 10).
//
//   row metadata: f32 D
//   offset 0    u32  sh[8]    word g: bit 0 seed bit, bits 1..7 scale,
//                           bits 8+3t..10+3t index bits 12..14 of 4-group t
//   offset 32   u8   ql[64]   index bits 0..7 of 4-group v
//   offset 96   u8   qh[32]   nibble v / 32 of byte v % 32: index bits 8..11
//
//   weight[e] = (D * (s[g] - 64)) * trellis(4096 + 32768 * seed[g] + index[e / 4], e % 4),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/trellis.hpp"

namespace quantal {

struct iq4_kt : detail::row_scaled<iq4_kt, detail::float_field> {
  static constexpr std::string_view name = "iq4_kt";
  static constexpr std::uint32_t gguf_id = 155;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 128, .group = 32, .row_meta = 4};

  struct block {
    detail::le_u32 sh[8];
    std::uint8_t ql[64];
    detail::nibble_halves<64> qh;
  };

  static constexpr int vector = 4, grid_size = 1 << 15, min_sub_scale = -64, max_sub_scale = 63;
  /// Output k of a sequence of a group with the given seed bit.
  QUANTAL_HD static constexpr int grid_value(int index, int k, int seed_bit) noexcept {
    return detail::trellis(4096u + static_cast<std::uint32_t>(index + 32768 * seed_bit), k);
  }
  QUANTAL_HD static constexpr int seed_bit(const block& b, int g) noexcept {
    return detail::bit(b.sh[g].get(), 0);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int v = e / 4, g = e / 32;
    const int high = detail::bits(b.sh[g].get(), 8 + 3 * (v % 8), 3);
    return grid_value(b.ql[v] + 256 * b.qh.get(v) + 4096 * high, e % 4, seed_bit(b, g));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::bits(b.sh[g].get(), 1, 7) - 64;
  }

  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    detail::set_bits(b.sh[g], 1, 7, v + 64);
  }
  QUANTAL_HD static constexpr void set_seed_bit(block& b, int g, int bit) noexcept {
    detail::set_bits(b.sh[g], 0, 1, bit);
  }
  /// Sequence index of the 4-group v.
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.ql[v] = static_cast<std::uint8_t>(index);
    b.qh.set(v, index >> 8 & 15);
    detail::set_bits(b.sh[v / 8], 8 + 3 * (v % 8), 3, index >> 12);
  }
};

static_assert(block_format<iq4_kt>);

}  // namespace quantal
