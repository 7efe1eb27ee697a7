// iq1_bn: 1.625 bits per weight and an f16 scale per row. Ternary, five digits to a byte (formats.md section
// 11).
//
//   row metadata: f16 D
//   offset 0    u8  ql[12]   three bytes per run of 16: its first 15 weights, the lowest in digit 4
//   offset 12   u8  extra    the last weight of run u in digit 4 - u; digit 0 is zero
//
//   weight[e] = D * (trit - 1)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/trits.hpp"

namespace quantal {

struct iq1_bn : detail::row_scale_field<detail::half_bits> {
  static constexpr std::string_view name = "iq1_bn";
  static constexpr std::uint32_t gguf_id = 134;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 13, .group = 64, .row_meta = 2};
  static constexpr int min_code = -1, max_code = 1;

  struct block {
    detail::trit_byte ql[12];
    detail::trit_byte extra;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int u = e / 16, r = e % 16;
    return (r < 15 ? b.ql[3 * u + r / 5].get(4 - r % 5) : b.extra.get(4 - u)) - 1;
  }
  QUANTAL_HD static constexpr float scale(const block&, float row_scale, int) noexcept { return row_scale; }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    const int u = e / 16, r = e % 16;
    if (r < 15)
      b.ql[3 * u + r / 5].set(4 - r % 5, code + 1);
    else
      b.extra.set(4 - u, code + 1);
  }
  /// All 64 codes: of each 16 weights a mask of the positive and one of the negative ones.
  QUANTAL_HD static constexpr void set_masks(block& b, const std::uint32_t* positive,
                                             const std::uint32_t* negative) noexcept {
    std::uint32_t up = 0, down = 1 << 4;
    for (int u = 0; u < 4; ++u) {
      for (int k = 0; k < 3; ++k)
        b.ql[3 * u + k] = detail::trit_byte::of(positive[u] >> (5 * k) & 31, negative[u] >> (5 * k) & 31);
      up |= (positive[u] >> 15 & 1) << u;
      down |= (negative[u] >> 15 & 1) << u;
    }
    b.extra = detail::trit_byte::of(up, down);
  }
};

static_assert(block_format<iq1_bn>);

}  // namespace quantal
