// q2_0: 2.25 bits per weight. Levels -1, 0, 1, 2 with one f16 scale per 64 (formats.md section 11).
//
//   offset 0   f16  d
//   offset 2   u8   qs[16]   bits 2 * (e % 4), +1 of byte e / 4
//
//   weight[e] = d * (q[e] - 1)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q2_0 {
  static constexpr std::string_view name = "q2_0";
  static constexpr std::uint32_t gguf_id = 42;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 18, .group = 64};
  static constexpr int min_code = -1, max_code = 2;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::bits(b.qs[e / 4], 2 * (e % 4), 2) - 1;
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e / 4], 2 * (e % 4), 2, code + 1);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<q2_0>);

}  // namespace quantal
