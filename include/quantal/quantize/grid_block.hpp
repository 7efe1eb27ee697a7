// Grid formats: vectors of 4 or 8 weights become the nearest vector of a fixed grid, with signs (iq2_*,
// iq3_*) or with a common shift (iq1_*), under integer scales of groups and one super-scale.
//
// For a scale s the error of grid vector g is sum w (|x| - s g)^2. Where signs must have even parity and the
// natural ones do not, one element is flipped; which vector and which flip are best together is part of the
// search, so the choice for a scale is exact.
#pragma once

#include "quantal/quantize/grid_search.hpp"
#include "quantal/quantize/simple_block.hpp"
#include "quantal/quantize/super_block.hpp"

namespace quantal::quantize {

/// Scale of a group = d * scale_unit * (2 * sub + 1), sub in 0..max_sub_scale.
template <class F>
concept grid_format = block_format<F> && requires(typename F::block& b) {
  { F::grid_value(0, 0) } -> std::same_as<int>;
  { F::grid_size + F::vector + F::max_sub_scale } -> std::convertible_to<int>;
  { F::scale_unit } -> std::convertible_to<float>;
  F::set_sub_scale(b, 0, 0);
};

namespace detail {

template <class F>
concept shifted_grid = requires {
  F::shift_group;
};

template <class F>
using halves_of = grid_halves<&F::grid_value, F::vector, F::grid_size>;

/// 8 weights: signs and shifts come for so many at a time.
inline constexpr int unit_weights = 8;

template <class F>
struct unit_choice {
  int index[unit_weights / F::vector] = {};
  int signs = 0;  ///< bit k: weight k is negative
  int shift = 1;
  float error = 0.0f;  ///< without the constant sum w x^2

