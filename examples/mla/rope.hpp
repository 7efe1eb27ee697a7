// Rotary embedding with YaRN scaling, adjacent pairs (mla.md section 3.1).
#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "config.hpp"

namespace quantal::mla {

class rope_table {
 public:
  rope_table(const config& c, std::int64_t positions) : pairs_(c.rope / 2) {
    std::vector<double> frequency(static_cast<std::size_t>(pairs_));
    const auto& y = c.scaling;
    const auto correction = [&](double beta) {
      return static_cast<double>(c.rope) * std::log(y.original_context / (2 * std::numbers::pi * beta)) /
             (2 * std::log(c.rope_base));
    };
    const double low = std::max(0.0, std::floor(correction(y.beta_fast)));
    const double high = std::min(static_cast<double>(c.rope - 1), std::ceil(correction(y.beta_slow)));
    for (std::int64_t i = 0; i < pairs_; ++i) {
      const double ramp =
          1 - std::clamp((static_cast<double>(i) - low) / std::max(0.001, high - low), 0.0, 1.0);
      const double keep = ramp * y.ext_factor;
      frequency[static_cast<std::size_t>(i)] =
          std::pow(c.rope_base, -2.0 * static_cast<double>(i) / static_cast<double>(c.rope)) *
          ((1 - keep) / y.factor + keep);
    }
    for (std::int64_t p = 0; p < positions; ++p)
      for (const double f : frequency) {
        table_.push_back(static_cast<float>(std::cos(static_cast<double>(p) * f)));
        table_.push_back(static_cast<float>(std::sin(static_cast<double>(p) * f)));
      }
  }

  /// Rotates the pairs of x for a position, in place or into `out`.
  void rotate(const float* x, std::int64_t position, float* out) const noexcept {
    const float* t = table_.data() + position * pairs_ * 2;
    for (std::int64_t i = 0; i < pairs_; ++i) {
      const float a = x[2 * i], b = x[2 * i + 1], cos = t[2 * i], sin = t[2 * i + 1];
      out[2 * i] = a * cos - b * sin;
      out[2 * i + 1] = a * sin + b * cos;
    }
  }

 private:
  std::int64_t pairs_;
  std::vector<float> table_;
};

}  // namespace quantal::mla
