// Log-probabilities of a logit row, and the running perplexity.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace quantal::mla {

/// ln sum exp(logit), accumulated in float64 with the maximum taken out.
inline double log_sum_exp(const float* logits, std::int64_t n) {
  const double top = *std::max_element(logits, logits + n);
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += std::exp(static_cast<double>(logits[i]) - top);
  return top + std::log(sum);
}

/// Mean and its standard error.
class running_mean {
 public:
  void add(double v) { sum_ += v, squares_ += v * v, ++n_; }
  std::int64_t count() const { return n_; }
  double mean() const { return n_ ? sum_ / static_cast<double>(n_) : 0; }
  double error() const {
    if (n_ < 2) return 0;
    const double variance = squares_ / static_cast<double>(n_) - mean() * mean();
    return variance > 0 ? std::sqrt(variance / static_cast<double>(n_ - 1)) : 0;
  }
  double mean_square() const { return n_ ? squares_ / static_cast<double>(n_) : 0; }

 private:
  double sum_ = 0, squares_ = 0;
  std::int64_t n_ = 0;
};

/// First scored position of a chunk: predictions of the second half count.
inline std::int64_t first_scored(std::int64_t chunk) { return chunk / 2; }

}  // namespace quantal::mla
