// iq2_bn: 2 bits per weight and a float32 scale per row. Ternary; code 3 (+2) decodes but is never written
// (formats.md section 11).
//
//   row metadata: f32 D
//   offset 0   u8  qs[16]   bits 2k, 2k+1 of byte j: weight 16 * k + j
//
//   weight[e] = D * (q[e] - 1)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct iq2_bn : detail::row_scale_field<detail::float_field> {
  static constexpr std::string_view name = "iq2_bn";
  static constexpr std::uint32_t gguf_id = 135;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 16, .group = 64, .row_meta = 4};
  static constexpr int min_code = -1, max_code = 1;

  struct block {
    std::uint8_t qs[16];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::bits(b.qs[e % 16], 2 * (e / 16), 2) - 1;
  }
  QUANTAL_HD static constexpr float scale(const block&, float row_scale, int) noexcept { return row_scale; }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e % 16], 2 * (e / 16), 2, code + 1);
  }
  /// All 64 codes, in order.
  template <class T>
  QUANTAL_HD static constexpr void set_codes(block& b, const T* code) noexcept {
    for (int i = 0; i < 16; ++i)
      b.qs[i] =
          static_cast<std::uint8_t>(code[i] + 4 * code[i + 16] + 16 * code[i + 32] + 64 * code[i + 48] + 85);
  }
};

static_assert(block_format<iq2_bn>);

}  // namespace quantal
