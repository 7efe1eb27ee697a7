// Ternary formats: weights become -d, 0 or d, with d per block (tq1_0, tq2_0) or per row (iq1_bn, iq2_bn).
//
// For given d the best codes are 0 below d / 2 and the sign above, so the weights that are not 0 are the
// largest ones in magnitude. With S the set of them, d = sum w |x| / sum w over S removes (sum w |x|)^2 / sum
// w of the error. Weights are counted in classes of magnitude, 64 to the octave, and every class boundary is
// tried as the threshold: linear time, the optimum up to the width of a class.
#pragma once

#include <algorithm>

#include "quantal/quantize/codebook.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/quantize/stored.hpp"

namespace quantal::quantize {

template <class F>
concept ternary_codes = block_format<F> && uniform_codes<F> && F::min_code == -1 && F::max_code == 1;
template <class F>
concept ternary_by_block = ternary_codes<F> && F::layout.row_meta == 0;
template <class F>
concept ternary_by_row = ternary_codes<F> && F::layout.row_meta > 0;

namespace detail {

/// Sums of w and w |x| by magnitude, from `largest` downwards; everything below 2^-8 of it falls in the last
/// class.
template <class F>
class magnitude_classes {
 public:
  explicit magnitude_classes(float largest) noexcept : top_(bits(largest)) {}

  template <int n>
  void add(const float* x, const float* w, double mass) noexcept {
    for (int i = 0; i < n; ++i) {
      const int c = std::min(top_ - bits(std::fabs(x[i])), count - 1);
      weight_[c] += mass * w[i];
      sum_[c] += mass * w[i] * std::fabs(x[i]);
    }
  }
  /// The best d; 0 if there is no weight at all.
  float best_scale() const noexcept {
    double w = 0, s = 0, gain = 0, scale = 0;
    for (int c = 0; c < count; ++c) {
      w += weight_[c], s += sum_[c];
      if (w > 0 && s * s > gain * w) gain = s * s / w, scale = s / w;
    }
    return static_cast<float>(scale);
  }

 private:
  static constexpr int count = 512;
  static int bits(float v) noexcept { return static_cast<int>(quantal::detail::bits_from_float(v) >> 17); }
  int top_;
  double weight_[count] = {}, sum_[count] = {};
};

template <class F>
float largest_magnitude(const float* x, std::int64_t n) noexcept {
  float largest = 0;
  for (std::int64_t i = 0; i < n; ++i) largest = std::fabs(x[i]) > largest ? std::fabs(x[i]) : largest;
  return std::min(largest, largest_weight);
}

template <class F>
void store_ternary(const float* x, float d, typename F::block& out) noexcept {
  const float threshold = d * 0.5f;
  for (int i = 0; i < F::layout.elements; ++i)
    F::set_code(out, i, d > 0.0f ? (x[i] > threshold) - (x[i] < -threshold) : 0);
}

}  // namespace detail

template <ternary_by_block F>
void encode_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  constexpr int n = F::layout.elements;
  auto* blocks = row_blocks<F>(out);
  for (std::int64_t b = 0; b < row.cols / n; ++b) {
    alignas(64) float x[n], w[n];
    load_block<n>(row, b * n, p, x, w);
    detail::magnitude_classes<F> classes(detail::largest_magnitude<F>(x, n));
    classes.template add<n>(x, w, 1.0);
    blocks[b] = typename F::block{};
    const float d = stored_half(classes.best_scale());
    F::set_scale(blocks[b], d);
    detail::store_ternary<F>(x, d, blocks[b]);
  }
}

template <ternary_by_row F>
void encode_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  constexpr int n = F::layout.elements;
  alignas(64) float x[n], w[n];
  detail::magnitude_classes<F> classes(detail::largest_magnitude<F>(row.x, row.cols)), equal = classes;
  for (std::int64_t i = 0; i < row.cols; i += n) {
    const double mass = load_block<n>(row, i, p, x, w);
    if (mass > 0) classes.template add<n>(x, w, mass);
  }
  float d = classes.best_scale();
  if (!(d > 0.0f)) {  // no importance anywhere: every column counts the same
    for (std::int64_t i = 0; i < row.cols; i += n) {
      load_block<n>(row, i, p, x, w);
      equal.template add<n>(x, w, 1.0);
    }
    d = equal.best_scale();
  }
  F::set_row_scale(out, F::layout.row_meta == 2 ? stored_half(d) : d);
  d = F::row_scale(out);
  auto* blocks = row_blocks<F>(out);
  for (std::int64_t b = 0; b < row.cols / n; ++b) {
    load_block<n>(row, b * n, p, x, w);
    blocks[b] = typename F::block{};
    detail::store_ternary<F>(x, d, blocks[b]);
  }
}

}  // namespace quantal::quantize
