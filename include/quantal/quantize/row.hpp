// A row as the encoders see it, and the weights of its error.
#pragma once

#include <cmath>
#include <cstdint>

#include "quantal/config.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/quantize/lanes.hpp"
#include "quantal/quantize/policy.hpp"
#include "quantal/status.hpp"

namespace quantal::quantize {

/// Largest |weight| that quantizers take: squares must stay finite in float32 sums over a block.
inline constexpr float largest_weight = 1e15f;

/// A power of two that brings a row's largest weight near to 1, where it is so far from it that squares would
/// leave the range of float32; else 1. For formats whose scales have that range. Rows of less than 2^-100
/// stay as they are, and become zeros: their scales would be subnormal, which a host may have switched off.
QUANTAL_INLINE float unit_of(float largest) noexcept {
  const int exponent = static_cast<int>(quantal::detail::bits_from_float(largest) >> 23) - 127;
  if (exponent < -100 || (exponent > -60 && exponent < 46)) return 1.0f;
  const int shift = exponent > 126 ? -126 : -exponent;
  return quantal::detail::float_from_bits(static_cast<std::uint32_t>(shift + 127) << 23);
}

struct row_view {
  const float* x;
  const float* importance;  ///< null: every column counts the same
  std::int64_t cols;
  float largest_importance = 0.0f;
  float mean_square = 0.0f;  ///< of x; needed where the policy weighs by magnitude
  float largest = 0.0f;      ///< |x|
  float unit = 1.0f;         ///< encoders see x times this; they take it out of what they store
  float rounding = 0.0f;     ///< of weights that were stored as bf16 or f16: see half_ulp()
};

/// How far the rounding to bf16 or f16 may have moved a weight. `rounding`: half of the last place of 1, 0 of float32, whose
/// places are too small to matter.
QUANTAL_INLINE float half_ulp(float x, float rounding) noexcept {
  return quantal::detail::float_from_bits(quantal::detail::bits_from_float(x) & 0x7f800000u) * rounding;
}

/// Weights i .. i + n of a row, clamped, and their error weights with a mean of 1, so that no sum under- or
/// overflows. Returns the importance per column that a mean of 1 stands for. Columns without importance keep
/// a trace of it: they are rounded sensibly wherever that costs the others nothing.
template <class F, int n>
QUANTAL_INLINE float load_block(const row_view& row, std::int64_t i, const quantize_policy& p, float* x,
                                float* w) noexcept {
  for (int e = 0; e < n; ++e) {
    const float v = row.x[i + e] * row.unit;
    x[e] = v < -largest_weight ? -largest_weight : v > largest_weight ? largest_weight : v;
    w[e] = row.importance ? row.importance[i + e] : 1.0f;
  }
  if (p.magnitude > 0.0f)
    for (int e = 0; e < n; ++e)
      w[e] *= std::sqrt(mul(row.mean_square, row.unit * row.unit) + mul(x[e], x[e]));
  // Sixteen sums in units of 2^16, added up in one order: they cannot overflow, and what underflows counts as
  // nothing anyway.
  constexpr float unit = 65536.0f;
  using batch = lanes<F>;
  constexpr int width = static_cast<int>(batch::size), registers = lane_count / width;
  batch part[std::size_t{registers}];
  for (int r = 0; r < registers; ++r) part[r] = batch(0.0f);
  for (int e = 0; e < n; e += lane_count)
    for (int r = 0; r < registers; ++r)
      part[r] += batch::load_unaligned(w + e + r * width) * batch(1.0f / unit);
  alignas(64) float sums[lane_count];
  for (int r = 0; r < registers; ++r) part[r].store_aligned(sums + r * width);
  for (int l = 0; l < 8; ++l) sums[l] += sums[l + 8];
  for (int l = 0; l < 4; ++l) sums[l] += sums[l + 4];
  const float sum = (sums[0] + sums[2]) + (sums[1] + sums[3]);
  if (!(sum > 1e-30f / unit * n)) {
    for (int e = 0; e < n; ++e) w[e] = 1.0f;
    return 0.0f;
  }
  const float scale = n / sum * (1.0f / unit);
  for (int e = 0; e < n; e += width)
    (batch::load_unaligned(w + e) * batch(scale) + batch(1e-6f)).store_unaligned(w + e);
  return sum * (unit / n);
}

/// Finite and non-negative importances, whose largest is found on the way. Bits of floats are ordered like
/// integers; those of negative ones lie above all others.
QUANTAL_INLINE status check_importance(row_view& row) noexcept {
  if (!row.importance) return status::ok;
  std::uint32_t most = 0;
  for (std::int64_t i = 0; i < row.cols; ++i) {
    const std::uint32_t v = quantal::detail::bits_from_float(row.importance[i] + 0.0f);  // -0 becomes 0
    most = v > most ? v : most;
  }
  if (most >= 0x7f800000u) return status::bad_importance;
  row.largest_importance = quantal::detail::float_from_bits(most);
  return status::ok;
}

/// Finite weights, whose largest magnitude is found on the way, and the 16-bit type that holds all of them.
QUANTAL_INLINE status check_weights(row_view& row) noexcept {
  std::uint32_t most = 0, used = 0;
  for (std::int64_t i = 0; i < row.cols; ++i) {
    const std::uint32_t v = quantal::detail::bits_from_float(row.x[i]) & 0x7fffffffu;
    most = v > most ? v : most;
    used |= v;
  }
  row.rounding = (used & 0xffffu) == 0 ? 0x1p-8f : (used & 0x1fffu) == 0 ? 0x1p-11f : 0.0f;
  row.largest = quantal::detail::float_from_bits(most);
  return most >= 0x7f800000u ? status::not_finite : status::ok;
}

}  // namespace quantal::quantize
