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
  constexpr table16 t =
      table16::of({-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113});
  return t[i];
}

/// Base levels of iq2_k and iq2_ks; the table bit adds 5.
QUANTAL_HD constexpr int lut2_k(int i) noexcept {
  constexpr table16 t = table16::of({-31, -13, 1, 17});
  return t[i];
}
/// Base levels of iq3_k and iq3_ks; the table bit adds 4.
QUANTAL_HD constexpr int lut3_k(int i) noexcept {
  constexpr table16 t = table16::of({-63, -40, -23, -10, 1, 13, 28, 47});
  return t[i];
}

QUANTAL_TABLE std::int8_t lut5_k_levels[32] = {-126, -114, -103, -92, -83, -74, -65, -57, -50, -43, -36,
                                               -30,  -24,  -18,  -12, -6,  -1,  5,   11,  17,  23,  29,
                                               36,   43,   51,   59,  68,  77,  87,  97,  109, 121};
/// Base levels of iq5_k and iq5_ks; the table bit adds 2.
QUANTAL_HD constexpr int lut5_k(int i) noexcept { return lut5_k_levels[i]; }

QUANTAL_TABLE std::int8_t lut6_k_levels[64] = {
    -127, -121, -115, -109, -104, -98, -93, -88, -84, -79, -74, -70, -66, -62, -58, -54,
    -51,  -47,  -44,  -40,  -37,  -34, -31, -28, -25, -22, -19, -16, -13, -11, -8,  -5,
    -2,   0,    3,    6,    9,    12,  14,  17,  20,  23,  27,  30,  33,  36,  40,  44,
    47,   51,   55,   59,   63,   68,  72,  77,  82,  87,  92,  98,  103, 109, 115, 121};
/// Base levels of iq6_k; the table bit adds 1.
QUANTAL_HD constexpr int lut6_k(int i) noexcept { return lut6_k_levels[i]; }

/// Twice the E2M1 values. Index 8 is the integer 0: these formats have no negative zero.
QUANTAL_HD constexpr int fp4_e2m1_x2(int i) noexcept {
  constexpr table16 t = table16::of({0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12});
  return t[i];
}

// Pairs of lut3_k indices, three bits each, the first in the lowest bits.
QUANTAL_TABLE std::uint8_t pairs2_kl_entries[32] = {16, 40, 1,  25, 41, 57, 10, 18, 34, 42, 50,
                                                    3,  35, 43, 59, 20, 28, 36, 44, 52, 13, 21,
                                                    29, 37, 45, 6,  22, 38, 54, 62, 23, 47};
/// Component k (0 or 1) of pair i of iq2_kl.
QUANTAL_HD constexpr int pairs2_kl(int i, int k) noexcept {
  return lut3_k(pairs2_kl_entries[i] >> (3 * k) & 7);
}

}  // namespace quantal::detail
