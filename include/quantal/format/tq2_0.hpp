// tq2_0: 2.0625 bits per weight. Ternary, one f16 scale per 256; code 3 (+2) decodes but is never written
// (formats.md section 11).
//
//   offset 0    u8   qs[64]   as in q2_K
//   offset 64   f16  d
//
//   weight[e] = d * (q[e] - 1)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct tq2_0 {
  static constexpr std::string_view name = "tq2_0";
  static constexpr std::uint32_t gguf_id = 35;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 66, .group = 256};
  static constexpr int min_code = -1, max_code = 1;

  struct block {
    detail::pair_plane qs;
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return b.qs.get(e) - 1; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept { b.qs.set(e, code + 1); }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<tq2_0>);

}  // namespace quantal
