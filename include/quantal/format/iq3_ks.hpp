// iq3_ks: 3.1875 bits per weight and an f16 scale per row. 3-bit indices into one of two tables, chosen per
// 32 weights; signed 5-bit scales per 32 (formats.md section 9). The halves of `extra` are swapped against
// iq2_ks.
//
//   row metadata: f16 D
//   offset 0    u16  extra       bit g: scale bit 4 of 32-group g, bit 8 + g: its table
//   offset 2    u8   scales[4]   nibble g / 4 of byte g % 4: scale bits 0..3
//   offset 6    u8   qs[64]      low two bits, as in q2_K
//   offset 70   u8   qh[32]      third bits, as in q3_K
//
//   weight[e] = (D * (scale5[g] - 16)) * (lut3_k[q[e]] + 4 * table[g]),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq3_ks : detail::row_scaled<iq3_ks, detail::half_bits> {
  static constexpr std::string_view name = "iq3_ks";
  static constexpr std::uint32_t gguf_id = 156;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 102, .group = 32, .row_meta = 2};
  static constexpr int min_code = -63, max_code = 51;

  struct block {
    detail::le_u16 extra;
    detail::nibble_halves<8> scales;
    detail::pair_plane qs;
    detail::bit_plane qh;
  };

  static constexpr int levels = 8;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut3_k(index) + 4 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return b.qs.get(e) + 4 * b.qh.get(e);
  }
  QUANTAL_HD static constexpr int table(const block& b, int g) noexcept {
    return detail::bit(b.extra.get(), 8 + g);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return b.scales.get(g) + 16 * detail::bit(b.extra.get(), g) - 16;
  }

  static constexpr int min_sub_scale = -16, max_sub_scale = 15;
  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs.set(e, index & 3);
    b.qh.set(e, index >> 2);
  }
  QUANTAL_HD static constexpr void set_table(block& b, int g, int bit) noexcept {
    detail::set_bits(b.extra, 8 + g, 1, bit);
  }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales.set(g, (v + 16) & 15);
    detail::set_bits(b.extra, g, 1, (v + 16) >> 4);
  }
};

static_assert(block_format<iq3_ks>);

}  // namespace quantal
