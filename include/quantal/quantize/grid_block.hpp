// Grid formats: groups of 8 weights become the nearest vector of a fixed grid, with signs.
//
// For a scale s the error of grid vector g is sum w (|x| - s g)^2. Where signs must have even parity and the natural
// ones do not, one element is flipped; flipping element i costs 4 s w_i |x_i| g_i, so the cheapest flip is known per
// grid vector and the choice is exact. The whole grid is searched: no input can miss its neighbours.
#pragma once

#include "quantal/quantize/super_block.hpp"

namespace quantal::quantize {

/// scale of a group = d * scale_unit * (2 * sub + 1), sub in 0..max_sub_scale.
template <class F>
concept grid_format = block_format<F> && requires(typename F::block& b) {
  { F::grid_size } -> std::convertible_to<int>;
  { F::grid_value(0, 0) } -> std::same_as<int>;
  F::set_vector(b, 0, 0, 0);
};

namespace detail {

/// The grid by component, for searches over all of it at once.
template <class F>
struct grid_columns {
  alignas(64) float value[F::vector][F::grid_size];
  alignas(64) float square[F::vector][F::grid_size];

  static constexpr grid_columns make() {
    grid_columns c{};
    for (int k = 0; k < F::vector; ++k)
      for (int i = 0; i < F::grid_size; ++i) {
        c.value[k][i] = static_cast<float>(F::grid_value(i, k));
        c.square[k][i] = c.value[k][i] * c.value[k][i];
      }
    return c;
  }
};
template <class F>
inline constexpr grid_columns<F> grid_table = grid_columns<F>::make();

struct grid_choice {
  int index = 0, signs = 0;
  float error = 0.0f;  ///< without the constant sum w x^2
};

/// Best vector and signs for one 8-group at scale s > 0.
template <class F>
inline grid_choice nearest_vector(const float* x, const float* w, float s) noexcept {
  constexpr int n = F::vector, size = F::grid_size;
  const auto& table = grid_table<F>;
  float linear[n], square[n], flip[n];
  int signs = 0;
  for (int k = 0; k < n; ++k) {
    const float a = std::fabs(x[k]);
    signs |= (x[k] < 0) << k;
    linear[k] = -2.0f * s * w[k] * a;
    square[k] = s * s * w[k];
    flip[k] = 4.0f * s * w[k] * a;
  }
  alignas(64) float cost[size];
  for (int i = 0; i < size; ++i) cost[i] = 0.0f;
  for (int k = 0; k < n; ++k)
    for (int i = 0; i < size; ++i) cost[i] += linear[k] * table.value[k][i] + square[k] * table.square[k][i];
  const bool odd = F::even_signs && __builtin_popcount(static_cast<unsigned>(signs)) % 2 != 0;
  if (odd) {
    alignas(64) float cheapest[size];
    for (int i = 0; i < size; ++i) cheapest[i] = flip[0] * table.value[0][i];
    for (int k = 1; k < n; ++k)
      for (int i = 0; i < size; ++i) {
        const float f = flip[k] * table.value[k][i];
        cheapest[i] = f < cheapest[i] ? f : cheapest[i];
      }
    for (int i = 0; i < size; ++i) cost[i] += cheapest[i];
  }
  grid_choice best{0, signs, cost[0]};
  for (int i = 1; i < size; ++i)
    if (cost[i] < best.error) best.error = cost[i], best.index = i;
  if (odd) {
    int at = 0;
    for (int k = 1; k < n; ++k)
      if (flip[k] * table.value[k][best.index] < flip[at] * table.value[at][best.index]) at = k;
    best.signs ^= 1 << at;
  }
  return best;
}

/// Least-squares numerator and denominator of a group's scale for chosen vectors.
template <class F>
inline void accumulate_fit(const float* x, const float* w, const grid_choice* c, double factor, double& xq, double& qq) noexcept {
  for (int v = 0; v < F::layout.group / F::vector; ++v)
    for (int k = 0; k < F::vector; ++k) {
      const int e = v * F::vector + k;
      const double q = factor * F::grid_value(c[v].index, k) * ((c[v].signs >> k & 1) ? -1 : 1);
      xq += w[e] * static_cast<double>(x[e]) * q;
      qq += w[e] * q * q;
    }
}

template <class F>
inline float choose_vectors(const float* x, const float* w, float s, grid_choice* c) noexcept {
  float error = 0;
  for (int v = 0; v < F::layout.group / F::vector; ++v) {
    c[v] = nearest_vector<F>(x + v * F::vector, w + v * F::vector, s);
    error += c[v].error;
  }
  return error;
}

/// The best free scale of a group.
template <class F>
inline float search_group_scale(const float* x, const float* w) noexcept {
  constexpr int n = F::layout.group, vectors = n / F::vector;
  float largest = 0;
  for (int i = 0; i < n; ++i) largest = std::fmax(largest, std::fabs(x[i]));
  if (largest < 1e-30f) return 0.0f;
  int top = 0;
  for (int i = 0; i < F::grid_size; ++i)
    for (int k = 0; k < F::vector; ++k) top = std::max(top, F::grid_value(i, k));
  grid_choice c[vectors];
  float best = 0.0f, best_gain = 0.0f;
  for (int k = 0; k < 8; ++k) {
    const float s = largest / static_cast<float>(top) * (1.05f - 0.09f * static_cast<float>(k));
    choose_vectors<F>(x, w, s, c);
    double xq = 0, qq = 0;
    accumulate_fit<F>(x, w, c, 1.0, xq, qq);
    if (xq > 0 && qq > 0 && xq * xq / qq > best_gain) best_gain = static_cast<float>(xq * xq / qq), best = static_cast<float>(xq / qq);
  }
  return best;
}

template <class F>
struct grid_plan {
  float super = 0.0f;
  int sub[F::layout.groups()] = {};
  grid_choice vectors[F::layout.elements / F::vector] = {};
  float error = std::numeric_limits<float>::infinity();
};

template <class F>
inline grid_plan<F> plan_grid(const float* x, const float* w, const float* wish, float d) noexcept {
  constexpr int n = F::layout.group, vectors = n / F::vector;
  grid_plan<F> plan;
  plan.super = stored_half(d);
  plan.error = 0;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const float unit = plan.super * F::scale_unit;
    const float ideal = unit > 0.0f ? (wish[g] / unit - 1.0f) * 0.5f : 0.0f;
    const int low = clamp_int(std::floor(ideal), 0, F::max_sub_scale), high = std::min(low + 1, static_cast<int>(F::max_sub_scale));
    float best = std::numeric_limits<float>::infinity();
    for (int s = low; s <= high; ++s) {
      grid_choice c[vectors];
      const float e = choose_vectors<F>(x + g * n, w + g * n, unit * static_cast<float>(2 * s + 1), c);
      if (e < best) best = e, plan.sub[g] = s, std::copy(c, c + vectors, plan.vectors + g * vectors);
    }
    plan.error += best;
  }
  return plan;
}

}  // namespace detail

