// The mean of a row's errors.
//
// Weights of a lattice (int4, FP4, ternary) equal each other in great numbers, and a tenth or more of them
// are exactly zero. What rounding does to one of them it does to all: their errors add up, and inputs with a
// mean meet the sum. In such rows, choices that cost about the same are made so that the sum of the row's
// errors stays near zero. The sum runs along the row and belongs to it: neither threads nor archs nor other
// rows change it.
#pragma once

#include <array>

#include "quantal/quantize/row.hpp"

namespace quantal::quantize {

/// The sum of decoded - source over the row so far. Not active: choices do not look at it.
struct error_balance {
  /// The square of the mean of the inputs, in units of their variance, that a choice reckons with.
  static constexpr float square_of_mean = 0.01f;

  /// A choice may have so many times the least error, and so much of the group's squares on top.
  static constexpr float worse = 4.0f, rounding = 1e-6f;

  bool active = false;
  float sum = 0.0f;

  /// The largest error that may be chosen where `least` is possible. Of both the part `left_out` of the sum
  /// of squares, `norm`, is missing.
  QUANTAL_INLINE static float limit(float least, float left_out, float norm) noexcept {
    return mul(worse, least) + mul(worse - 1.0f, left_out) + mul(rounding, norm);
  }

  /// What errors that add up to `bias` cost the row, next to the sum of their squares.
  QUANTAL_INLINE float cost(float bias) const noexcept {
    return mul(square_of_mean * bias, mul(2.0f, sum) + bias);
  }
};

/// What choices of a block need to know of its row.
struct row_state {
  error_balance balance;
  bool on_lattice = false;  ///< its weights may be levels of the format
  float rounding = 0.0f;    ///< of the row
};

/// Subnormals are not, whatever a host makes of them.
QUANTAL_INLINE bool is_zero(float x) noexcept {
  return (quantal::detail::bits_from_float(x) & 0x7fffffffu) == 0;
}

/// Active if one weight in 64 is exactly zero, which no dense row of trained weights reaches.
QUANTAL_INLINE error_balance balance_of(const row_view& row) noexcept {
  constexpr std::int64_t side = 16;  // counters side by side
  std::int32_t count[side] = {};
  const std::int64_t whole = row.cols - row.cols % side;
  for (std::int64_t i = 0; i < whole; i += side)
    for (std::int64_t k = 0; k < side; ++k) count[k] += is_zero(row.x[i + k]);
  std::int64_t zeros = 0;
  for (const auto n : count) zeros += n;
  for (std::int64_t i = whole; i < row.cols; ++i) zeros += is_zero(row.x[i]);
  return {zeros * 64 >= row.cols && zeros > 0, 0.0f};
}

/// True where a weight is so near to zero that its sign costs nothing: `magnitude` is what it becomes.
QUANTAL_INLINE bool is_signless(float x, float magnitude) noexcept {
  return std::fabs(x) * 4096.0f < magnitude;
}

/// n times 1: products with it are sums.
template <int n>
struct ones {
  alignas(64) static constexpr auto at = [] {
    std::array<float, std::size_t{n}> a{};
    for (auto& v : a) v = 1.0f;
    return a;
  }();
};

}  // namespace quantal::quantize
