// Grid formats: vectors of 4 or 8 weights become the nearest vector of a fixed grid, with signs (iq2_*,
// iq3_*) or with a common shift (iq1_*), under integer scales of groups and one super-scale.
//
// For a scale s the error of grid vector g is sum w (|x| - s g)^2. Where signs must have even parity and the
// natural ones do not, one element is flipped; which vector and which flip are best together is part of the
// search, so the choice for a scale is exact.
#pragma once

#include "quantal/quantize/balance.hpp"
#include "quantal/quantize/grid_cells.hpp"
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

/// Grids that are searched through grid_cells.
template <class F>
concept celled_grid = F::vector == 4 && !shifted_grid<F> && halves_of<F>::levels.count == 8;
/// Grids that are searched whole in tiles.
template <class F>
concept small_grid = F::vector == unit_weights && !shifted_grid<F> && F::grid_size <= 256;
template <class F>
concept tiled_grid = celled_grid<F> || small_grid<F>;

/// A group as the searches see it.
template <class F>
struct grid_group {
  static constexpr int size = F::layout.group;
  const float* x;
  const float* w;

  void load(const float* weights, const float* importance) noexcept { x = weights, w = importance; }
};
template <tiled_grid F>
struct grid_group<F> {
  static constexpr int size = F::layout.group;
  const float* x;
  const float* w;
  alignas(64) float magnitude[std::size_t{size}];
  alignas(64) std::int16_t root[std::size_t{size}];

  void load(const float* weights, const float* importance) noexcept {
    x = weights, w = importance;
    float largest = 0;
    for (int e = 0; e < size; ++e) largest = w[e] > largest ? w[e] : largest;
    const float unit = largest_root * largest_root / largest;
    for (int e = 0; e < size; ++e) {
      magnitude[e] = std::fabs(x[e]);
      root[e] = static_cast<std::int16_t>(std::sqrt(w[e] * unit));
    }
  }
};

/// Tables of a vector's halves at scale s: for signed grids |x|, for shifted ones x.
template <class F, bool flips>
QUANTAL_INLINE void fill_costs(const float* x, const float* w, float s, int shift,
                               half_costs<halves_of<F>, flips>* halves) noexcept {
  using G = halves_of<F>;
  const auto level = [&](int l) {
    return static_cast<float>(shifted_grid<F> ? 8 * G::levels.value[l] + shift : G::levels.value[l]);
  };
  for (int h = 0; h < 2; ++h) {
    float linear[G::half], square[G::half][G::levels.count];
    for (int k = 0; k < G::half; ++k) {
      const int e = h * G::half + k;
      const float v = shifted_grid<F> ? x[e] : std::fabs(x[e]);
      linear[k] = 2.0f * s * w[e] * v;
      for (int l = 0; l < G::levels.count; ++l) square[k][l] = s * s * w[e] * level(l);
      simd::make_opaque<G::levels.count>(square[k]);
    }
    halves[h].fill([&](int k, int l) { return level(l) * (square[k][l] - linear[k]); },
                   [&](int k, int l) { return level(l) * (square[k][l] + linear[k]); });
  }
}

