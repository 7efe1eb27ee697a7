// q8_K: activations for the 256-weight formats, 9.125 bits each, with the sums that group offsets are
// multiplied with (formats.md section 13).
//
//   offset 0     f32  d
//   offset 4     i8   qs[256]
//   offset 260   i16  sums[16]   sum of qs over each 16
//
//   value[e] = d * qs[e]
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q8_K {
  static constexpr std::string_view name = "q8_K";
  static constexpr std::uint32_t gguf_id = 15;
  static constexpr role usage = role::activation;
  static constexpr block_layout layout{.elements = 256, .bytes = 292, .group = 256};
  static constexpr int min_code = -127, max_code = 127;

  struct block {
    detail::float_field d;
    std::int8_t qs[256];
    detail::le_u16 sums[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return b.qs[e]; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  /// Sum of the codes 16 * h .. 16 * h + 15, as stored.
  QUANTAL_HD static constexpr int sum(const block& b, int h) noexcept {
    return static_cast<std::int16_t>(b.sums[h].get());
  }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    b.qs[e] = static_cast<std::int8_t>(code);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
  QUANTAL_HD static constexpr void set_sum(block& b, int h, int sum) noexcept {
    b.sums[h].set(static_cast<std::uint16_t>(sum));
  }
};

static_assert(block_format<q8_K>);

}  // namespace quantal
