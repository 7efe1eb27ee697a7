// iq4_ks: 4.25 bits per weight and a float32 scale per row. 4-bit indices into one of two tables, chosen per
// 32 weights; odd 7-bit scales per 32 (formats.md section 9).
//
//   row metadata: f32 D
//   offset 0   u8   scales[8]   bit 0 table, bits 1..7 scale of 32-group g
//   offset 8   u8   qs[128]     16 bytes per group: low nibbles its first 16 weights, high nibbles the rest
//
//   weight[e] = (D * (2 * scale7[g] - 127)) * (lut4_nl[q[e]] + 4 * table[g]),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq4_ks : detail::row_scaled<iq4_ks, detail::float_field> {
  static constexpr std::string_view name = "iq4_ks";
  static constexpr std::uint32_t gguf_id = 144;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 136, .group = 32, .row_meta = 4};

  struct block {
    detail::odd_scale scales[8];
    detail::nibble_runs<32> qs;
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut4_nl(index) + 4 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept { return b.qs.get(e); }
  QUANTAL_HD static constexpr int table(const block& b, int g) noexcept { return b.scales[g].table(); }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales[g].scale(); }

  static constexpr int min_sub_scale = -127, max_sub_scale = 127, sub_scale_step = 2;
  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept { b.qs.set(e, index); }
  QUANTAL_HD static constexpr void set_table(block& b, int g, int bit) noexcept {
    b.scales[g].set_table(bit);
  }
  /// v is odd.
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales[g].set_scale(v);
  }
};

static_assert(block_format<iq4_ks>);

}  // namespace quantal
