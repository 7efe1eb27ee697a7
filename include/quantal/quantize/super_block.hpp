// Super-blocks with offsets (q2_K, q4_K, q5_K): integer sub-scales and sub-mins of the groups under a stored
// super-scale and super-min.
//
// Each group is searched alone; a pair of super-scales then turns the groups' own scales into integers. For
// every candidate pair each group picks, among the integers around its own scale, those with the least error of
// the codes it really gets; their sums refit the pair by least squares over the whole block; an increase is
// never accepted.
#pragma once

#include <array>
#include <limits>

#include "quantal/quantize/affine_search.hpp"
#include "quantal/quantize/policy.hpp"

namespace quantal::quantize {

/// scale = d * integer, offset = -dmin * integer, both unsigned.
template <class F>
concept super_affine = block_format<F> && F::layout.has_offset&& requires(typename F::block& b) {
  F::set_super_min(b, 1.0f);
  F::set_sub_min(b, 0, 0);
  { F::max_sub_scale + F::max_sub_min } -> std::convertible_to<int>;
};

namespace detail {

struct super_pair {
  float scale = 0.0f, min = 0.0f;
};

/// Integers of a block's groups, and sums of the normal equations of the pair that they belong to.
template <class F>
struct affine_plan {
  int sub[F::layout.groups()] = {}, min[F::layout.groups()] = {};
  double error = std::numeric_limits<double>::max();
  double aa = 0, ab = 0, bb = 0, xa = 0, xb = 0;

