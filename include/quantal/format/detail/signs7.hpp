// Sign bytes stored as 7 bits: the eighth sign is the parity of the others (formats.md section 2.1).
#pragma once

#include <cstdint>

#include "quantal/config.hpp"

namespace quantal::detail {

/// Sign byte of the 7-bit index i; the number of set bits is always even.
QUANTAL_HD constexpr std::uint8_t signs7(int i) noexcept {
  int p = i ^ (i >> 4);
  p ^= p >> 2;
  p ^= p >> 1;
  return static_cast<std::uint8_t>(i | (p & 1) << 7);
}

}  // namespace quantal::detail
