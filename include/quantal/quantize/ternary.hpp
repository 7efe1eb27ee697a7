// Ternary formats: weights become -d, 0 or d, with d per block (tq1_0, tq2_0) or per row (iq1_bn, iq2_bn).
//
// For given d the best codes are 0 below d / 2 and the sign above, so the weights that are not 0 are the
// largest ones in magnitude. With S the set of them, d = sum w |x| / sum w over S removes (sum w |x|)^2 / sum
// w of the error. Weights are counted in classes of magnitude, 64 to the octave, and every class boundary is
// tried as the threshold: linear time, the optimum up to the width of a class. Rows, which have thousands of
// weights to one d, do with less unless the policy is exact: the best of some thresholds on a part of the
// row, then codes and d in turn on all of it, each of which only improves.
#pragma once

#include <algorithm>
#include <limits>

#include "quantal/quantize/codebook.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/quantize/stored.hpp"
#include "quantal/simd/unroll.hpp"

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
      weight_[c] += mul(mass, w[i]);
      sum_[c] += mul(mass * w[i], std::fabs(x[i]));
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

namespace detail {

/// sum w (x - d q)^2 of the ternary codes at d.
inline double ternary_error(const float* x, const float* w, int n, float d) noexcept {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    const float a = std::fabs(x[i]), e = a > d * 0.5f ? a - d : a;
    sum += mul(static_cast<double>(w[i]) * e, e);
  }
  return sum;
}

/// d as a half; where halves are coarse the better one of its neighbours, or 0.
inline float ternary_half(const float* x, const float* w, int n, float d) noexcept {
  if (!(d < coarse_half)) return stored_half(d);
  const float up = half_units(d) * smallest_half, down = up - smallest_half;
  double least = ternary_error(x, w, n, 1e30f);
  float best = 0;
  for (const float v : {down, up})
    if (const double e = ternary_error(x, w, n, v); v > 0.0f && e < least) least = e, best = v;
  return best;
}

}  // namespace detail

template <ternary_by_block F>
void encode_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  constexpr int n = F::layout.elements;
  auto* blocks = row_blocks<F>(out);
  for (std::int64_t b = 0; b < row.cols / n; ++b) {
    alignas(64) float x[std::size_t{n}], w[std::size_t{n}];
    load_block<F, n>(row, b * n, p, x, w);
    detail::magnitude_classes<F> classes(detail::largest_magnitude<F>(x, n));
    classes.template add<n>(x, w, 1.0);
    blocks[b] = typename F::block{};
    const float d = detail::ternary_half(x, w, n, classes.best_scale());
    F::set_scale(blocks[b], d);
    detail::store_ternary<F>(x, d, blocks[b]);
  }
}

namespace detail {

/// sum w and sum w |x| over |x| > threshold.
struct tail_sums {
  float w = 0.0f, wx = 0.0f;
  QUANTAL_INLINE float gain() const noexcept { return w > 0.0f ? wx / w * wx : 0.0f; }
  QUANTAL_INLINE float scale() const noexcept { return w > 0.0f ? wx / w : 0.0f; }
};

/// The weights of a row and their importances relative to the largest, in which sums cannot overflow.
template <class F>
class ternary_row {
  using batch = lanes<F>;
  static constexpr int width = static_cast<int>(batch::size);

 public:
  explicit ternary_row(const row_view& row) noexcept : row_(row) {
    const float most = row.largest_importance;
    weighted_ = most > 1e-30f;
    if (weighted_) unit_ = 1.0f / most;
  }

  /// Sums at `count` thresholds over every `stride`th vector of lane_count weights.
  template <int count>
  QUANTAL_INLINE void sums(const float* threshold, std::int64_t stride, tail_sums* out) const noexcept {
    alignas(64) float w[std::size_t{count}][std::size_t{lane_count}],
        wx[std::size_t{count}][std::size_t{lane_count}];
    for (int l = 0; l < lane_count; l += width) {
      batch sw[std::size_t{count}], sx[std::size_t{count}], limit[std::size_t{count}];
      simd::unroll<count>(
          [&](int t) QUANTAL_LAMBDA { sw[t] = sx[t] = batch(0.0f), limit[t] = batch(threshold[t]); });
      for (std::int64_t i = l; i < row_.cols; i += stride * lane_count) {
        const batch x = magnitude(i), importance = weight(i), product = importance * x;
        simd::unroll<count>([&](int t) QUANTAL_LAMBDA {
          const auto above = x > limit[t];
          sw[t] += xsimd::select(above, importance, batch(0.0f));
          sx[t] += xsimd::select(above, product, batch(0.0f));
        });
      }
      simd::unroll<count>(
          [&](int t) QUANTAL_LAMBDA { sw[t].store_aligned(w[t] + l), sx[t].store_aligned(wx[t] + l); });
    }
    for (int t = 0; t < count; ++t) out[t] = {sum_of_lanes(w[t]), sum_of_lanes(wx[t])};
  }

 private:
  QUANTAL_INLINE batch magnitude(std::int64_t i) const noexcept {
    return xsimd::min(xsimd::abs(batch::load_unaligned(row_.x + i)), batch(largest_weight));
  }
  QUANTAL_INLINE batch weight(std::int64_t i) const noexcept {
    return weighted_ ? batch::load_unaligned(row_.importance + i) * batch(unit_) : batch(1.0f);
  }

