// iq5_k: 5.5 bits per weight. 5-bit indices into one of two tables, chosen per 16 weights; signed 6-bit
// scales per 16 under one f16 per 256 (formats.md section 8).
//
//   offset 0     f16  d
//   offset 2     u16  extra         bit h: table of 16-group h
//   offset 4     u8   scales_h[4]   bits 2 * (h % 4), +1 of byte h / 4: scale bits 4, 5
//   offset 8     u8   scales_l[8]   nibble h % 2 of byte h / 2: scale bits 0..3
//   offset 16    u8   qs[128]       low four bits, as in q4_K
//   offset 144   u8   qh[32]        fifth bits, as in q5_K
//
//   weight[e] = (d * (scale6[h] - 32)) * (lut5_k[q[e]] + 2 * table[h]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq5_k : detail::super_scaled<iq5_k>, detail::tables_in_extra {
  static constexpr std::string_view name = "iq5_k";
  static constexpr std::uint32_t gguf_id = 140;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 176, .group = 16};

  struct block {
    detail::half_bits d;
    detail::le_u16 extra;
    detail::scales6x16 scales;
    detail::nibble_runs<64> qs;
    detail::bit_plane qh;
  };

  static constexpr int levels = 32;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut5_k(index) + 2 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return b.qs.get(e) + 16 * b.qh.get(e);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g); }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs.set(e, index & 15);
    b.qh.set(e, index >> 4);
  }

  static constexpr int min_sub_scale = -32, max_sub_scale = 31;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v); }
};

static_assert(block_format<iq5_k>);

}  // namespace quantal
