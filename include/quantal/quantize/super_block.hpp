// Super-blocks: integer sub-scales (and sub-mins) of the groups under one stored super-scale (and super-min).
//
// Each group is searched alone; a super-scale then turns the wishes of the groups into integers. For every
// candidate super-scale each group picks, among the integers around its wish, the one with the least error of
// the codes it really gets; the super-scale is refitted by least squares over the whole block; an increase is
// never accepted.
#pragma once

#include "quantal/quantize/simple_block.hpp"

namespace quantal::quantize {

/// q2_K, q4_K, q5_K: scale = d * integer, offset = -dmin * integer, both unsigned.
template <class F>
concept super_affine = block_format<F> && F::layout.has_offset&& requires(typename F::block& b) {
  F::set_super_min(b, 1.0f);
  F::set_sub_min(b, 0, 0);
  { F::max_sub_scale + F::max_sub_min } -> std::convertible_to<int>;
};

namespace detail {

inline int clamp_int(float v, int low, int high) noexcept {
  const float r = std::nearbyint(v);
  return r <= static_cast<float>(low) ? low : r >= static_cast<float>(high) ? high : static_cast<int>(r);
}

template <class F>
struct affine_plan {
  float super = 0.0f, super_min = 0.0f;
  int sub[F::layout.groups()] = {}, min[F::layout.groups()] = {};
  float error = std::numeric_limits<float>::infinity();
};

template <class F>
inline affine_plan<F> plan_affine(const float* x, const float* w, const affine_fit* wish, float d,
                                  float dmin) noexcept {
  using C = codebook<F>;
  constexpr int n = F::layout.group;
  affine_plan<F> plan;
  plan.super = stored_half(d);
  plan.super_min = stored_half(dmin);
  plan.error = 0;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const float* xs = x + g * n;
    const float* ws = w + g * n;
    const int s0 = clamp_int(plan.super != 0.0f ? wish[g].scale / plan.super : 0.0f, 0, F::max_sub_scale);
    float best = std::numeric_limits<float>::infinity();
    for (int s = std::max(s0 - 1, 0); s <= std::min(s0 + 1, F::max_sub_scale); ++s) {
      // With the scale fixed the best min follows from the mean residual of the current codes.
      const int m0 =
          clamp_int(plan.super_min != 0.0f ? -wish[g].offset / plan.super_min : 0.0f, 0, F::max_sub_min);
      for (int m = std::max(m0 - 1, 0); m <= std::min(m0 + 1, F::max_sub_min); ++m) {
        const float e = affine_error<C>(xs, ws, n, plan.super * static_cast<float>(s),
                                        -(plan.super_min * static_cast<float>(m)));
        if (e < best) best = e, plan.sub[g] = s, plan.min[g] = m;
      }
    }
    plan.error += best;
  }
  return plan;
}

/// Least-squares (d, dmin) for the codes and integers of a plan.
template <class F>
inline std::pair<float, float> refit_affine_super(const float* x, const float* w,
                                                  const affine_plan<F>& plan) noexcept {
  using C = codebook<F>;
  constexpr int n = F::layout.group;
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const float d = plan.super * static_cast<float>(plan.sub[g]),
                m = -(plan.super_min * static_cast<float>(plan.min[g]));
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    for (int i = g * n; i < (g + 1) * n; ++i) {
      const double a = plan.sub[g] * affine_code<C>(x[i], inverse, m), b = -plan.min[g], wi = w[i];
      aa += wi * a * a, ab += wi * a * b, bb += wi * b * b, xa += wi * x[i] * a, xb += wi * x[i] * b;
    }
  }
  const double det = aa * bb - ab * ab;
  if (det > 1e-12 * aa * bb && det > 0) {
    const double d = (bb * xa - ab * xb) / det, m = (aa * xb - ab * xa) / det;
    if (d >= 0 && m >= 0) return {static_cast<float>(d), static_cast<float>(m)};
  }
  if (aa > 0 && xa > 0 && bb == 0) return {static_cast<float>(xa / aa), plan.super_min};
  return {plan.super, plan.super_min};
}

}  // namespace detail

template <super_affine F>
inline void encode_block(const float* x, const float* w, const quantize_policy& p,
                         typename F::block& out) noexcept {
  using C = codebook<F>;
  constexpr int groups = F::layout.groups(), n = F::layout.group;
  affine_fit wish[groups];
  float top = 0, top_min = 0;
  for (int g = 0; g < groups; ++g) {
    wish[g] = search_affine<C>(x + g * n, w + g * n, n, p, true);
    top = std::fmax(top, wish[g].scale);
    top_min = std::fmax(top_min, -wish[g].offset);
  }
  detail::affine_plan<F> best;
  const auto consider = [&](float d, float dmin) {
    auto plan = detail::plan_affine<F>(x, w, wish, d, dmin);
    for (int round = 0; round < 3; ++round) {
      const auto [d2, m2] = detail::refit_affine_super<F>(x, w, plan);
      const auto next = detail::plan_affine<F>(x, w, wish, d2, m2);
      if (!(next.error < plan.error)) break;
      plan = next;
    }
    if (plan.error < best.error) best = plan;
  };
  const float d = top / F::max_sub_scale, dmin = top_min / F::max_sub_min;
  consider(d, dmin);
  // Few integers (q2_K has 16) make it worth clipping the largest group.
  if constexpr (F::max_sub_scale < 32)
    for (const float a : {0.8f, 0.9f, 1.1f})
      for (const float b : {0.8f, 0.9f, 1.0f}) consider(d * a, dmin * b);

  F::set_super(out, best.super);
  F::set_super_min(out, best.super_min);
  for (int g = 0; g < groups; ++g) {
    F::set_sub_scale(out, g, best.sub[g]);
    F::set_sub_min(out, g, best.min[g]);
    const float s = best.super * static_cast<float>(best.sub[g]),
                m = -(best.super_min * static_cast<float>(best.min[g]));
    const float inverse = s != 0.0f ? 1.0f / s : 0.0f;
    for (int i = g * n; i < (g + 1) * n; ++i) C::store(out, i, affine_code<C>(x[i], inverse, m));
  }
}

}  // namespace quantal::quantize