  const row_view& row_;
  float unit_ = 1.0f;
  bool weighted_ = false;
};

/// A good d for the row. A part of it shows which of some thresholds is near the best; the whole of it then
/// gives d for a threshold and the threshold for d, until d hardly moves: the gain is flat around its top.
template <class F>
float ternary_scale(const row_view& row) noexcept {
  const ternary_row<F> values(row);
  const std::int64_t stride = row.cols >= 1024 ? row.cols / 512 : 1;
  const float nothing = 0.0f;
  tail_sums all;
  values.template sums<1>(&nothing, stride, &all);
  // A part of the row may hold nothing where the rest does.
  if (!(all.scale() > 0.0f)) values.template sums<1>(&nothing, 1, &all);
  constexpr float parts[] = {0.25f, 0.5f, 0.77f, 1.0f, 1.5f, 2.5f, 5.0f};
  constexpr int count = 7;
  float threshold[count];
  for (int t = 0; t < count; ++t) threshold[t] = parts[t] * all.scale();
  tail_sums at[count], best = all;
  values.template sums<count>(threshold, stride, at);
  for (const auto& s : at)
    if (s.gain() > best.gain()) best = s;
  float d = best.scale();
  for (int round = 0; round < 8; ++round) {
    const float half = 0.5f * d;
    tail_sums next;
    values.template sums<1>(&half, 1, &next);
    if (!(next.gain() > 0.0f)) break;
    const float moved = std::fabs(next.scale() - d);
    d = next.scale();
    if (moved < 0.02f * d) break;
  }
  return d;
}

/// Codes of a block, not 0 beyond the threshold, from masks where the format takes them.
template <class F>
void store_ternary_block(const float* x, float threshold, typename F::block& out) noexcept {
  constexpr int n = F::layout.elements;
  using batch = lanes<F>;
  constexpr int width = static_cast<int>(batch::size);
  const batch high(threshold), low(-threshold);
  if constexpr (requires(const std::uint32_t* m) { F::set_masks(out, m, m); }) {
    std::uint32_t positive[std::size_t{n / 16}] = {}, negative[std::size_t{n / 16}] = {};
    for (int i = 0; i < n; i += width) {
      const batch v = batch::load_unaligned(x + i);
      positive[i / 16] |= static_cast<std::uint32_t>((v > high).mask()) << i % 16;
      negative[i / 16] |= static_cast<std::uint32_t>((v < low).mask()) << i % 16;
    }
    F::set_masks(out, positive, negative);
  } else {
    alignas(64) std::int32_t code[std::size_t{n}];
    for (int i = 0; i < n; i += width) {
      const batch v = batch::load_unaligned(x + i), one(1.0f), none(0.0f);
      xsimd::to_int(xsimd::select(v > high, one, none) - xsimd::select(v < low, one, none))
          .store_aligned(code + i);
    }
    F::set_codes(out, code);
  }
}

}  // namespace detail

template <ternary_by_row F>
void encode_row(const row_view& whole, const quantize_policy& p, std::byte* out) noexcept {
  constexpr int n = F::layout.elements;
  row_view row = whole;
  if constexpr (F::layout.row_meta == 4) row.unit = unit_of(row.largest);
  if (!p.searches_longer() && p.magnitude == 0.0f && row.unit == 1.0f) {
    F::set_row_scale(out, F::layout.row_meta == 2 ? stored_half(detail::ternary_scale<F>(row))
                                                  : detail::ternary_scale<F>(row));
    const float d = F::row_scale(out), threshold = d > 0.0f ? 0.5f * d : std::numeric_limits<float>::max();
    auto* blocks = row_blocks<F>(out);
    for (std::int64_t b = 0; b < row.cols / n; ++b)
      detail::store_ternary_block<F>(row.x + b * n, threshold, blocks[b]);
    return;
  }
  alignas(64) float x[std::size_t{n}], w[std::size_t{n}];
  detail::magnitude_classes<F> classes(std::min(row.largest * row.unit, largest_weight)), equal = classes;
  for (std::int64_t i = 0; i < row.cols; i += n) {
    const double mass = load_block<F, n>(row, i, p, x, w);
    if (mass > 0) classes.template add<n>(x, w, mass);
  }
  float d = classes.best_scale();
  if (!(d > 0.0f)) {  // no importance anywhere: every column counts the same
    for (std::int64_t i = 0; i < row.cols; i += n) {
      load_block<F, n>(row, i, p, x, w);
      equal.template add<n>(x, w, 1.0);
    }
    d = equal.best_scale();
  }
  F::set_row_scale(out, F::layout.row_meta == 2 ? stored_half(d) : d / row.unit);
  if (row.unit == 1.0f) d = F::row_scale(out);
  auto* blocks = row_blocks<F>(out);
  for (std::int64_t b = 0; b < row.cols / n; ++b) {
    load_block<F, n>(row, b * n, p, x, w);
    blocks[b] = typename F::block{};
    detail::store_ternary<F>(x, d, blocks[b]);
  }
}

}  // namespace quantal::quantize
