// iq2_k: 2.375 bits per weight. 2-bit indices into one of two tables, chosen per 16 weights; signed 4-bit
// scales per 16 under one f16 per 256 (formats.md section 8).
//
//   offset 0    f16  d
//   offset 2    u16  extra       bit h: table of 16-group h
//   offset 4    u8   scales[8]   nibble h % 2 of byte h / 2
//   offset 12   u8   qs[64]      as in q2_K
//
//   weight[e] = (d * (scale4[h] - 8)) * (lut2_k[q[e]] + 5 * table[h]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq2_k : detail::super_scaled<iq2_k>, detail::tables_in_extra {
  static constexpr std::string_view name = "iq2_k";
  static constexpr std::uint32_t gguf_id = 137;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 76, .group = 16};
  static constexpr int min_code = -31, max_code = 22;

  struct block {
    detail::half_bits d;
    detail::le_u16 extra;
    detail::nibble_list<16> scales;
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
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.get(g) - 8; }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept { b.qs.set(e, index); }

  static constexpr int min_sub_scale = -8, max_sub_scale = 7;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept { b.scales.set(g, v + 8); }
};

static_assert(block_format<iq2_k>);

}  // namespace quantal
