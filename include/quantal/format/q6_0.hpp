// q6_0: 6.5 bits per weight. Symmetric 6-bit codes, one f16 scale per 32 weights (formats.md section 4).
//
//   offset 0    f16  d
//   offset 2    u8   qh[8]    byte i: upper two bits of weights i, i+16, i+8, i+24 (from bit 0 up)
//   offset 10   u8   qs[16]   low nibbles: weights 0..15, high nibbles: weights 16..31
//
//   weight[e] = d * (nibble(e) + 16 * high(e) - 32)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q6_0 {
  static constexpr std::string_view name = "q6_0";
  static constexpr std::uint32_t gguf_id = 133;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 26, .group = 32};
  static constexpr int min_code = -32, max_code = 31;

  struct block {
    detail::half_bits d;
    std::uint8_t qh[8];
    std::uint8_t qs[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[e % 16], e / 16) + 16 * detail::bits(b.qh[e % 8], high_shift(e), 2) - 32;
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e % 16], 4 * (e / 16), 4, (code + 32) & 15);
    detail::set_bits(b.qh[e % 8], high_shift(e), 2, (code + 32) >> 4);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }

 private:
  QUANTAL_HD static constexpr int high_shift(int e) noexcept { return 4 * (e % 16 / 8) + 2 * (e / 16); }
};

static_assert(block_format<q6_0>);

}  // namespace quantal
