// The pseudo-random codebook of the trellis formats: a multiplicative congruential sequence (formats.md section 2.6).
#pragma once

#include <cstdint>

#include "quantal/config.hpp"

namespace quantal::detail {

/// multiplier^(k + 1) mod 2^32: output k straight from the seed. The multiplier is part of the wire format.
QUANTAL_HD constexpr std::uint32_t trellis_power(int k) noexcept {
  std::uint32_t power = 0xcbac1fedu, base = 0xcbac1fedu;
  for (int n = k; n; n >>= 1, base *= base)
    if (n & 1) power *= base;
  return power;
}

QUANTAL_TABLE std::uint32_t trellis_powers[8] = {trellis_power(0), trellis_power(1), trellis_power(2),
                                                 trellis_power(3), trellis_power(4), trellis_power(5),
                                                 trellis_power(6), trellis_power(7)};

/// Output k (0..7) of the sequence of `seed`, in -126..126.
QUANTAL_HD constexpr int trellis(std::uint32_t seed, int k) noexcept {
  // The four masked bytes sum to at most 252, so a multiplication adds them without carries between bytes.
  const std::uint32_t x = seed * trellis_powers[k] & 0x3f3f3f3fu;
  return static_cast<int>(x * 0x01010101u >> 24) - 126;
}

}  // namespace quantal::detail
