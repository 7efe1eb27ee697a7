// What a quantized tensor lost, measured against its source: the numbers behind gates and GoogleTest
// assertions.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <span>

#include "quantal/finite.hpp"
#include "quantal/quantize/error.hpp"

namespace quantal::testing {

/// Sums over pairs of original and decoded weights. Add rows or chunks up, then ask.
struct accuracy {
  quantization_error error;
  double product = 0, decoded_norm = 0;
  double max_error = 0;     ///< largest |original - decoded|; infinite if a decoded weight is NaN or infinite
  std::int64_t worst = -1;  ///< its index among all weights added
  std::int64_t count = 0;

  /// `importance`: null, or one weight per column.
  void add(const float* original, const float* decoded, const float* importance, std::int64_t cols) noexcept {
    error.add(original, decoded, importance, cols);
    for (std::int64_t i = 0; i < cols; ++i) {
      const double x = original[i], y = decoded[i];
      product += x * y, decoded_norm += y * y;
      const double e = is_finite(y) ? std::fabs(x - y) : std::numeric_limits<double>::infinity();
      if (e > max_error) max_error = e, worst = count + i;
    }
    count += cols;
  }
  accuracy& operator+=(const accuracy& o) noexcept {
    error += o.error;
    product += o.product, decoded_norm += o.decoded_norm;
    if (o.max_error > max_error) max_error = o.max_error, worst = count + o.worst;
    count += o.count;
    return *this;
  }

  double nmse() const noexcept { return error.nmse_plain(); }
  double nmse_weighted() const noexcept { return error.nmse_weighted(); }
  /// Cosine of the angle between both; 1 for two zero vectors, 0 if one is.
  double cosine() const noexcept {
    const double norms = std::sqrt(error.plain_norm) * std::sqrt(decoded_norm);
    if (norms == 0) return error.plain_norm == decoded_norm ? 1 : 0;
    return product / norms;
  }
};

/// Of two sequences of the same length; `importance`: empty, or one weight per column of rows that all have
/// its length.
inline accuracy compare(std::span<const float> original, std::span<const float> decoded,
                        std::span<const float> importance = {}) noexcept {
  accuracy a;
  const std::size_t cols = importance.empty() ? original.size() : importance.size();
  for (std::size_t at = 0; at < original.size(); at += cols)
    a.add(original.data() + at, decoded.data() + at, importance.empty() ? nullptr : importance.data(),
          static_cast<std::int64_t>(cols));
  return a;
}

}  // namespace quantal::testing
