// Weights that already lie on the levels of a format: its own decoded output, or a checkpoint of few levels
// (int4, ternary). The search of scales tries some around the largest weight, which may miss the one that
// such weights were made with. Here every scale is tried at which the largest weight is a level; one at which
// all the others are levels too is found with a few weights of most groups.
//
// Weights that were stored as bf16 or f16 are off their levels by what that rounded: up to half a step of 8-bit
// codes, too much for a fixed tolerance and too little to hide the lattice.
//
// Rows are asked first, by their first groups: those of ordinary weights pay for no more than that.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "quantal/quantize/group_coder.hpp"
#include "quantal/quantize/row.hpp"

namespace quantal::quantize {

/// Share of the distance of two levels that a weight may be off.
inline constexpr float lattice_tolerance = 0.02f;

/// How far a scale that was found in rounded weights may be off a multiple of a shared one: roundings average out.
QUANTAL_INLINE float multiple_tolerance(float times, float rounding) noexcept {
  return lattice_tolerance + mul(0.25f * rounding, std::fabs(times));
}

/// Levels that the largest weight can have, with the shift of their table; a multiple of lane_count.
template <class F>
struct lattice_ends {
  using codes = codebook<F>;
  static constexpr int all = uniform_codes<F> ? codes::size : codes::size * codes::tables;
  static constexpr int count = (all + lane_count - 1) / lane_count * lane_count;
  alignas(64) float level[std::size_t{count}] = {}, shift[std::size_t{count}] = {};
  float narrowest = 1e9f;  ///< between two levels

