// q8_0: 8.5 bits per weight. Signed bytes with one f16 scale per 32 weights (formats.md section 4).
//
//   offset 0   f16  d
//   offset 2   i8   qs[32]
//
//   weight[e] = d * qs[e]
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q8_0 {
  static constexpr std::string_view name = "q8_0";
  static constexpr std::uint32_t gguf_id = 8;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 34, .group = 32};
  static constexpr int min_code = -127, max_code = 127;

  struct block {
    detail::half_bits d;
    std::int8_t qs[32];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return b.qs[e]; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    b.qs[e] = static_cast<std::int8_t>(code);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<q8_0>);

}  // namespace quantal
