// One scale for a group and a fixed code table: x[i] ~ d * level(q[i]).
//
// For given codes the best scale is d = sum(w x q) / sum(w q q), and the error removed is F = sum(w x q)^2 /
// sum(w q q); the search maximises F over code assignments. Codes only change where some x[i] / d crosses a
// midpoint, so enumerating those crossings in order finds the optimum (techniques: exact breakpoint search).
#pragma once

#include <algorithm>
#include <cmath>

#include "quantal/quantize/balance.hpp"
#include "quantal/quantize/group_coder.hpp"
#include "quantal/quantize/lattice.hpp"
#include "quantal/quantize/policy.hpp"
#include "quantal/quantize/stored.hpp"

namespace quantal::quantize {

/// sum w (x - d level(nearest(x / d)))^2 of the codes that a decoder with scale d would be given.
template <class C>
inline float error_at(const float* x, const float* w, int n, float d) noexcept {
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    const float e = x[i] - d * static_cast<float>(C::level(C::nearest(x[i] * inverse)));
    sum += w[i] * e * e;
  }
  return sum;
}

/// A scale and the error that it removes.
struct scale_fit {
  float scale = 0.0f, gain = 0.0f;
};

/// Candidates of one kind lie around the scale that maps the largest weight to the end of the table: factors
/// of its inverse. Above 1 the largest weight is clipped.
template <class Coder, int count>
QUANTAL_INLINE float candidate_factor(int k) noexcept {
  constexpr float low = Coder::levels > 128 ? 0.90f : 0.72f, high = Coder::levels > 128 ? 1.02f : 1.22f;
  return low + (high - low) / (count - 1) * static_cast<float>(k);
}

/// The scale, or negative of a scale, of least error and cost to the row.
template <class F, int K>
float balanced_scale(const group_view& g, const float* scale, const float* error,
                     error_balance& balance) noexcept {
  using coder = group_coder<F>;
  alignas(64) float inverse[std::size_t{K}], mirrored[std::size_t{K}], loss[std::size_t{K}];
  alignas(64) float sum[std::size_t{K}], unused[std::size_t{K}];
  const group_view plain{g.x, g.w, ones<coder::size>::at.data()};
  float total = 0, norm = 0;
  for (int i = 0; i < coder::size; ++i) total += g.x[i], norm += g.wx[i] * g.x[i];
  const float limit = error_balance::limit(error[smallest<F, K>(error)], 0.0f, norm);
  float best = 0, bias = 0, least = std::numeric_limits<float>::max();
  for (const float sign : {1.0f, -1.0f}) {
    for (int k = 0; k < K; ++k) mirrored[k] = sign * scale[k], inverse[k] = safe_inverse(mirrored[k]);
    if (sign > 0.0f)
      std::copy_n(error, K, loss);
    else
      coder::template errors<K>(g, mirrored, inverse, loss);
    coder::template sums<K>(plain, inverse, inverse, sum, unused);
    for (int k = 0; k < K; ++k) {
      const float b = mul(mirrored[k], sum[k]) - total, cost = loss[k] + balance.cost(b);
      if (loss[k] <= limit && cost < least) least = cost, best = mirrored[k], bias = b;
    }
  }
  balance.sum += bias;
  return best;
}

/// Candidates around the scales that map the largest |x| to either end of the table; then the scales that
/// suit their codes best, as `stored` rounds them.
///
/// A balance that is active chooses among these and their negatives, whose errors add up otherwise.
template <class F, class Stored>
float search_scale_fast(const group_view& g, Stored&& stored, float hint = 0.0f,
                        error_balance* balance = nullptr) noexcept {
  using coder = group_coder<F>;
  constexpr bool symmetric = coder::lowest == -coder::highest;
  constexpr int total = (symmetric || coder::lowest == 0 || coder::highest == 0 ? 1 : 2) * lane_count;
  const float extreme = extreme_of<F, coder::size>(g.x);
  if (std::fabs(extreme) < 1e-30f) return 0.0f;
  alignas(64) float inverse[std::size_t{total}], scale[std::size_t{total}], xq[std::size_t{total}],
      qq[std::size_t{total}];
  for (int k = 0; k < total; ++k)
    inverse[k] = (k < lane_count && coder::highest != 0 ? coder::highest : coder::lowest) / extreme *
                 candidate_factor<coder, lane_count>(k % lane_count);
  coder::template sums<total>(g, inverse, inverse, xq, qq);
  using batch = lanes<F>;
  for (int k = 0; k < total; k += static_cast<int>(batch::size)) {
    const batch q = batch::load_aligned(qq + k);
    const auto any = q > batch(0.0f);
    const batch d = batch::load_aligned(xq + k) / xsimd::select(any, q, batch(1.0f));
    stored(xsimd::select(any, d, batch(0.0f))).store_aligned(scale + k);
  }
  if (hint != 0.0f)
    for (int k = 0; k < 3; ++k) scale[k] = k ? half_neighbour(stored(hint), k == 1 ? 1 : -1) : stored(hint);
  for (int k = 0; k < total; ++k) inverse[k] = safe_inverse(scale[k]);
  float* error = xq;
  coder::template errors<total>(g, scale, inverse, error);
  const int best = smallest<F, total>(error);
  if (!balance || !balance->active) return scale[best];
  return balanced_scale<F, total>(g, scale, error, *balance);
}

