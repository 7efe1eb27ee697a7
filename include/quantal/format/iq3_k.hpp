// iq3_k: 3.4375 bits per weight. 3-bit indices into one of two tables, chosen per 16 weights; odd scales in
// -31..31 (sign and 4-bit magnitude) per 16 under one f16 per 256 (formats.md section 8).
//
//   offset 0    f16  d
//   offset 2    u16  extra         bit h: table of 16-group h
//   offset 4    u16  scales_h      bit h: scale of 16-group h is negative
//   offset 6    u8   scales_l[8]   nibble h % 2 of byte h / 2: m of the scale magnitude 2m + 1
//   offset 14   u8   qs[64]        low two bits, as in q2_K
//   offset 78   u8   qh[32]        third bits, as in q3_K
//
//   weight[e] = (d * scale[h]) * (lut3_k[q[e]] + 4 * table[h]),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq3_k : detail::super_scaled<iq3_k>, detail::tables_in_extra {
  static constexpr std::string_view name = "iq3_k";
  static constexpr std::uint32_t gguf_id = 138;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 110, .group = 16};
  static constexpr int min_code = -63, max_code = 51;

  struct block {
    detail::half_bits d;
    detail::le_u16 extra;
    detail::le_u16 scales_h;
    detail::nibble_list<16> scales_l;
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
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    const int magnitude = 2 * b.scales_l.get(g) + 1;
    return detail::bit(b.scales_h.get(), g) ? -magnitude : magnitude;
  }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs.set(e, index & 3);
    b.qh.set(e, index >> 2);
  }

  static constexpr int min_sub_scale = -31, max_sub_scale = 31, sub_scale_step = 2;
  /// v is odd.
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales_l.set(g, (v < 0 ? -v : v) / 2);
    detail::set_bits(b.scales_h, g, 1, v < 0);
  }
};

static_assert(block_format<iq3_k>);

}  // namespace quantal
