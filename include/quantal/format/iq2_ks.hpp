// iq2_ks: 2.1875 bits per weight and an f16 scale per row. 2-bit indices into one of two tables, chosen per
// 32 weights; signed 5-bit scales per 32 (formats.md section 9).
//
//   row metadata: f16 D
//   offset 0   u16  extra       bit g: table of 32-group g, bit 8 + g: its scale bit 4
//   offset 2   u8   scales[4]   nibble g % 2 of byte g / 2: scale bits 0..3
//   offset 6   u8   qs[64]      as in q2_K
//
//   weight[e] = (D * (scale5[g] - 16)) * (lut2_k[q[e]] + 5 * table[g]),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq2_ks : detail::row_scaled<iq2_ks, detail::half_bits>, detail::tables_in_extra {
  static constexpr std::string_view name = "iq2_ks";
  static constexpr std::uint32_t gguf_id = 145;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 70, .group = 32, .row_meta = 2};
  static constexpr int min_code = -31, max_code = 22;

  struct block {
    detail::le_u16 extra;
    detail::nibble_list<8> scales;
    detail::pair_plane qs;
  };

  static constexpr int levels = 4;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut2_k(index) + 5 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept { return b.qs.get(e); }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return b.scales.get(g) + 16 * detail::bit(b.extra.get(), 8 + g) - 16;
  }

  static constexpr int min_sub_scale = -16, max_sub_scale = 15;
  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept { b.qs.set(e, index); }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales.set(g, (v + 16) & 15);
    detail::set_bits(b.extra, 8 + g, 1, (v + 16) >> 4);
  }
};

static_assert(block_format<iq2_ks>);

}  // namespace quantal
