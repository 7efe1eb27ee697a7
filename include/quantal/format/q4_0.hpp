// q4_0: 4.5 bits per weight. Symmetric 4-bit codes, one f16 scale per 32 weights (formats.md section 4).
//
//   offset 0   f16  d
//   offset 2   u8   qs[16]   low nibbles: weights 0..15, high nibbles: weights 16..31
//
//   weight[e] = d * (nibble(e) - 8)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q4_0 {
  static constexpr std::string_view name = "q4_0";
  static constexpr std::uint32_t gguf_id = 2;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 18, .group = 32};
  static constexpr int min_code = -8, max_code = 7;

  struct block {
    detail::half_bits d;
    std::uint8_t qs[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[e % 16], e / 16) - 8;
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e % 16], 4 * (e / 16), 4, code + 8);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<q4_0>);

}  // namespace quantal