/// The global optimum over both signs of the scale. Tables of at most 64 levels, groups of at most 32.
template <class C>
inline scale_fit search_scale_exact(const float* x, const float* w, int n) noexcept {
  static_assert(C::size <= 64);
  struct crossing {
    float at;
    std::int16_t element, index;  ///< the index that the element reaches
  };
  crossing events[32 * 63];
  scale_fit best;
  for (const float sign : {1.0f, -1.0f}) {
    const int zero = C::nearest(0.0f);
    int count = 0;
    double xq = 0, qq = 0;
    for (int i = 0; i < n; ++i) {
      const double q = C::level(zero);
      xq += mul(w[i] * static_cast<double>(sign) * x[i], q);
      qq += mul(w[i] * q, q);
      const float v = sign * x[i];
      if (std::fabs(v) < 1e-30f) continue;
      if (v > 0)
        for (int j = zero; j + 1 < C::size; ++j)
          events[count++] = {C::boundary(j) / v, static_cast<std::int16_t>(i),
                             static_cast<std::int16_t>(j + 1)};
      else
        for (int j = zero; j > 0; --j)
          events[count++] = {C::boundary(j - 1) / v, static_cast<std::int16_t>(i),
                             static_cast<std::int16_t>(j - 1)};
    }
    std::sort(events, events + count, [](const crossing& a, const crossing& b) { return a.at < b.at; });
    for (int k = 0; k < count; ++k) {
      const int i = events[k].element, to = events[k].index, from = sign * x[i] > 0 ? to - 1 : to + 1;
      const double a = C::level(from), b = C::level(to);
      xq += mul(w[i] * static_cast<double>(sign) * x[i], b - a);
      qq += mul(w[i], mul(b, b) - mul(a, a));
      if (xq > 0 && qq > 0 && xq * xq / qq > best.gain)
        best = {static_cast<float>(sign * xq / qq), static_cast<float>(xq * xq / qq)};
    }
  }
  return best;
}

/// The best of the coarse halves near `near` and of their negatives, 0 where none is better than all zeros.
template <class F>
float search_coarse_scale(const group_view& g, float near) noexcept {
  using coder = group_coder<F>;
  constexpr int total = 2 * lane_count;
  alignas(64) float scale[total], inverse[total], error[total];
  const float first = std::max(half_units(near) - lane_count / 2, 1.0f);
  for (int k = 0; k < lane_count; ++k) {
    scale[k] = (first + static_cast<float>(k)) * smallest_half;
    scale[lane_count + k] = -scale[k];
  }
  for (int k = 0; k < total; ++k) inverse[k] = safe_inverse(scale[k]);
  coder::template errors<total>(g, scale, inverse, error);
  float zeros = 0;
  for (int i = 0; i < coder::size; ++i) zeros += g.wx[i] * g.x[i];
  const int best = smallest<F, total>(error);
  return error[best] < zeros ? scale[best] : 0.0f;
}

/// The scale for a block that stores it through `stored`.
template <class F, class Stored>
float search_scale(const group_view& g, const quantize_policy& p, Stored&& stored, row_state& row) noexcept {
  using coder = group_coder<F>;
  float hint = 0.0f;
  if constexpr (coder::codes::size <= 64 && coder::size <= 32)
    if (p.searches_longer()) hint = search_scale_exact<typename coder::codes>(g.x, g.w, coder::size).scale;
  if (row.on_lattice)
    if (const float scale = lattice_of<F>(g, row.rounding).scale; scale != 0.0f) hint = scale;
  return search_scale_fast<F>(g, stored, hint, &row.balance);
}

}  // namespace quantal::quantize
