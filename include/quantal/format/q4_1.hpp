// q4_1: 5 bits per weight. 4-bit codes with an f16 scale and an f16 offset per 32 weights (formats.md section 4).
//
//   offset 0   f16  d
//   offset 2   f16  m
//   offset 4   u8   qs[16]   low nibbles: weights 0..15, high nibbles: weights 16..31
//
//   weight[e] = d * nibble(e) + m
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q4_1 {
  static constexpr std::string_view name = "q4_1";
  static constexpr std::uint32_t gguf_id = 3;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 20, .group = 32, .has_offset = true};
  static constexpr int min_code = 0, max_code = 15;

  struct block {
    detail::half_bits d, m;
    std::uint8_t qs[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[e % 16], e / 16);
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  QUANTAL_HD static constexpr float offset(const block& b, float, int) noexcept { return b.m.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e % 16], 4 * (e / 16), 4, code);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
  QUANTAL_HD static constexpr void set_offset(block& b, float m) noexcept { b.m.set(m); }
};

static_assert(block_format<q4_1>);

}  // namespace quantal
