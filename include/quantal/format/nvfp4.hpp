// nvfp4: 4.5 bits per weight. E2M1 elements with a UE4M3 scale per 16 (formats.md section 12).
//
//   offset 0   u8  sc[4]    UE4M3; 0x7f decodes as zero, bit 7 is zero
//   offset 4   u8  qs[32]   8 bytes per group: low nibbles its first 8 weights, high nibbles the rest
//
//   weight[e] = (ue4m3(sc[s]) / 2) * fp4_e2m1_x2[q[e]],   s = e / 16   (the table doubles the elements)
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct nvfp4 {
  static constexpr std::string_view name = "nvfp4";
  static constexpr std::uint32_t gguf_id = 40;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 36, .group = 16};
  static constexpr int min_code = -12, max_code = 12;

  struct block {
    std::uint8_t sc[4];
    detail::nibble_halves<16> qs[4];
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index) noexcept { return detail::fp4_e2m1_x2(index); }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept { return b.qs[e / 16].get(e % 16); }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return level(index(b, e)); }

  /// Half the UE4M3 value of a scale code 0..126, increasing.
  static constexpr int max_scale_code = 126;
  QUANTAL_HD static constexpr float scale_value(int code) noexcept {
    const std::uint32_t exponent = static_cast<std::uint32_t>(code >> 3 & 15);
    const std::uint32_t mantissa = static_cast<std::uint32_t>(code & 7);
    if (code == 0x7f) return 0.0f;
    if (exponent == 0) return static_cast<float>(mantissa) * (1.0f / 1024.0f);
    return detail::float_from_bits((exponent + 119) << 23 | mantissa << 20);
  }
  QUANTAL_HD static constexpr int scale_code(const block& b, int g) noexcept { return b.sc[g]; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int g) noexcept {
    return scale_value(b.sc[g]);
  }

  QUANTAL_HD static constexpr void set_index(block& b, int e, int index) noexcept {
    b.qs[e / 16].set(e % 16, index);
  }
  QUANTAL_HD static constexpr void set_scale_code(block& b, int g, int code) noexcept {
    b.sc[g] = static_cast<std::uint8_t>(code);
  }
};

static_assert(block_format<nvfp4>);

}  // namespace quantal
