// q4_K: 4.5 bits per weight. Super-blocks of 256: eight groups of 32, each with a 6-bit scale and a 6-bit min
// under two f16 super-scales (formats.md sections 5 and 2.4).
//
//   offset 0    f16  d
//   offset 2    f16  dmin
//   offset 4    u8   scales[12]   packed 6-bit pairs
//   offset 16   u8   qs[128]      32 bytes per 64 weights: low nibbles the first 32, high nibbles the next 32
//
//   weight[e] = (d * sc[g]) * q[e] - (dmin * mn[g]),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scale_min_k4.hpp"
#include "quantal/format/detail/scales.hpp"

namespace quantal {

struct q4_K : detail::super_scaled<q4_K> {
  static constexpr std::string_view name = "q4_K";
  static constexpr std::uint32_t gguf_id = 12;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 144, .group = 32, .has_offset = true};
  static constexpr int min_code = 0, max_code = 15;

  struct block {
    detail::half_bits d, dmin;
    detail::scale_min_k4 scales;
    std::uint8_t qs[128];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[32 * (e / 64) + e % 32], e / 32 % 2);
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales.scale(g); }
  QUANTAL_HD static constexpr int sub_min(const block& b, int g) noexcept { return b.scales.min(g); }
  QUANTAL_HD static constexpr float offset(const block& b, float, int g) noexcept {
    return -(b.dmin.get() * static_cast<float>(sub_min(b, g)));
  }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[32 * (e / 64) + e % 32], 4 * (e / 32 % 2), 4, code);
  }

  // Super-block parameters, as the quantizers see them.
  static constexpr int max_sub_scale = 63, max_sub_min = 63;
  static constexpr float super_min(const block& b) noexcept { return b.dmin.get(); }
  QUANTAL_HD static constexpr void set_super_min(block& b, float d) noexcept { b.dmin.set(d); }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales.set_scale(g, v);
  }
  QUANTAL_HD static constexpr void set_sub_min(block& b, int g, int v) noexcept { b.scales.set_min(g, v); }
};

static_assert(block_format<q4_K>);

}  // namespace quantal