/// The element of a vector whose sign is cheapest to flip.
template <class F>
QUANTAL_INLINE int cheapest_flip(const float* x, const float* w, int index) noexcept {
  int at = 0;
  float least = std::numeric_limits<float>::max();
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
  grid_match flipped[std::size_t{vectors}];
  float natural[std::size_t{vectors}] = {};
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

/// What the tiles of a grid hold for 8 weights.
template <class F>
class tile_searcher;

template <celled_grid F>
class tile_searcher<F> {
 public:
  static constexpr int vectors = unit_weights / F::vector;

  /// Of all weights at once, in registers: what 8 of them make a searcher of.
  QUANTAL_INLINE static std::int32_t part(float v, int e) noexcept {
    return cells::cell_part(v, e % F::vector);
  }
  QUANTAL_INLINE tile_searcher(const std::int32_t* parts) noexcept {
    for (int k = 0; k < unit_weights; ++k) cell_[k / F::vector] += parts[k];
  }
  QUANTAL_INLINE nearest_code natural(int v, const std::int16_t* target,
                                      const std::int16_t* root) const noexcept {
    return nearest_of(distances<arch>(table_.near(cell_[v]), target, root));
  }
  QUANTAL_INLINE nearest_code flipped(int v, const std::int16_t* target,
                                      const std::int16_t* root) const noexcept {
    return nearest_of(flipped_distances<arch>(table_.near(cell_[v]), target, root));
  }
  QUANTAL_INLINE int index(int v, int code) const noexcept { return table_.index(cell_[v], code); }
  QUANTAL_INLINE void get(int v, int code, std::int8_t* out) const noexcept {
    table_.near(cell_[v]).get(code, out);
  }

 private:
  using arch = typename lanes<F>::arch_type;
  using cells = grid_cells<F>;
  const cells& table_ = cells::table();
  int cell_[std::size_t{vectors}] = {};
};

template <small_grid F>
class tile_searcher<F> {
 public:
  static constexpr int vectors = 1;

  QUANTAL_INLINE static std::int32_t part(float, int) noexcept { return 0; }
  QUANTAL_INLINE tile_searcher(const std::int32_t*) noexcept {}
  QUANTAL_INLINE nearest_code natural(int, const std::int16_t* target,
                                      const std::int16_t* root) const noexcept {
    nearest_tracker<arch> best;
    for (int t = 0; t < tiles.count; ++t) best.add(distances<arch>(tiles.tile[t], target, root), t);
    return best.result();
  }
  QUANTAL_INLINE nearest_code flipped(int, const std::int16_t* target,
                                      const std::int16_t* root) const noexcept {
    nearest_tracker<arch> best;
    for (int t = 0; t < tiles.count; ++t) best.add(flipped_distances<arch>(tiles.tile[t], target, root), t);
    return best.result();
  }
  QUANTAL_INLINE int index(int, int code) const noexcept { return code; }
  QUANTAL_INLINE void get(int, int code, std::int8_t* out) const noexcept {
    tiles.tile[code / tile_codes].get(code % tile_codes, out);
  }

 private:
  using arch = typename lanes<F>::arch_type;
  static constexpr const auto& tiles = tiles_of_grid<&F::grid_value, F::vector, F::grid_size>;
};

/// Best vectors for 8 weights and their codes, negative where a sign is flipped.
template <tiled_grid F>
QUANTAL_INLINE void choose_tiled(const float* x, const float* w, const tile_searcher<F>& search,
                                 const std::int16_t* target, const std::int16_t* root, unit_choice<F>& c,
                                 std::int8_t* code) noexcept {
  using searcher = tile_searcher<F>;
  c.signs = 0;
  for (int k = 0; k < unit_weights; ++k) c.signs |= (x[k] < 0) << k;
  const bool flip = F::even_signs && __builtin_popcount(static_cast<unsigned>(c.signs)) % 2 != 0;
  nearest_code natural[searcher::vectors] = {}, flipped[searcher::vectors] = {};
  int least = 0;
  for (int i = 0; i < searcher::vectors; ++i) {
    const int at = i * F::vector;
    if (!flip || searcher::vectors > 1) natural[i] = search.natural(i, target + at, root + at);
    if (!flip) continue;
    flipped[i] = search.flipped(i, target + at, root + at);
    if (flipped[i].distance - natural[i].distance < flipped[least].distance - natural[least].distance)
      least = i;
  }
  for (int i = 0; i < searcher::vectors; ++i) {
    const int best = flip && i == least ? flipped[i].code : natural[i].code;
    c.index[i] = search.index(i, best);
    search.get(i, best, code + i * F::vector);
  }
  if (!flip) return;
  const int at = least * F::vector, k = at + cheapest_flip<F>(x + at, w + at, c.index[least]);
  c.signs ^= 1 << k;
  code[k] = static_cast<std::int8_t>(-code[k]);
}

template <tiled_grid F>
inline code_sums choose_from_tiles(const grid_group<F>& g, float s, unit_choice<F>* out) noexcept {
  constexpr int n = grid_group<F>::size;
  const float inverse = safe_inverse(s);
  alignas(64) std::int32_t part[std::size_t{n}];
  alignas(64) std::int16_t target[std::size_t{n}];
  alignas(64) std::int8_t code[std::size_t{n}];
  for (int e = 0; e < n; ++e) {
    const float v = g.magnitude[e] * inverse;
    target[e] = target_of(v);
    part[e] = tile_searcher<F>::part(v, e);
  }
  for (int e = 0; e < n; e += unit_weights)
    choose_tiled<F>(g.x + e, g.w + e, tile_searcher<F>(part + e), target + e, g.root + e,
                    out[e / unit_weights], code + e);
  return sums_of<F, n>(g.magnitude, g.w, code);
}

/// Best choices of a group at scale s. Tiles are good to their roundings, and cells hold
/// candidates only; the exact policy does without them.
template <class F>
inline code_sums choose_units(const grid_group<F>& g, float s, bool exact, unit_choice<F>* out) noexcept {
  constexpr int n = grid_group<F>::size, units = n / unit_weights;
  if constexpr (tiled_grid<F>)
    if (!exact) return choose_from_tiles<F>(g, s, out);
  if constexpr (shifted_grid<F>) {
    constexpr int joint = F::shift_group / unit_weights;  // units that share a shift
    for (int first = 0; first < units; first += joint) {
      unit_choice<F> up[std::size_t{joint}], down[std::size_t{joint}];
      float up_error = 0, down_error = 0;
      for (int u = 0; u < joint; ++u) {
        const int at = (first + u) * unit_weights;
        up_error += (up[u] = choose_shifted<F>(g.x + at, g.w + at, s, 1)).error;
        down_error += (down[u] = choose_shifted<F>(g.x + at, g.w + at, s, -1)).error;
      }
      std::copy_n(up_error <= down_error ? up : down, joint, out + first);
    }
  } else {
    for (int u = 0; u < units; ++u)
      out[u] = choose_signed<F>(g.x + u * unit_weights, g.w + u * unit_weights, s);
  }
  alignas(64) std::int8_t code[std::size_t{n}];
  for (int e = 0; e < n; ++e)
    code[e] = static_cast<std::int8_t>(out[e / unit_weights].code(e % unit_weights));
  return sums_of<F, n>(g.x, g.w, code);
}

/// A free scale of a group and what it explains of sum w x^2.
struct group_scale {
  float scale = 0.0f, gain = 0.0f;
};

/// The least-squares scale of the codes that are best at scale s.
template <class F>
QUANTAL_INLINE group_scale refit(const grid_group<F>& g, float s, bool exact) noexcept {
  unit_choice<F> c[F::layout.group / unit_weights];
  const code_sums sums = choose_units<F>(g, s, exact, c);
  if (!(sums.xq > 0 && sums.qq > 0)) return {};
  return {sums.xq / sums.qq, sums.xq * (sums.xq / sums.qq)};
}

/// The best free scale of a group: from several starts, the best one improved once more.
template <class F>
inline float search_group_scale(const grid_group<F>& g, bool exact) noexcept {
  using G = halves_of<F>;
  constexpr float top = static_cast<float>(shifted_grid<F> ? 9 : G::levels.value[G::levels.count - 1]);
  float largest = 0;
  for (int i = 0; i < F::layout.group; ++i) largest = std::fmax(largest, std::fabs(g.x[i]));
  if (largest < 1e-30f) return 0.0f;
  group_scale best;
  for (const float start : {0.95f, 0.72f, 0.52f}) {
    const auto r = refit<F>(g, largest / top * start, exact);
    if (r.gain > best.gain) best = r;
  }
  const auto again = refit<F>(g, best.scale, exact);
  return again.gain > best.gain ? again.scale : best.scale;
}

template <class F>
struct grid_plan {
  float super = 0.0f;
  int sub[F::layout.groups()] = {};
  unit_choice<F> units[F::layout.elements / unit_weights] = {};
  /// Error without the constant sum w x^2, and the terms of the least-squares super-scale.
  float error = std::numeric_limits<float>::max();
  double xq = 0, qq = 0;
};

template <class F>
inline grid_plan<F> plan_grid(const grid_group<F>* group, const float* own, float d, bool exact) noexcept {
  constexpr int units = F::layout.group / unit_weights;
  grid_plan<F> plan;
  plan.super = stored_half(d);
  plan.error = 0;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const float unit = plan.super * F::scale_unit;
    const float ideal = unit > 0.0f ? (own[g] / unit - 1.0f) * 0.5f : 0.0f;
    const int low = rounded(std::floor(ideal), 0, F::max_sub_scale),
              high = std::min(low + 1, static_cast<int>(F::max_sub_scale));
    float best = std::numeric_limits<float>::max();
    code_sums kept;
    for (int s = low; s <= high; ++s) {
      unit_choice<F> c[std::size_t{units}];
      const float scale = unit * static_cast<float>(2 * s + 1);
      const code_sums sums = choose_units<F>(group[g], scale, exact, c);
      if (const float e = sums.error(scale); e < best) {
        best = e, kept = sums, plan.sub[g] = s;
        std::copy(c, c + units, plan.units + g * units);
      }
    }
    plan.error += best;
    const double factor = F::scale_unit * static_cast<float>(2 * plan.sub[g] + 1);
    plan.xq += factor * kept.xq, plan.qq += factor * factor * kept.qq;
  }
  return plan;
}

