// How far a quantized row is from its source, in float64.
#pragma once

#include <cstdint>

namespace quantal {

/// Sums of squared error and of squared weights, weighted by importance and plain. Add rows up, then divide.
struct quantization_error {
  double weighted = 0, weighted_norm = 0;
  double plain = 0, plain_norm = 0;

  /// `importance`: null counts every column the same.
  void add(const float* original, const float* decoded, const float* importance, std::int64_t cols) noexcept {
    for (std::int64_t i = 0; i < cols; ++i) {
      const double w = importance ? importance[i] : 1.0, x = original[i], e = x - decoded[i];
      weighted += w * e * e, weighted_norm += w * x * x;
      plain += e * e, plain_norm += x * x;
    }
  }
  quantization_error& operator+=(const quantization_error& o) noexcept {
    weighted += o.weighted, weighted_norm += o.weighted_norm;
    plain += o.plain, plain_norm += o.plain_norm;
    return *this;
  }
  /// Normalised mean squared errors; 0 for an all-zero source that stayed zero.
  double nmse_weighted() const noexcept { return weighted_norm > 0 ? weighted / weighted_norm : weighted; }
  double nmse_plain() const noexcept { return plain_norm > 0 ? plain / plain_norm : plain; }
};

}  // namespace quantal
