// A scale and an offset for a group of uniform codes 0..max: x[i] ~ d * q[i] + m.
#pragma once

#include <cmath>
#include <limits>

#include "quantal/quantize/policy.hpp"
#include "quantal/quantize/scale_search.hpp"

namespace quantal::quantize {

struct affine_fit {
  float scale = 0.0f, offset = 0.0f;
  float error = std::numeric_limits<float>::infinity();
};

/// Code of x for a non-negative scale.
template <class C>
inline int affine_code(float x, float inverse, float offset) noexcept {
  return C::nearest((x - offset) * inverse);
}

template <class C>
inline float affine_error(const float* x, const float* w, int n, float d, float m) noexcept {
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  float sum = 0;
  for (int i = 0; i < n; ++i) {
    const float e = x[i] - m - d * static_cast<float>(affine_code<C>(x[i], inverse, m));
    sum += w[i] * e * e;
  }
  return sum;
}

/// Weighted least squares for the codes that (d, m) assign. With `non_positive`, offsets above zero become
/// zero.
template <class C>
inline affine_fit refit_affine(const float* x, const float* w, int n, float d, float m,
                               bool non_positive) noexcept {
  const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
  double sw = 0, sx = 0, sq = 0, sqq = 0, sxq = 0;
  for (int i = 0; i < n; ++i) {
    const double q = affine_code<C>(x[i], inverse, m), wi = w[i];
    sw += wi, sx += wi * x[i], sq += wi * q, sqq += wi * q * q, sxq += wi * x[i] * q;
  }
  affine_fit f{d, m};
  const double det = sw * sqq - sq * sq;
  if (det > 1e-12 * sw * sqq) {
    f.scale = static_cast<float>((sw * sxq - sx * sq) / det);
    f.offset = static_cast<float>((sqq * sx - sq * sxq) / det);
  }
  if (non_positive && f.offset > 0.0f) {
    f.offset = 0.0f;
    f.scale = sqq > 0 ? static_cast<float>(sxq / sqq) : 0.0f;
  }
  if (!(f.scale >= 0.0f)) f.scale = d;
  f.error = affine_error<C>(x, w, n, f.scale, f.offset);
  return f;
}

/// Starts from several ranges, alternating assignment and least squares; keeps the best.
template <class C>
inline affine_fit search_affine(const float* x, const float* w, int n, const quantize_policy&,
                                bool non_positive) noexcept {
  float low = x[0], high = x[0];
  for (int i = 1; i < n; ++i) low = std::fmin(low, x[i]), high = std::fmax(high, x[i]);
  if (non_positive && low > 0.0f) low = 0.0f;
  affine_fit best{0.0f, non_positive ? std::fmin(low, 0.0f) : low};
  if (high - low < 1e-30f) {
    best.error = affine_error<C>(x, w, n, 0.0f, best.offset);
    return best;
  }
  constexpr int top = C::size - 1;
  const float steps = static_cast<float>(top) * 0.025f * 2.0f;
  for (int k = -9 / 2; k <= 9; ++k) {
    const float d = (high - low) / (static_cast<float>(top) + static_cast<float>(k) * steps * 0.5f);
    affine_fit f = refit_affine<C>(x, w, n, d, low, non_positive);
    for (int round = 0; round < 3; ++round) {
      const affine_fit next = refit_affine<C>(x, w, n, f.scale, f.offset, non_positive);
      if (!(next.error < f.error)) break;
      f = next;
    }
    if (f.error < best.error) best = f;
  }
  return best;
}

}  // namespace quantal::quantize
