// iq6_k: 6.625 bits per weight. 6-bit indices into one of two tables, chosen per 16 weights; int8 scales per
// 16 under one f16 per 256 (formats.md section 8, which also says why the table and not the cubic is the
// definition).
//
//   offset 0     f16  d
//   offset 2     u16  extra        bit h: table of 16-group h
//   offset 4     i8   scales[16]
//   offset 20    u8   qs[128]      low four bits, as in q4_K
//   offset 148   u8   qh[64]       upper two bits, as in q2_K
//
//   weight[e] = (d * scales[h]) * (lut6_k[q[e]] + table[h]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq6_k : detail::super_scaled<iq6_k>, detail::tables_in_extra {
  static constexpr std::string_view name = "iq6_k";
  static constexpr std::uint32_t gguf_id = 141;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 212, .group = 16};

  struct block {
    detail::half_bits d;
    detail::le_u16 extra;
    std::int8_t scales[16];
    detail::nibble_runs<64> qs;
    detail::pair_plane qh;
  };

  static constexpr int levels = 64;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut6_k(index) + table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return b.qs.get(e) + 16 * b.qh.get(e);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales[g]; }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs.set(e, index & 15);
    b.qh.set(e, index >> 4);
  }

  static constexpr int min_sub_scale = -128, max_sub_scale = 127;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales[g] = static_cast<std::int8_t>(v);
  }
};

static_assert(block_format<iq6_k>);

}  // namespace quantal