/// Grids have no zero level, but the signs of weights that are zero cost nothing. Each takes the sign that
/// brings the sum of the block's errors nearer to zero; where parity counts the last of 8 weights takes what
/// is left.
template <class F>
inline void balance_zeros(const grid_group<F>* group, grid_plan<F>& plan) noexcept {
  constexpr int units = F::layout.elements / unit_weights, per_group = F::layout.group / unit_weights;
  int free[std::size_t{units}];  // bit k: the sign of weight k is free
  float sum = 0;
  bool any = false;
  for (int u = 0; u < units; ++u) {
    const int g = u / per_group;
    const float* x = group[g].x + u % per_group * unit_weights;
    const float scale = plan.super * F::scale_unit * static_cast<float>(2 * plan.sub[g] + 1);
    const auto& c = plan.units[u];
    free[u] = 0;
    for (int k = 0; k < unit_weights; ++k) {
      const float v = scale * static_cast<float>(c.code(k));
      if (is_signless(x[k], std::fabs(v)))
        free[u] |= 1 << k;
      else
        sum += v - x[k];
    }
    any = any || free[u];
  }
  if (!any) return;
  for (int u = 0; u < units; ++u) {
    auto& c = plan.units[u];
    const int g = u / per_group;
    const float scale = plan.super * F::scale_unit * static_cast<float>(2 * plan.sub[g] + 1);
    const int fixed = c.signs & ~free[u];
    int parity = __builtin_popcount(static_cast<unsigned>(fixed)) & 1;
    c.signs = fixed;
    for (int left = free[u]; left; left &= left - 1) {
      const int k = std::countr_zero(static_cast<unsigned>(left));
      const bool last = F::even_signs && (left & (left - 1)) == 0;
      const int negative = last ? parity : sum > 0.0f;
      const float v = scale * static_cast<float>(c.code(k));
      c.signs |= negative << k, parity ^= negative;
      sum += negative ? -v : v;
    }
  }
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
inline void encode_block(const float* x, const float* w, const quantize_policy& p,
                         typename F::block& out) noexcept {
  constexpr int groups = F::layout.groups(), n = F::layout.group;
  detail::grid_group<F> group[std::size_t{groups}];
  float own[std::size_t{groups}], top = 0;
  for (int g = 0; g < groups; ++g) {
    group[g].load(x + g * n, w + g * n);
    top = std::fmax(top, own[g] = detail::search_group_scale<F>(group[g], p.searches_longer()));
  }
  detail::grid_plan<F> best = detail::plan_grid<F>(
      group, own, top / (F::scale_unit * (2 * F::max_sub_scale + 1)), p.searches_longer());
  if (best.xq > 0 && best.qq > 0) {
    const auto refitted =
        detail::plan_grid<F>(group, own, static_cast<float>(best.xq / best.qq), p.searches_longer());
    if (refitted.error < best.error) best = refitted;
  }
  if (const float wanted = top / (F::scale_unit * (2 * F::max_sub_scale + 1)); wanted < coarse_half) {
    for (int k = 0; k < 6; ++k) {
      const float d = (half_units(wanted) + static_cast<float>(k)) * smallest_half;
      const auto coarse = detail::plan_grid<F>(group, own, d, p.searches_longer());
      if (coarse.error < best.error) best = coarse;
    }
    if (!(best.error < 0.0f)) return;
  }
  if constexpr (!detail::shifted_grid<F>) detail::balance_zeros<F>(group, best);
  detail::store<F>(best, out);
}

}  // namespace quantal::quantize
