// Small code tables (formats.md section 2.3), readable on host and device. The values are the published
// constants of the formats; a table is part of the wire format and cannot be derived.
#pragma once

#include <cstdint>

#include "quantal/config.hpp"

namespace quantal::detail {

/// Sixteen int8 values in two registers. A namespace-scope array indexed at run time has no device copy, a
/// function-local one costs a stack table; two constants and a shift do neither.
struct table16 {
  std::uint64_t low = 0, high = 0;

  QUANTAL_HD static constexpr table16 of(const int (&v)[16]) noexcept {
    table16 t;
    for (int i = 0; i < 8; ++i) {
      t.low |= static_cast<std::uint64_t>(static_cast<std::uint8_t>(v[i])) << (8 * i);
      t.high |= static_cast<std::uint64_t>(static_cast<std::uint8_t>(v[i + 8])) << (8 * i);
    }
    return t;
  }
  QUANTAL_HD constexpr int operator[](int i) const noexcept {
    return static_cast<std::int8_t>((i < 8 ? low : high) >> (8 * (i & 7)));
  }
};

/// Levels of iq4_nl and iq4_xs, and the scale map of iq1_kt and iq2_kt.
QUANTAL_HD constexpr int lut4_nl(int i) noexcept {
  constexpr table16 t = table16::of({-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113});
  return t[i];
}

}  // namespace quantal::detail
