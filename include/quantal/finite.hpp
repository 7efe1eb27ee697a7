// Is a number finite? Asked of its bits: std::isfinite is always true to a compiler that may assume so (-ffast-math).
#pragma once

#include <cstdint>

#include "quantal/config.hpp"

namespace quantal {

QUANTAL_HD constexpr bool is_finite(float v) noexcept {
  return (__builtin_bit_cast(std::uint32_t, v) & 0x7f800000u) != 0x7f800000u;
}
QUANTAL_HD constexpr bool is_finite(double v) noexcept {
  constexpr std::uint64_t exponent = std::uint64_t{0x7ff} << 52;
  return (__builtin_bit_cast(std::uint64_t, v) & exponent) != exponent;
}

}  // namespace quantal
