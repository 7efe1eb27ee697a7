// How far a model's predictions are from a reference's, over all scored positions (quantize.md section 8).
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "scoring.hpp"

namespace quantal::mla {

class divergence {
 public:
  /// `base`: reference log-probabilities; `logits`: the model's; `target`: the token that came next.
  void add(const std::vector<float>& base, const float* logits, std::int32_t target) {
    const auto n = static_cast<std::int64_t>(base.size());
    const double norm = log_sum_exp(logits, n);
    double kld = 0;
    std::int64_t best = 0, base_best = 0;
    for (std::int64_t i = 0; i < n; ++i) {
      const double p = base[static_cast<std::size_t>(i)];
      if (p > -16) kld += std::exp(p) * (p - (logits[i] - norm));
      if (logits[i] > logits[best]) best = i;
      if (base[static_cast<std::size_t>(i)] > base[static_cast<std::size_t>(base_best)]) base_best = i;
    }
    const double q_log = logits[target] - norm, p_log = base[static_cast<std::size_t>(target)];
    kld_.add(kld);
    klds_.push_back(kld);
    const double dp = std::exp(q_log) - std::exp(p_log);
    dp_.add(dp);
    dps_.push_back(dp);
    dp_squared_.add(dp * dp);
    same_top_ += best == base_best;
    nll_.add(-q_log);
    base_nll_.add(-p_log);
    product_ += q_log * p_log;
  }

  std::int64_t count() const { return kld_.count(); }
  const running_mean& kld() const { return kld_; }
  const running_mean& dp() const { return dp_; }
  const running_mean& nll() const { return nll_; }
  const running_mean& base_nll() const { return base_nll_; }
  double same_top() const { return static_cast<double>(same_top_) / static_cast<double>(count()); }
  double same_top_error() const {
    return std::sqrt(same_top() * (1 - same_top()) / std::max(1.0, static_cast<double>(count() - 1)));
  }
  double rms_dp() const { return std::sqrt(dp_.mean_square()); }
  double rms_dp_error() const { return rms_dp() > 0 ? 0.5 / rms_dp() * dp_squared_.error() : 0; }

  /// ln(PPL(Q) / PPL(base)) and its error; both chains see the same tokens, so their errors are correlated.
  double log_ratio() const { return nll_.mean() - base_nll_.mean(); }
  double log_ratio_error() const {
    return std::sqrt(std::max(
        0.0, nll_.error() * nll_.error() + base_nll_.error() * base_nll_.error() - 2 * covariance()));
  }
  double correlation() const {
    const double e = nll_.error() * base_nll_.error();
    return e > 0 ? covariance() / e : 0;
  }

  double kld_percentile(double f) { return percentile(klds_, f); }
  double dp_percentile(double f) { return percentile(dps_, f); }

 private:
  double covariance() const {
    const auto n = static_cast<double>(count());
    return n > 1 ? (product_ / n - nll_.mean() * base_nll_.mean()) / (n - 1) : 0;
  }
  /// Linear interpolation at f * (n - 1) of the sorted values.
  static double percentile(std::vector<double>& v, double f) {
    if (v.empty()) return 0;
    std::sort(v.begin(), v.end());
    const double at = f * static_cast<double>(v.size() - 1);
    const auto i = static_cast<std::size_t>(at);
    return i + 1 < v.size() ? v[i] + (at - static_cast<double>(i)) * (v[i + 1] - v[i]) : v.back();
  }

  running_mean kld_, dp_, dp_squared_, nll_, base_nll_;
  std::vector<double> klds_, dps_;
  double product_ = 0;
  std::int64_t same_top_ = 0;
};

}  // namespace quantal::mla
