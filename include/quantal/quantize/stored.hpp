// Scales as blocks can store them, and other small roundings.
#pragma once

#include <cmath>
#include <cstdint>

#include "quantal/config.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal::quantize {

/// 65504, the largest half, as a float.
inline constexpr std::uint32_t largest_half_bits = 0x477fe000u;

/// A scale as the block can store it: rounded to binary16 and never beyond its largest value. No branches:
/// loops over it become vectors.
QUANTAL_INLINE float stored_half(float v) noexcept {
  using namespace quantal::detail;
  const std::uint32_t u = bits_from_float(v), a = u & 0x7fffffffu;
  // The 13 bits that a half lacks go, ties to even.
  const std::uint32_t rounded = (a + 0xfffu + ((a >> 13) & 1u)) & ~0x1fffu;
  const std::uint32_t normal = rounded < largest_half_bits ? rounded : largest_half_bits;
  // Below 2^-14 halves are multiples of 2^-24, which is the last place of 0.5.
  const std::uint32_t count = bits_from_float(float_from_bits(a) + 0.5f) - 0x3f000000u;
  const std::uint32_t small =
      bits_from_float(static_cast<float>(static_cast<std::int32_t>(count)) * 0x1p-24f);
  const std::uint32_t magnitude = a < 0x38800000u ? small : normal;
  return float_from_bits(magnitude ? magnitude | (u & 0x80000000u) : 0u);  // no negative zero
}

/// The last place of the smallest halves. Scales of less than so many of them are coarse: rounding one may
/// cost more than a search gains, so searches look at all the neighbours.
inline constexpr float smallest_half = 1.0f / (1 << 24);
inline constexpr float coarse_half = 32 * smallest_half;

/// |v| in units of smallest_half, rounded up, at least 1; below 2^24.
QUANTAL_INLINE float half_units(float v) noexcept {
  const float units = std::fabs(v) * (1 << 24);
  const float whole = static_cast<float>(static_cast<int>(units < 16777216.0f ? units : 16777216.0f));
  return whole < 1.0f ? 1.0f : whole < units ? whole + 1.0f : whole;
}

/// The neighbour of a half in the direction of `step`, for scales that a coarser rounding moved off their
/// optimum.
QUANTAL_INLINE float half_neighbour(float v, int step) noexcept {
  const std::uint16_t h = quantal::detail::float_to_half(v);
  const std::uint16_t next = static_cast<std::uint16_t>(h + step);
  const bool beyond = (next & 0x7c00) == 0x7c00;
  return quantal::detail::half_to_float((h & 0x7fff) == 0 || beyond ? h : next);
}

/// v to the nearest integer, within [low, high].
QUANTAL_INLINE int rounded(float v, int low, int high) noexcept {
  v = v < static_cast<float>(low)    ? static_cast<float>(low)
      : v > static_cast<float>(high) ? static_cast<float>(high)
                                     : v;
  return static_cast<int>(v + (v < 0 ? -0.5f : 0.5f));
}

}  // namespace quantal::quantize
