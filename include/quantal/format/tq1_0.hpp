// tq1_0: 1.6875 bits per weight. Ternary, five digits to a byte, one f16 scale per 256 (formats.md section
// 11).
//
//   offset 0    u8   qs[48]   32 bytes: weights 0..159, digit e / 32 of byte e % 32 (weight 81 first);
//                             16 bytes: weights 160..239, digit (e - 160) / 16 of byte 32 + e % 16
//   offset 48   u8   qh[4]    weights 240..255, digit (e - 240) / 4 of byte e % 4; the last digit is zero
//   offset 52   f16  d
//
//   weight[e] = d * (trit - 1)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/trits.hpp"

namespace quantal {

struct tq1_0 {
  static constexpr std::string_view name = "tq1_0";
  static constexpr std::uint32_t gguf_id = 34;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 54, .group = 256};
  static constexpr int min_code = -1, max_code = 1;

  struct block {
    detail::trit_byte qs[48];
    detail::trit_byte qh[4];
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    if (e < 160) return b.qs[e % 32].get(e / 32) - 1;
    if (e < 240) return b.qs[32 + e % 16].get((e - 160) / 16) - 1;
    return b.qh[e % 4].get((e - 240) / 4) - 1;
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    if (e < 160)
      b.qs[e % 32].set(e / 32, code + 1);
    else if (e < 240)
      b.qs[32 + e % 16].set((e - 160) / 16, code + 1);
    else
      b.qh[e % 4].set((e - 240) / 4, code + 1);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<tq1_0>);

}  // namespace quantal