  constexpr lattice_ends() {
    int n = 0;
    if constexpr (uniform_codes<F>) {
      // From the coarsest lattice to the finest. A lattice is its own mirror image but for the longer end.
      for (int v = 1; v <= std::max(-F::min_code, +F::max_code); ++v)
        level[n++] = static_cast<float>(v <= F::max_code ? v : -v);
      narrowest = 1.0f;
    } else {
      for (int t = 0; t < codes::tables; ++t)
        for (int i = 0; i < codes::size; ++i)
          level[n] = static_cast<float>(codes::level(i) + t * codes::shift),
          shift[n++] = static_cast<float>(t * codes::shift);
      for (int i = 1; i < codes::size; ++i)
        narrowest = std::min(narrowest, static_cast<float>(codes::level(i) - codes::level(i - 1)));
    }
    for (; n < count; ++n) level[n] = level[0], shift[n] = shift[0];
  }
};
template <class F>
inline constexpr lattice_ends<F> lattice_ends_of{};

/// A scale under which all weights of a group are levels, 0 if there is none.
struct lattice_fit {
  float scale = 0.0f;
  bool shifted = false;  ///< levels of the second table
};

/// How far each weight of a group may be off under the scale that the weight `end` gives, times 1 over a scale.
template <int n>
QUANTAL_INLINE void roundings_of(const float* x, float end_error, float rounding, float* out) noexcept {
  for (int i = 0; i < n; ++i) out[i] = half_ulp(x[i], rounding) + mul(std::fabs(x[i]), end_error);
}

/// `rounding` of the row.
template <single_codes F>
lattice_fit lattice_of(const group_view& g, float rounding) noexcept {
  using batch = lanes<F>;
  using codes = codebook<F>;
  constexpr const auto& ends = lattice_ends_of<F>;
  constexpr int n = F::layout.group, some = 4, width = static_cast<int>(batch::size);
  const float extreme = extreme_of<F, n>(g.x), unit = safe_inverse(extreme);
  if (unit == 0.0f) return {};
  const batch limit(lattice_tolerance * ends.narrowest);
  alignas(64) float off[std::size_t{n}];
  roundings_of<n>(g.x, half_ulp(extreme, rounding) * std::fabs(unit), rounding, off);
  for (int k = 0; k < ends.count; k += width) {
    const batch t = batch::load_aligned(ends.level + k) * batch(unit),
                s = batch::load_aligned(ends.shift + k), size = xsimd::abs(t);
    batch worst(0.0f);
    std::uint64_t found = 1;
    for (int i = 0; i < n && found; i += some) {
      for (int j = i; j < i + some; ++j) {
        const batch v = t * batch(g.x[j]) - s;
        worst = xsimd::max(worst, xsimd::abs(v - codes::nearest_level(v)) - size * batch(off[j]));
      }
      found = static_cast<std::uint64_t>((worst < limit).mask());
    }
    if (!found) continue;
    const int at = k + std::countr_zero(found);
    const float inverse = ends.level[at] * unit, shift = ends.shift[at];
    float xq = 0, qq = 0;
    for (int i = 0; i < n; ++i) {
      const float q = static_cast<float>(codes::level(codes::nearest(mul(inverse, g.x[i]) - shift))) + shift;
      xq += mul(g.wx[i], q), qq += mul(g.w[i] * q, q);
    }
    return {qq > 0.0f ? xq / qq : 0.0f, shift != 0.0f};
  }
  return {};
}

/// True if the first groups of a row that are not zero lie on lattices.
template <single_codes F>
bool starts_on_lattice(const row_view& row) noexcept {
  constexpr int n = F::layout.group, asked = 2;
  const float unit = unit_of(row.largest);
  int found = 0;
  for (std::int64_t i = 0; i < row.cols && found < asked; i += n) {
    alignas(64) float x[std::size_t{n}], one[std::size_t{n}];
    float largest = 0;
    for (int e = 0; e < n; ++e) {
      x[e] = row.x[i + e] * unit, one[e] = 1.0f;
      largest = std::fabs(x[e]) > largest ? std::fabs(x[e]) : largest;
    }
    if (!(largest > 1e-30f)) continue;
    if (lattice_of<F>({x, one, x}, row.rounding).scale == 0.0f) return false;
    ++found;
  }
  return found > 0;
}

/// The step of weights that are all `low` plus 0..top steps, 0 if there is none. The coarsest one.
template <class F, int top>
float lattice_step(const float* x, float low, float high, float rounding) noexcept {
  using batch = lanes<F>;
  constexpr int n = F::layout.group, width = static_cast<int>(batch::size), some = 4;
  static constexpr auto numbers = [] {
    std::array<float, std::size_t{(top + lane_count - 1) / lane_count * lane_count}> a{};
    for (std::size_t i = 0; i < a.size(); ++i) a[i] = static_cast<float>(std::min<std::size_t>(i + 1, top));
    return a;
  }();
  const float unit = safe_inverse(high - low);
  if (unit == 0.0f) return 0.0f;
  const float ends = std::max(half_ulp(low, rounding), half_ulp(high, rounding));
  for (int k = 0; k < static_cast<int>(numbers.size()); k += width) {
    const batch t = batch::load_unaligned(numbers.data() + k) * batch(unit);
    batch worst(0.0f);
    std::uint64_t found = 1;
    for (int i = 0; i < n && found; i += some) {
      for (int j = i; j < i + some; ++j) {
        const batch v = batch(x[j] - low) * t, off = t * batch(half_ulp(x[j], rounding) + ends);
        worst = xsimd::max(worst, xsimd::abs(v - simd::nearest(v)) - off);
      }
      found = static_cast<std::uint64_t>((worst < batch(lattice_tolerance)).mask());
    }
    if (found) return (high - low) / numbers[static_cast<std::size_t>(k + std::countr_zero(found))];
  }
  return 0.0f;
}

/// lattice_step for the groups of an affine format, whose lowest weight need not be a level but zero may be.
template <class F>
bool starts_on_affine_lattice(const row_view& row) noexcept {
  constexpr int n = F::layout.group, asked = 2;
  int found = 0;
  for (std::int64_t i = 0; i < row.cols && found < asked; i += n) {
    const float* x = row.x + i;
    const auto [low, high] = std::minmax_element(x, x + n);
    if (!(*high - *low > 1e-30f)) continue;
    if (lattice_step<F, F::max_code>(x, *low, *high, row.rounding) == 0.0f &&
        lattice_step<F, F::max_code>(x, 0.0f, *high, row.rounding) == 0.0f)
      return false;
    ++found;
  }
  return found > 0;
}

}  // namespace quantal::quantize
