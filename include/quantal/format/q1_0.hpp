// q1_0: 1.125 bits per weight. Signs with one f16 scale per 128 (formats.md section 11).
//
//   offset 0   f16  d
//   offset 2   u8   qs[16]   bit e % 8 of byte e / 8
//
//   weight[e] = d * (2 * bit - 1)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q1_0 {
  static constexpr std::string_view name = "q1_0";
  static constexpr std::uint32_t gguf_id = 41;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 128, .bytes = 18, .group = 128};
  static constexpr int min_code = -1, max_code = 1;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[16];
  };

  static constexpr int levels = 2;
  QUANTAL_HD static constexpr int level(int index) noexcept { return 2 * index - 1; }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return detail::bit(b.qs[e / 8], e % 8);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return level(index(b, e)); }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    detail::set_bits(b.qs[e / 8], e % 8, 1, index);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<q1_0>);

}  // namespace quantal
