// A row as the encoders see it, and the weights of its error.
#pragma once

#include <cmath>
#include <cstdint>

#include "quantal/config.hpp"
#include "quantal/quantize/policy.hpp"
#include "quantal/status.hpp"

namespace quantal::quantize {

/// Largest |weight| that quantizers take: squares must stay finite in float32 sums over a block.
inline constexpr float largest_weight = 1e15f;

struct row_view {
  const float* x;
  const float* importance;  ///< null: every column counts the same
  std::int64_t cols;
  float mean_square = 0.0f;  ///< of x; needed where the policy weighs by magnitude
};

/// Weights i .. i + n of a row, clamped, and their error weights with a mean of 1, so that no sum under- or
/// overflows. Returns the importance per column that a mean of 1 stands for. Columns without importance keep
/// a trace of it: they are rounded sensibly wherever that costs the others nothing.
template <int n>
QUANTAL_INLINE float load_block(const row_view& row, std::int64_t i, const quantize_policy& p, float* x,
                                float* w) noexcept {
  for (int e = 0; e < n; ++e) {
    const float v = row.x[i + e];
    x[e] = v < -largest_weight ? -largest_weight : v > largest_weight ? largest_weight : v;
    w[e] = row.importance ? row.importance[i + e] : 1.0f;
  }
  if (p.magnitude > 0.0f)
    for (int e = 0; e < n; ++e) w[e] *= std::sqrt(row.mean_square + x[e] * x[e]);
  double sums[8] = {};
  for (int e = 0; e < n; ++e) sums[e % 8] += w[e];
  double sum = 0;
  for (const double s : sums) sum += s;
  if (!(sum > 1e-30 * n)) {
    for (int e = 0; e < n; ++e) w[e] = 1.0f;
    return 0.0f;
  }
  const double scale = n / sum;
  for (int e = 0; e < n; ++e) w[e] = static_cast<float>(w[e] * scale) + 1e-6f;
  return static_cast<float>(sum / n);
}

/// Finite weights, finite and non-negative importances.
QUANTAL_INLINE status check_row(const float* x, const float* importance, std::int64_t cols) noexcept {
  constexpr float largest = 3.402823466e38f;
  int bad = 0;
  for (std::int64_t i = 0; i < cols; ++i) bad |= !(std::fabs(x[i]) <= largest);
  if (bad) return status::not_finite;
  if (importance)
    for (std::int64_t i = 0; i < cols; ++i) bad |= !(importance[i] >= 0.0f && importance[i] <= largest);
  return bad ? status::bad_importance : status::ok;
}

}  // namespace quantal::quantize
