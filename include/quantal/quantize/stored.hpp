// Scales as blocks can store them, and other small roundings.
#pragma once

#include <cmath>

#include "quantal/config.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal::quantize {

/// A scale as the block can store it: rounded to binary16 and never beyond its largest value.
QUANTAL_INLINE float stored_half(float v) noexcept {
  const float clamped = v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v;
  return quantal::detail::half_to_float(quantal::detail::float_to_half(clamped));
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
