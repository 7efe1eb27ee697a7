// iq4_nl: 4.5 bits per weight. 4-bit indices into a non-linear table, one f16 scale per 32 (formats.md section 6).
//
//   offset 0   f16  d
//   offset 2   u8   qs[16]   low nibbles: weights 0..15, high nibbles: weights 16..31
//
//   weight[e] = d * lut4_nl[nibble(e)]
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq4_nl {
  static constexpr std::string_view name = "iq4_nl";
  static constexpr std::uint32_t gguf_id = 20;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 18, .group = 32};

  struct block {
    detail::half_bits d;
    std::uint8_t qs[16];
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index) noexcept { return detail::lut4_nl(index); }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return detail::nib(b.qs[e % 16], e / 16);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return level(index(b, e)); }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    detail::set_bits(b.qs[e % 16], 4 * (e / 16), 4, index);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<iq4_nl>);

}  // namespace quantal
