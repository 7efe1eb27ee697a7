// Eight 6-bit scales and eight 6-bit mins in 12 bytes, as q4_K and q5_K store them (formats.md section 2.4).
#pragma once

#include "quantal/format/detail/bytes.hpp"

namespace quantal::detail {

struct scale_min_k4 {
  std::uint8_t packed[12];

  QUANTAL_HD constexpr int scale(int g) const noexcept {
    return g < 4 ? bits(packed[g], 0, 6) : nib(packed[g + 4], 0) + 16 * bits(packed[g - 4], 6, 2);
  }
  QUANTAL_HD constexpr int min(int g) const noexcept {
    return g < 4 ? bits(packed[g + 4], 0, 6) : nib(packed[g + 4], 1) + 16 * bits(packed[g], 6, 2);
  }

  QUANTAL_HD constexpr void set_scale(int g, int v) noexcept {
    if (g < 4) return set_bits(packed[g], 0, 6, v);
    set_bits(packed[g + 4], 0, 4, v);
    set_bits(packed[g - 4], 6, 2, v >> 4);
  }
  QUANTAL_HD constexpr void set_min(int g, int v) noexcept {
    if (g < 4) return set_bits(packed[g + 4], 0, 6, v);
    set_bits(packed[g + 4], 4, 4, v);
    set_bits(packed[g], 6, 2, v >> 4);
  }
};

}  // namespace quantal::detail
