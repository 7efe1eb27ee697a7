// Scales as blocks can store them, and other small roundings.
#pragma once

#include <cmath>

#include "quantal/config.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal::quantize {

/// A scale as the block can store it: rounded to binary16 and never beyond its largest value. No branches:
/// loops over it become vectors.
QUANTAL_INLINE float stored_half(float v) noexcept {
  const float clamped = v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v;
  // The last place of a half is 2^-10 of its power of two, and never below 2^-24. Adding 1.5 * 2^23 of it
  // rounds to nearest even.
  const float power =
      quantal::detail::float_from_bits(quantal::detail::bits_from_float(clamped) & 0x7f800000u);
  const float normal = power * 12288.0f, magic = normal < 0.75f ? 0.75f : normal;
  return (clamped + magic) - magic;
}

/// The neighbour of a half in the direction of `step`, for scales that a coarser rounding moved off their
/// optimum.
QUANTAL_INLINE float half_neighbour(float v, int step) noexcept {
  const std::uint16_t h = quantal::detail::float_to_half(v);
  const std::uint16_t next = static_cast<std::uint16_t>(h + step);
  const float f = quantal::detail::half_to_float(next);
  return (h & 0x7fff) == 0 || !std::isfinite(f) ? quantal::detail::half_to_float(h) : f;
}

/// v to the nearest integer, within [low, high].
QUANTAL_INLINE int rounded(float v, int low, int high) noexcept {
  v = v < static_cast<float>(low)    ? static_cast<float>(low)
      : v > static_cast<float>(high) ? static_cast<float>(high)
                                     : v;
  return static_cast<int>(v + (v < 0 ? -0.5f : 0.5f));
}

}  // namespace quantal::quantize
