// q6_K: 6.5625 bits per weight. Super-blocks of 256: sixteen groups of 16 with int8 scales under one f16
// super-scale (formats.md section 5).
//
//   offset 0     u8   ql[128]      low nibbles; 64 bytes per 128 weights: low halves cover the first 64, high
//   the rest offset 128   u8   qh[64]       byte 32 * n + l: upper two bits of weights 128 * n + l, +32, +64,
//   +96 offset 192   i8   scales[16] offset 208   f16  d
//
//   weight[e] = (d * scales[h]) * (q6[e] - 32),   h = e / 16
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct q6_K : detail::super_scaled<q6_K> {
  static constexpr std::string_view name = "q6_K";
  static constexpr std::uint32_t gguf_id = 14;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 210, .group = 16};
  static constexpr int min_code = -32, max_code = 31;

  struct block {
    std::uint8_t ql[128];
    std::uint8_t qh[64];
    std::int8_t scales[16];
    detail::half_bits d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int j = e % 128 / 32;
    return detail::nib(b.ql[low_byte(e)], j / 2) +
           16 * detail::bits(b.qh[32 * (e / 128) + e % 32], 2 * j, 2) - 32;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales[g]; }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    const int j = e % 128 / 32;
    detail::set_bits(b.ql[low_byte(e)], 4 * (j / 2), 4, (code + 32) & 15);
    detail::set_bits(b.qh[32 * (e / 128) + e % 32], 2 * j, 2, (code + 32) >> 4);
  }
  /// All 256 codes, in order.
  QUANTAL_HD static void set_codes(block& b, const std::int8_t* code) noexcept {
    std::uint8_t low[128], high[64];
    for (int i = 0; i < 128; ++i) {
      const std::int8_t* c = code + 128 * (i / 64) + i % 64;
      low[i] = static_cast<std::uint8_t>((c[0] & 15) | (c[64] & 15) << 4);
    }
    for (int i = 0; i < 64; ++i) {
      const std::int8_t* c = code + 128 * (i / 32) + i % 32;
      const auto bits = [](int v) { return (v + 32) >> 4; };
      high[i] =
          static_cast<std::uint8_t>(bits(c[0]) | bits(c[32]) << 2 | bits(c[64]) << 4 | bits(c[96]) << 6);
    }
    __builtin_memcpy(b.ql, low, sizeof low);
    __builtin_memcpy(b.qh, high, sizeof high);
  }

  static constexpr int min_sub_scale = -128, max_sub_scale = 127;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales[g] = static_cast<std::int8_t>(v);
  }

 private:
  QUANTAL_HD static constexpr int low_byte(int e) noexcept {
    return 64 * (e / 128) + 32 * (e % 128 / 32 % 2) + e % 32;
  }
};

static_assert(block_format<q6_K>);

}  // namespace quantal