  /// The least-squares pair, `now` where there is none with both parts non-negative.
  super_pair refit(const super_pair& now) const noexcept {
    const double det = mul(aa, bb) - mul(ab, ab);
    if (det > 1e-9 * aa * bb) {
      const double d = (mul(bb, xa) - mul(ab, xb)) / det, m = (mul(aa, xb) - mul(ab, xa)) / det;
      if (d >= 0 && m >= 0) return {stored_half(static_cast<float>(d)), stored_half(static_cast<float>(m))};
    }
    if (aa > 0 && xa > 0 && !(bb > 0)) return {stored_half(static_cast<float>(xa / aa)), now.min};
    return now;
  }
};

template <class F>
void choose_affine(const affine_group<F>& g, const affine_fit& own, const super_pair& super, int group,
                   bool on_lattice, error_balance* balance, affine_plan<F>& plan) noexcept {
  constexpr int side = 4;
  static_assert(side * side == lane_count);
  const int s0 = std::min(rounded(own.scale * safe_inverse(super.scale), 1, F::max_sub_scale) - 1,
                          F::max_sub_scale - side + 1);
  const int m0 = std::clamp(rounded(-own.offset * safe_inverse(super.min), 0, F::max_sub_min) - 1, 0,
                            F::max_sub_min - side + 1);
  affine_lanes at;
  alignas(64) float m[lane_count];
  for (int k = 0; k < lane_count; ++k) {
    at.scale[k] = super.scale * static_cast<float>(s0 + k / side);
    m[k] = static_cast<float>(m0 + k % side);
  }
  using batch = lanes<F>;
  for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
    const batch offset = -(batch::load_aligned(m + k) * batch(super.min));
    offset.store_aligned(m + k);
    (offset - batch(g.centre)).store_aligned(at.offset + k);
  }
  add_up(g, at);
  alignas(64) float error[lane_count];
  const float left_out = on_lattice ? g.norm() : 0.0f;
  if (on_lattice)
    direct_errors(g, at, error);
  else
    at.template errors<F>(g.sw, g.sx, error);
  const int best = balance ? balanced_lane(g, at, error, on_lattice ? 0.0f : g.norm(), *balance)
                           : smallest<F, lane_count>(error);
  const double s = plan.sub[group] = s0 + best / side, n = plan.min[group] = m0 + best % side;
  const double sq = at.sq[best];
  plan.error += static_cast<double>(error[best]) - left_out;
  plan.aa += mul(s * s, at.sqq[best]);
  plan.ab -= mul(s * n, sq);
  plan.bb += mul(n * n, g.sw);
  plan.xa += mul(s, at.sxq[best] + mul(g.centre, sq));
  plan.xb -= mul(n, g.sx + mul(static_cast<double>(g.centre), g.sw));
}

/// With a balance, choices count what they cost the row.
template <class F>
affine_plan<F> plan_affine(const affine_group<F>* g, const affine_fit* own, const super_pair& super,
                           bool on_lattice, error_balance* balance = nullptr) noexcept {
  affine_plan<F> plan;
  plan.error = 0;
  for (int i = 0; i < F::layout.groups(); ++i)
    choose_affine(g[i], own[i], super, i, on_lattice, balance, plan);
  return plan;
}

/// The unit of which nearly all values are 0 .. most times; 0 if there is none.
template <class F, std::size_t count>
float common_unit(const std::array<float, count>& value, int most, float rounding) noexcept {
  const float top = *std::max_element(value.begin(), value.end());
  for (int k = most; k > 0 && top > 0.0f; --k) {
    std::size_t misses = 0;
    for (const float v : value) {
      const float times = v * static_cast<float>(k) / top;
      misses += std::fabs(times - static_cast<float>(rounded(times, 0, most))) >
                multiple_tolerance(times, rounding);
    }
    if (misses <= count / 8) return top / static_cast<float>(k);
  }
  return 0.0f;
}

/// On a lattice: the pair that all own scales are multiples of. The lowest weight of a group need not have had
/// code 0; its own scale moves down by whole steps to where it is a multiple.
template <class F>
super_pair lattice_pair(const affine_group<F>* g, float rounding, affine_fit* own) noexcept {
  constexpr std::size_t groups = F::layout.groups();
  std::array<float, groups> scale{}, min{};
  for (std::size_t i = 0; i < groups; ++i) scale[i] = own[i].scale, min[i] = -own[i].offset;
  const super_pair unit{common_unit<F>(scale, F::max_sub_scale, rounding),
                        common_unit<F>(min, F::max_sub_min, rounding)};
  if (unit.min > 0.0f)
    for (std::size_t i = 0; i < groups; ++i) {
      const int used = rounded((g[i].high - g[i].low) * safe_inverse(scale[i]), 0, F::max_code);
      for (int t = 0; t <= F::max_code - used; ++t) {
        const float m = min[i] + mul(static_cast<float>(t), scale[i]), times = m / unit.min;
        if (std::fabs(times - static_cast<float>(rounded(times, 0, F::max_sub_min))) >
            multiple_tolerance(times, rounding))
          continue;
        own[i].offset = -m;
        break;
      }
    }
  return {stored_half(unit.scale), stored_half(unit.min)};
}

/// How many steps below its offset each group's zero lies, if all groups can have the same number; -1 if they cannot.
template <class F>
int common_steps(const affine_group<F>* g, const affine_fit* own, float rounding) noexcept {
  int below = 0, above = 0;
  for (int i = 0; i < F::layout.groups(); ++i) {
    const float inverse = safe_inverse(own[i].scale), low = mul(g[i].low, inverse),
                high = mul(g[i].high, inverse);
    const int first = rounded(-low, 0, F::max_code), last = rounded(high, 0, F::max_code);
    const float off =
        std::max(std::fabs(low + static_cast<float>(first)), std::fabs(high - static_cast<float>(last)));
    if (off > multiple_tolerance(static_cast<float>(std::max(first, last)), rounding)) return -1;
    below = std::max(below, first), above = std::max(above, last);
  }
  return below + above <= F::max_code ? below : -1;
}

/// On a lattice whose scales have no common unit: the pair under which every group keeps its codes, and their scales are hit best.
/// Offsets are as many steps for all groups, so that one integer serves for scale and offset, and what remains is
/// to find the unit that the scales are closest to multiples of.
template <class F>
super_pair nearest_unit_pair(const affine_group<F>* g, float rounding, affine_fit* own) noexcept {
  constexpr int groups = F::layout.groups(), tried = 128;
  const int steps = common_steps<F>(g, own, rounding);
  if (steps < 0) return {};
  float top = 0, weight[std::size_t{groups}];
  for (int i = 0; i < groups; ++i) {
    const float inverse = safe_inverse(own[i].scale);
    float sum = 0;
    for (int e = 0; e < F::layout.group; ++e) {
      const float code = mul(g[i].x[e] + g[i].centre, inverse);
      sum += mul(mul(g[i].w[e], code), code);
    }
    weight[i] = sum, top = std::max(top, own[i].scale);
    own[i].offset = -mul(static_cast<float>(steps), own[i].scale);
  }
  super_pair best;
  float least = std::numeric_limits<float>::max();
  for (int k = 0; k < tried; ++k) {
    // The largest scale is from nearly all of the integers' range down to two thirds of it.
    const float reach = static_cast<float>(F::max_sub_scale) + 0.4f -
                        mul(static_cast<float>(F::max_sub_scale) / 3 / tried, static_cast<float>(k));
    const float unit = stored_half(top / reach), inverse = safe_inverse(unit);
    float error = 0;
    for (int i = 0; i < groups; ++i) {
      const auto times = static_cast<float>(rounded(mul(own[i].scale, inverse), 0, F::max_sub_scale));
      const float off = mul(unit, times) - own[i].scale;
      error += mul(mul(weight[i], off), off);
    }
    if (error < least) least = error, best = {unit, stored_half(mul(static_cast<float>(steps), unit))};
  }
  return best;
}

/// Pairs to try, relative to those that just reach the largest own scales. Few integers (q2_K has 16) make it
/// worth clipping the largest group; the exact policy tries more.
inline constexpr std::array super_factors{super_pair{1, 1}, super_pair{0.85f, 0.9f}, super_pair{0.9f, 0.8f},
                                          super_pair{0.8f, 1.0f}, super_pair{1.1f, 1.0f}};
template <class F>
constexpr std::size_t super_factor_count(const quantize_policy& p) noexcept {
  return p.searches_longer() ? super_factors.size() : F::max_sub_scale < 32 ? 2 : 1;
}

}  // namespace detail

