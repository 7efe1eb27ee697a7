// Five ternary digits per byte as a fixed-point fraction (formats.md section 2.5).
#pragma once

#include "quantal/format/detail/bytes.hpp"

namespace quantal::detail {

/// Sums of powers of three: bit i of the index counts 3^i.
inline constexpr auto sums_of_powers_of_3 = [] {
  struct {
    std::uint8_t at[32];
  } t{};
  for (int m = 0; m < 32; ++m)
    for (int i = 0, power = 1; i < 5; ++i, power *= 3)
      t.at[m] = static_cast<std::uint8_t>(t.at[m] + (m >> i & 1) * power);
  return t;
}();

/// Digits 0, 1, 2 at positions 0 (weight 81) to 4 (weight 1).
struct trit_byte {
  std::uint8_t code;

  QUANTAL_HD constexpr int get(int p) const noexcept {
    constexpr std::uint64_t powers = 1 | 3 << 8 | 9 << 16 | 27 << 24 | 81ull << 32;
    const unsigned fraction = code * static_cast<unsigned>(powers >> (8 * p) & 255u) & 255u;
    return static_cast<int>(3 * fraction >> 8);
  }
  /// The canonical code of digits that are 1, one more where `up` has a bit and one less where `down` has:
  /// bit i for position 4 - i.
  QUANTAL_HD static constexpr trit_byte of(std::uint32_t up, std::uint32_t down) noexcept {
    const int n = 121 + sums_of_powers_of_3.at[up] - sums_of_powers_of_3.at[down];
    return {static_cast<std::uint8_t>((256 * n + 242) / 243)};
  }
  /// Writes the canonical code of the five digits with digit p replaced.
  QUANTAL_HD constexpr void set(int p, int digit) noexcept {
    int n = 0;
    for (int i = 0; i < 5; ++i) n = 3 * n + (i == p ? digit : get(i));
    code = static_cast<std::uint8_t>((256 * n + 242) / 243);
  }
};

}  // namespace quantal::detail