template <grid_format F>
inline void encode_block(const float* x, const float* w, const quantize_policy&, typename F::block& out) noexcept {
  constexpr int groups = F::layout.groups(), n = F::layout.group, vectors = n / F::vector;
  float wish[groups], top = 0;
  for (int g = 0; g < groups; ++g) top = std::fmax(top, wish[g] = detail::search_group_scale<F>(x + g * n, w + g * n));
  detail::grid_plan<F> best;
  const float d0 = top / (F::scale_unit * (2 * F::max_sub_scale + 1));
  best = detail::plan_grid<F>(x, w, wish, d0);
  for (int round = 0; round < 2; ++round) {
    double xq = 0, qq = 0;
    for (int g = 0; g < groups; ++g)
      detail::accumulate_fit<F>(x + g * n, w + g * n, best.vectors + g * vectors, F::scale_unit * (2 * best.sub[g] + 1), xq, qq);
    if (!(xq > 0 && qq > 0)) break;
    const auto next = detail::plan_grid<F>(x, w, wish, static_cast<float>(xq / qq));
    if (!(next.error < best.error)) break;
    best = next;
  }
  F::set_super(out, best.super);
  for (int g = 0; g < groups; ++g) F::set_sub_scale(out, g, best.sub[g]);
  for (int v = 0; v < F::layout.elements / F::vector; ++v) F::set_vector(out, v, best.vectors[v].index, best.vectors[v].signs);
}

}  // namespace quantal::quantize