  int code(int k) const noexcept {
    const int g = F::grid_value(index[k / F::vector], k % F::vector);
    if constexpr (shifted_grid<F>)
      return 8 * g + shift;
    else
      return signs >> k & 1 ? -g : g;
  }
};

/// Tables of a vector's halves at scale s: for signed grids |x|, for shifted ones x.
template <class F, bool flips>
QUANTAL_INLINE void fill_costs(const float* x, const float* w, float s, int shift,
                               half_costs<halves_of<F>, flips>* halves) noexcept {
  using G = halves_of<F>;
  for (int h = 0; h < 2; ++h) {
    float linear[G::half], square[G::half];
    for (int k = 0; k < G::half; ++k) {
      const int e = h * G::half + k;
      const float v = shifted_grid<F> ? x[e] : std::fabs(x[e]);
      linear[k] = 2.0f * s * w[e] * v;
      square[k] = s * s * w[e];
    }
    const auto level = [&](int l) {
      return static_cast<float>(shifted_grid<F> ? 8 * G::levels.value[l] + shift : G::levels.value[l]);
    };
    halves[h].fill([&](int k, int l) { return level(l) * (square[k] * level(l) - linear[k]); },
                   [&](int k, int l) { return level(l) * (square[k] * level(l) + linear[k]); });
  }
}

/// The element of a vector whose sign is cheapest to flip.
template <class F>
QUANTAL_INLINE int cheapest_flip(const float* x, const float* w, int index) noexcept {
  int at = 0;
  float least = std::numeric_limits<float>::infinity();
  for (int k = 0; k < F::vector; ++k) {
    const float cost = w[k] * std::fabs(x[k]) * static_cast<float>(F::grid_value(index, k));
    if (cost < least) least = cost, at = k;
  }
  return at;
}

/// Best vectors for 8 weights at scale s > 0 under their natural signs.
template <class F>
QUANTAL_INLINE void choose_natural(const float* x, const float* w, float s, unit_choice<F>& c) noexcept {
  for (int v = 0; v < unit_weights / F::vector; ++v) {
    half_costs<halves_of<F>, false> halves[2];
    fill_costs<F, false>(x + v * F::vector, w + v * F::vector, s, 0, halves);
    const auto m = cheapest_vector<lanes<F>>(halves[0], halves[1]);
    c.index[v] = m.index;
    c.error += m.cost;
  }
}

/// The same with one sign flipped, wherever it costs least.
template <class F>
QUANTAL_INLINE void choose_flipped(const float* x, const float* w, float s, unit_choice<F>& c) noexcept {
  constexpr int vectors = unit_weights / F::vector;
  grid_match flipped[vectors];
  float natural[vectors] = {};
  int at = 0;
  for (int v = 0; v < vectors; ++v) {
    half_costs<halves_of<F>, true> halves[2];
    fill_costs<F, true>(x + v * F::vector, w + v * F::vector, s, 0, halves);
    if constexpr (vectors > 1) {
      const auto m = cheapest_vector<lanes<F>>(halves[0], halves[1]);
      c.index[v] = m.index;
      c.error += natural[v] = m.cost;
    }
    flipped[v] = cheapest_flipped_vector<lanes<F>>(halves[0], halves[1]);
    if (flipped[v].cost - natural[v] < flipped[at].cost - natural[at]) at = v;
  }
  c.index[at] = flipped[at].index;
  c.error += flipped[at].cost - natural[at];
  c.signs ^= 1 << (at * F::vector + cheapest_flip<F>(x + at * F::vector, w + at * F::vector, c.index[at]));
}

template <class F>
QUANTAL_INLINE unit_choice<F> choose_signed(const float* x, const float* w, float s) noexcept {
  unit_choice<F> c;
  for (int k = 0; k < unit_weights; ++k) c.signs |= (x[k] < 0) << k;
  if constexpr (F::even_signs)
    if (__builtin_popcount(static_cast<unsigned>(c.signs)) % 2 != 0) {
      choose_flipped<F>(x, w, s, c);
      return c;
    }
  choose_natural<F>(x, w, s, c);
  return c;
}

template <class F>
QUANTAL_INLINE unit_choice<F> choose_shifted(const float* x, const float* w, float s, int shift) noexcept {
  unit_choice<F> c;
  half_costs<halves_of<F>, false> halves[2];
  fill_costs<F, false>(x, w, s, shift, halves);
  const auto m = cheapest_vector<lanes<F>>(halves[0], halves[1]);
  c.index[0] = m.index, c.error = m.cost, c.shift = shift;
  return c;
}

/// Best choices of a group at scale s; returns their error.
template <class F>
inline float choose_units(const float* x, const float* w, float s, unit_choice<F>* out) noexcept {
  constexpr int units = F::layout.group / unit_weights;
  float error = 0;
  if constexpr (shifted_grid<F>) {
    constexpr int joint = F::shift_group / unit_weights;  // units that share a shift
    for (int first = 0; first < units; first += joint) {
      unit_choice<F> up[joint], down[joint];
      float up_error = 0, down_error = 0;
      for (int u = 0; u < joint; ++u) {
        const int at = (first + u) * unit_weights;
        up_error += (up[u] = choose_shifted<F>(x + at, w + at, s, 1)).error;
        down_error += (down[u] = choose_shifted<F>(x + at, w + at, s, -1)).error;
      }
      std::copy_n(up_error <= down_error ? up : down, joint, out + first);
      error += up_error <= down_error ? up_error : down_error;
    }
  } else {
    for (int u = 0; u < units; ++u)
      error += (out[u] = choose_signed<F>(x + u * unit_weights, w + u * unit_weights, s)).error;
  }
  return error;
}

/// Adds a group's terms of the least-squares scale for chosen codes.
template <class F>
QUANTAL_INLINE void accumulate_fit(const float* x, const float* w, const unit_choice<F>* c, double factor,
                                   double& xq, double& qq) noexcept {
  for (int e = 0; e < F::layout.group; ++e) {
    const double q = factor * c[e / unit_weights].code(e % unit_weights);
    xq += w[e] * static_cast<double>(x[e]) * q;
    qq += w[e] * q * q;
  }
}

/// A free scale of a group and what it explains of sum w x^2.
struct group_scale {
  float scale = 0.0f, gain = 0.0f;
};

/// The least-squares scale of the codes that are best at scale s.
template <class F>
QUANTAL_INLINE group_scale refit(const float* x, const float* w, float s) noexcept {
  unit_choice<F> c[F::layout.group / unit_weights];
  choose_units<F>(x, w, s, c);
  double xq = 0, qq = 0;
  accumulate_fit<F>(x, w, c, 1.0, xq, qq);
  if (!(xq > 0 && qq > 0)) return {};
  return {static_cast<float>(xq / qq), static_cast<float>(xq * xq / qq)};
}

/// The best free scale of a group: from several starts, the best one improved once more.
template <class F>
inline float search_group_scale(const float* x, const float* w) noexcept {
  using G = halves_of<F>;
  constexpr float top = static_cast<float>(shifted_grid<F> ? 9 : G::levels.value[G::levels.count - 1]);
  float largest = 0;
  for (int i = 0; i < F::layout.group; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  if (largest < 1e-30f) return 0.0f;
  group_scale best;
  for (const float start : {0.95f, 0.72f, 0.52f}) {
    const auto r = refit<F>(x, w, largest / top * start);
    if (r.gain > best.gain) best = r;
  }
  const auto again = refit<F>(x, w, best.scale);
  return again.gain > best.gain ? again.scale : best.scale;
}

template <class F>
struct grid_plan {
  float super = 0.0f;
  int sub[F::layout.groups()] = {};
  unit_choice<F> units[F::layout.elements / unit_weights] = {};
  float error = std::numeric_limits<float>::infinity();
};

template <class F>
inline grid_plan<F> plan_grid(const float* x, const float* w, const float* wish, float d) noexcept {
  constexpr int n = F::layout.group, units = n / unit_weights;
  grid_plan<F> plan;
  plan.super = stored_half(d);
  plan.error = 0;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const float unit = plan.super * F::scale_unit;
    const float ideal = unit > 0.0f ? (wish[g] / unit - 1.0f) * 0.5f : 0.0f;
    const int low = rounded(std::floor(ideal), 0, F::max_sub_scale),
              high = std::min(low + 1, static_cast<int>(F::max_sub_scale));
    float best = std::numeric_limits<float>::infinity();
    for (int s = low; s <= high; ++s) {
      unit_choice<F> c[units];
      const float e = choose_units<F>(x + g * n, w + g * n, unit * static_cast<float>(2 * s + 1), c);
      if (e < best) best = e, plan.sub[g] = s, std::copy(c, c + units, plan.units + g * units);
    }
    plan.error += best;
  }
  return plan;
}

template <class F>
QUANTAL_INLINE void store(const grid_plan<F>& plan, typename F::block& out) noexcept {
  F::set_super(out, plan.super);
  for (int g = 0; g < F::layout.groups(); ++g) F::set_sub_scale(out, g, plan.sub[g]);
  for (int u = 0; u < F::layout.elements / unit_weights; ++u) {
    const auto& c = plan.units[u];
    if constexpr (requires { F::set_vector(out, 0, 0, 0); }) {
      F::set_vector(out, u, c.index[0], c.signs);
    } else {
      constexpr int vectors = unit_weights / F::vector;
      for (int v = 0; v < vectors; ++v) F::set_grid(out, u * vectors + v, c.index[v]);
      if constexpr (shifted_grid<F>)
        F::set_shift(out, u * unit_weights / F::shift_group, c.shift);
      else
        F::set_signs(out, u, c.signs);
    }
  }
}

}  // namespace detail

template <grid_format F>
inline void encode_block(const float* x, const float* w, const quantize_policy&,
                         typename F::block& out) noexcept {
  constexpr int groups = F::layout.groups(), n = F::layout.group, units = n / detail::unit_weights;
  float wish[groups], top = 0;
  for (int g = 0; g < groups; ++g)
    top = std::fmax(top, wish[g] = detail::search_group_scale<F>(x + g * n, w + g * n));
  detail::grid_plan<F> best =
      detail::plan_grid<F>(x, w, wish, top / (F::scale_unit * (2 * F::max_sub_scale + 1)));
  double xq = 0, qq = 0;
  for (int g = 0; g < groups; ++g)
    detail::accumulate_fit<F>(x + g * n, w + g * n, best.units + g * units,
                              F::scale_unit * (2 * best.sub[g] + 1), xq, qq);
  if (xq > 0 && qq > 0) {
    const auto refitted = detail::plan_grid<F>(x, w, wish, static_cast<float>(xq / qq));
    if (refitted.error < best.error) best = refitted;
  }
  detail::store<F>(best, out);
}

}  // namespace quantal::quantize
