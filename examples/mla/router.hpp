// Which experts a token goes to, and with which weights (mla.md section 5).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <vector>

#include "config.hpp"

namespace quantal::mla {

/// Scratch-holding router of one block. Ties go to the lower expert number.
class router {
 public:
  explicit router(const config& c)
      : c_(c), p_(static_cast<std::size_t>(c.experts)), sel_(p_.size()), order_(p_.size()) {}

  /// logits[experts], bias[experts] or empty -> ids[used], weights[used], best first.
  void route(const float* logits, const std::vector<float>& bias, std::int32_t* ids, float* weights) {
    probabilities(logits);
    for (std::size_t e = 0; e < p_.size(); ++e) sel_[e] = p_[e] + (bias.empty() ? 0.0f : bias[e]);
    if (c_.groups > 1) keep_best_groups();
    std::iota(order_.begin(), order_.end(), 0);
    const auto better = [&](std::int32_t a, std::int32_t b) {
      const float x = sel_[static_cast<std::size_t>(a)], y = sel_[static_cast<std::size_t>(b)];
      return x != y ? x > y : a < b;
    };
    std::partial_sort(order_.begin(), order_.begin() + c_.experts_used, order_.end(), better);
    for (std::int64_t j = 0; j < c_.experts_used; ++j) {
      ids[j] = order_[static_cast<std::size_t>(j)];
      weights[j] = p_[static_cast<std::size_t>(ids[j])];
    }
    scale_weights(weights);
  }

 private:
  static void softmax(float* v, std::int64_t n) {
    const float top = *std::max_element(v, v + n);
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += v[i] = std::exp(v[i] - top);
    for (std::int64_t i = 0; i < n; ++i) v[i] = static_cast<float>(v[i] / sum);
  }

  void probabilities(const float* logits) {
    std::copy_n(logits, p_.size(), p_.begin());
    if (c_.gate == gating::softmax) softmax(p_.data(), c_.experts);
    if (c_.gate == gating::sigmoid)
      for (float& v : p_) v = 1.0f / (1.0f + std::exp(-v));
  }

  /// A group counts by its two best experts under sigmoid gating (V3), by its best one otherwise (V2).
  void keep_best_groups() {
    const std::int64_t size = c_.experts / c_.groups;
    std::vector<std::pair<float, std::int64_t>> score;
    for (std::int64_t g = 0; g < c_.groups; ++g) {
      float first = -std::numeric_limits<float>::infinity(), second = first;
      for (std::int64_t e = g * size; e < (g + 1) * size; ++e) {
        const float v = sel_[static_cast<std::size_t>(e)];
        if (v > first)
          second = first, first = v;
        else if (v > second)
          second = v;
      }
      score.emplace_back(c_.gate == gating::sigmoid && size > 1 ? first + second : first, g);
    }
    std::sort(score.begin(), score.end(),
              [](auto a, auto b) { return a.first != b.first ? a.first > b.first : a.second < b.second; });
    for (std::size_t i = static_cast<std::size_t>(c_.groups_used); i < score.size(); ++i)
      for (std::int64_t e = score[i].second * size; e < (score[i].second + 1) * size; ++e)
        sel_[static_cast<std::size_t>(e)] = -std::numeric_limits<float>::infinity();
  }

  void scale_weights(float* w) const {
    if (c_.gate == gating::softmax_selected) softmax(w, c_.experts_used);
    if (c_.normalise_weights) {
      float sum = 0;
      for (std::int64_t j = 0; j < c_.experts_used; ++j) sum += w[j];
      sum = std::max(sum, 6.103515625e-05f);  // 2^-14
      for (std::int64_t j = 0; j < c_.experts_used; ++j) w[j] /= sum;
    }
    for (std::int64_t j = 0; j < c_.experts_used; ++j) w[j] *= static_cast<float>(c_.weights_scale);
  }

  const config& c_;
  std::vector<float> p_, sel_;
  std::vector<std::int32_t> order_;
};

}  // namespace quantal::mla
