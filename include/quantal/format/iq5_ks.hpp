// iq5_ks: 5.25 bits per weight and a float32 scale per row. 5-bit indices into one of two tables, chosen per
// 32 weights; odd 7-bit scales per 32 (formats.md section 9).
//
//   row metadata: f32 D
//   offset 0     u8   scales[8]   bit 0 table, bits 1..7 scale of 32-group g
//   offset 8     u8   qs[128]     low four bits, as in q4_K
//   offset 136   u8   qh[32]      fifth bits, as in q5_K
//
//   weight[e] = (D * (2 * scale7[g] - 127)) * (lut5_k[q[e]] + 2 * table[g]),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq5_ks : detail::row_scaled<iq5_ks, detail::float_field> {
  static constexpr std::string_view name = "iq5_ks";
  static constexpr std::uint32_t gguf_id = 152;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 168, .group = 32, .row_meta = 4};

  struct block {
    detail::odd_scale scales[8];
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
  QUANTAL_HD static constexpr int table(const block& b, int g) noexcept { return b.scales[g].table(); }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales[g].scale(); }

  static constexpr int min_sub_scale = -127, max_sub_scale = 127, sub_scale_step = 2;
  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs.set(e, index & 15);
    b.qh.set(e, index >> 4);
  }
  QUANTAL_HD static constexpr void set_table(block& b, int g, int bit) noexcept {
    b.scales[g].set_table(bit);
  }
  /// v is odd.
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales[g].set_scale(v);
  }
};

static_assert(block_format<iq5_ks>);

}  // namespace quantal
