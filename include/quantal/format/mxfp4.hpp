// mxfp4: 4.25 bits per weight. E2M1 elements with a power of two (E8M0) per 32 (formats.md section 12).
//
//   offset 0   u8  x        exponent; 255 is not a valid value
//   offset 1   u8  qs[16]   low nibbles: weights 0..15, high nibbles: weights 16..31
//
//   weight[e] = 2^(x - 128) * fp4_e2m1_x2[q[e]]   (the table doubles the elements)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct mxfp4 {
  static constexpr std::string_view name = "mxfp4";
  static constexpr std::uint32_t gguf_id = 39;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 17, .group = 32};
  static constexpr int min_code = -12, max_code = 12;

  struct block {
    std::uint8_t x;
    detail::nibble_halves<32> qs;
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index) noexcept { return detail::fp4_e2m1_x2(index); }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept { return b.qs.get(e); }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return level(index(b, e)); }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept {
    // 2^-128 and 2^-127 are subnormal: their single bit sits in the mantissa.
    const std::uint32_t x = b.x;
    return detail::float_from_bits(x < 2 ? 0x00200000u << x : (x - 1) << 23);
  }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept { b.qs.set(e, index); }
  /// All indices: those of weights i and i + 16 in the nibbles of byte i.
  QUANTAL_HD static void set_index_bytes(block& b, const std::uint8_t* v) noexcept { b.qs.set_bytes(v); }
  /// Scale 2^(exponent - 128).
  static constexpr int max_exponent = 254;
  QUANTAL_HD static constexpr int exponent(const block& b) noexcept { return b.x; }
  QUANTAL_HD static constexpr void set_exponent(block& b, int exponent) noexcept {
    b.x = static_cast<std::uint8_t>(exponent);
  }
};

static_assert(block_format<mxfp4>);

}  // namespace quantal