template <super_affine F>
void encode_block(const float* x, const float* w, const quantize_policy& p, row_state& row,
                  typename F::block& out) noexcept {
  constexpr int groups = F::layout.groups(), n = F::layout.group;
  const int refits = p.searches_longer() ? 6 : F::max_sub_scale < 32 ? 1 : 3;
  affine_group<F> g[std::size_t{groups}];
  affine_fit own[std::size_t{groups}];
  float top = 0, top_min = 0;
  for (int i = 0; i < groups; ++i) {
    affine_lanes at;
    g[i].load(x + i * n, w + i * n);
    search_affine(g[i], true, row, at);
    own[i] = best_affine(g[i], at);
    top = std::max(top, own[i].scale), top_min = std::max(top_min, -own[i].offset);
  }
  detail::affine_plan<F> best;
  detail::super_pair super;
  const affine_fit* from = own;  // what the best plan's integers are near to
  const auto consider = [&](const detail::super_pair& s, const affine_fit* fits) {
    const auto plan = detail::plan_affine<F>(g, fits, s, row.on_lattice);
    const bool better = plan.error < best.error;
    if (better) best = plan, super = s, from = fits;
    return better;
  };
  affine_fit level[std::size_t{groups}];
  if (row.on_lattice) {
    std::copy_n(own, groups, level);
    if (const auto pair = detail::nearest_unit_pair<F>(g, row.rounding, level); pair.scale > 0.0f)
      consider(pair, level);
    if (const auto pair = detail::lattice_pair<F>(g, row.rounding, own); pair.scale > 0.0f)
      consider(pair, own);
  }
  for (std::size_t i = 0; i < detail::super_factor_count<F>(p); ++i)
    consider({stored_half(top / F::max_sub_scale * detail::super_factors[i].scale),
              stored_half(top_min / F::max_sub_min * detail::super_factors[i].min)},
             own);
  const float least = top * (1.0f / F::max_sub_scale), least_min = top_min * (1.0f / F::max_sub_min);
  const bool coarse = least < coarse_half || least_min < coarse_half;
  if (coarse)
    for (int k = 0; k < lane_count; ++k)
      consider({least < coarse_half ? (half_units(least) + static_cast<float>(k / 4)) * smallest_half
                                    : stored_half(least),
                least_min < coarse_half ? (half_units(least_min) + static_cast<float>(k % 4)) * smallest_half
                                        : stored_half(least_min)},
               own);
  for (int round = 0; round < refits; ++round)
    if (!consider(best.refit(super), from)) break;
  if (coarse) {
    double zeros = 0;
    for (const auto& group : g) zeros += group.zeros();
    if (!(best.error < zeros)) return;
  }
  if (row.balance.active) best = detail::plan_affine<F>(g, from, super, row.on_lattice, &row.balance);

  F::set_super(out, super.scale);
  F::set_super_min(out, super.min);
  std::int8_t code[F::layout.elements];
  for (int i = 0; i < groups; ++i) {
    F::set_sub_scale(out, i, best.sub[i]);
    F::set_sub_min(out, i, best.min[i]);
    const float d = super.scale * static_cast<float>(best.sub[i]),
                m = -(super.min * static_cast<float>(best.min[i]));
    affine_codes<F>(x + i * n, d, m, code + i * n);
  }
  if constexpr (requires { F::set_codes(out, code); })
    F::set_codes(out, code);
  else
    for (int e = 0; e < F::layout.elements; ++e) F::set_code(out, e, code[e]);
}

}  // namespace quantal::quantize
