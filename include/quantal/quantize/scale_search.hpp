// One scale for a group and a fixed code table: x[i] ~ d * level(q[i]).
//
// For given codes the best scale is d = sum(w x q) / sum(w q q), and the error removed is F = sum(w x q)^2 / sum(w q q);
// the search maximises F over code assignments. Codes only change where some x[i] / d crosses a midpoint, so
// enumerating those crossings in order finds the optimum (techniques: exact breakpoint search).
#pragma once

#include <algorithm>
#include <cmath>

#include "quantal/quantize/codebook.hpp"
#include "quantal/quantize/policy.hpp"

namespace quantal::quantize {

inline constexpr int max_group = 256;

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

/// The scale that is best for the codes of inverse scale t, and the F it reaches.
struct scale_fit {
  float scale = 0.0f, gain = 0.0f;
};

template <class C>
inline scale_fit fit_at(const float* x, const float* w, int n, float t) noexcept {
  float xq = 0, qq = 0;
  for (int i = 0; i < n; ++i) {
    const float q = static_cast<float>(C::level(C::nearest(x[i] * t)));
    xq += w[i] * x[i] * q;
    qq += w[i] * q * q;
  }
  return qq > 0 ? scale_fit{xq / qq, xq * xq / qq} : scale_fit{};
}

/// Candidates around the scales that map the largest |x| to either end of the table, then a few alternations.
template <class C>
inline scale_fit search_scale_fast(const float* x, const float* w, int n, const quantize_policy& p) noexcept {
  float extreme = 0;
  for (int i = 0; i < n; ++i) extreme = std::fabs(x[i]) > std::fabs(extreme) ? x[i] : extreme;
  scale_fit best;
  if (std::fabs(extreme) < 1e-30f) return best;
  for (const int end : {C::level(0), C::level(C::size - 1)}) {
    if (end == 0) continue;
    for (int k = -p.steps; k <= p.steps; ++k) {
      const float t = static_cast<float>(end) * (1.0f + static_cast<float>(k) * p.width) / extreme;
      const scale_fit f = fit_at<C>(x, w, n, t);
      if (f.gain > best.gain) best = f;
    }
  }
  for (int round = 0; round < 4 && best.scale != 0.0f; ++round) {
    const scale_fit f = fit_at<C>(x, w, n, 1.0f / best.scale);
    if (f.gain <= best.gain) break;
    best = f;
  }
  return best;
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
      xq += w[i] * static_cast<double>(sign) * x[i] * q;
      qq += w[i] * q * q;
      const float v = sign * x[i];
      if (std::fabs(v) < 1e-30f) continue;
      if (v > 0)
        for (int j = zero; j + 1 < C::size; ++j) events[count++] = {C::boundary(j) / v, static_cast<std::int16_t>(i), static_cast<std::int16_t>(j + 1)};
      else
        for (int j = zero; j > 0; --j) events[count++] = {C::boundary(j - 1) / v, static_cast<std::int16_t>(i), static_cast<std::int16_t>(j - 1)};
    }
    std::sort(events, events + count, [](const crossing& a, const crossing& b) { return a.at < b.at; });
    for (int k = 0; k < count; ++k) {
      const int i = events[k].element, to = events[k].index, from = sign * x[i] > 0 ? to - 1 : to + 1;
      const double a = C::level(from), b = C::level(to);
      xq += w[i] * static_cast<double>(sign) * x[i] * (b - a);
      qq += w[i] * (b * b - a * a);
      if (xq > 0 && qq > 0 && xq * xq / qq > best.gain)
        best = {static_cast<float>(sign * xq / qq), static_cast<float>(xq * xq / qq)};
    }
  }
  return best;
}

template <class C>
inline scale_fit search_scale(const float* x, const float* w, int n, const quantize_policy& p) noexcept {
  if constexpr (C::size <= 64)
    if (p.exact && n <= 32) {
      const scale_fit exact = search_scale_exact<C>(x, w, n);
      const scale_fit fast = search_scale_fast<C>(x, w, n, p);
      return fast.gain > exact.gain ? fast : exact;
    }
  return search_scale_fast<C>(x, w, n, p);
}

}  // namespace quantal::quantize
