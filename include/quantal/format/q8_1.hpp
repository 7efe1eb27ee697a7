// q8_1: activations for the 32-weight formats, 9 bits each: q8_0 plus the scaled sum that an offset format
// (q4_1, q5_1) multiplies its offset with (formats.md section 13).
//
//   offset 0   f16  d
//   offset 2   f16  s        d * sum of qs
//   offset 4   i8   qs[32]
//
//   value[e] = d * qs[e]
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q8_1 {
  static constexpr std::string_view name = "q8_1";
  static constexpr std::uint32_t gguf_id = 9;
  static constexpr role usage = role::activation;
  static constexpr block_layout layout{.elements = 32, .bytes = 36, .group = 32};
  static constexpr int min_code = -127, max_code = 127;

  struct block {
    detail::half_bits d;
    detail::half_bits s;
    std::int8_t qs[32];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return b.qs[e]; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  QUANTAL_HD static constexpr float sum(const block& b) noexcept { return b.s.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    b.qs[e] = static_cast<std::int8_t>(code);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
  QUANTAL_HD static constexpr void set_sum(block& b, float s) noexcept { b.s.set(s); }
};

static_assert(block_format<q8_1>);

}  // namespace quantal
