// The nearest vector of a grid, exactly, without looking at most of the grid.
//
// Components of a grid vector take a few levels (3 for the 1- and 2-bit grids, 8 for the 3-bit ones), so each
// half of a vector takes few combinations of levels (64 or 81). Their costs are tabulated first; an entry
// then costs two look-ups, and entries are grouped by their first half, so that a whole group is skipped when
// that half with the cheapest second half is no better than what is found. Nothing is approximated.
#pragma once

#include <cstdint>
#include <limits>

#include "quantal/quantize/lanes.hpp"

namespace quantal::quantize {

/// The entries of a grid of `size` vectors of `vector` components, by the combination of their first half.
template <int (*component)(int, int) noexcept, int vector, int size>
struct grid_halves {
  static constexpr int half = vector / 2;
  static constexpr int most_levels = 8;

  struct level_list {
    int count = 0;
    int value[most_levels] = {};
  };
  static constexpr level_list find_levels() {
    level_list l;
    for (int i = 0; i < size; ++i)
      for (int k = 0; k < vector; ++k) {
        const int v = component(i, k);
        int at = 0;
        while (at < l.count && l.value[at] < v) ++at;
        if (at < l.count && l.value[at] == v) continue;
        for (int j = l.count++; j > at; --j) l.value[j] = l.value[j - 1];
        l.value[at] = v;
      }
    return l;
  }
  static constexpr level_list levels = find_levels();
  static constexpr int combinations = [] {
    int n = 1;
    for (int k = 0; k < half; ++k) n *= levels.count;
    return n;
  }();

  std::uint16_t begin[std::size_t{combinations + 1}] = {};  ///< of each first half in the lists below
  std::uint16_t entry[std::size_t{size}] = {};              ///< grid index
  std::uint8_t second[std::size_t{size}] = {};              ///< combination of the second half

  static constexpr int combination(int index, int first) {
    int c = 0;
    for (int k = half - 1; k >= 0; --k) {
      int level = 0;
      while (levels.value[level] != component(index, first + k)) ++level;
      c = c * levels.count + level;
    }
    return c;
  }

  static constexpr grid_halves make() {
    grid_halves g;
    std::uint8_t first[std::size_t{size}] = {};
    for (int i = 0; i < size; ++i) ++g.begin[(first[i] = static_cast<std::uint8_t>(combination(i, 0))) + 1];
    for (int c = 0; c < combinations; ++c)
      g.begin[c + 1] = static_cast<std::uint16_t>(g.begin[c + 1] + g.begin[c]);
    std::uint16_t next[std::size_t{combinations}] = {};
    for (int c = 0; c < combinations; ++c) next[c] = g.begin[c];
    for (int i = 0; i < size; ++i) {
      const int at = next[first[i]]++;
      g.entry[at] = static_cast<std::uint16_t>(i);
      g.second[at] = static_cast<std::uint8_t>(combination(i, half));
    }
    return g;
  }
  static const grid_halves table;
};
template <int (*component)(int, int) noexcept, int vector, int size>
inline constexpr grid_halves<component, vector, size> grid_halves<component, vector, size>::table = make();

/// Costs of one half by combination: as it is, and with the one flipped sign that costs least.
template <class G, bool flips>
struct half_costs {
  static constexpr int padded = (G::combinations + lane_count - 1) / lane_count * lane_count;
  alignas(64) float plain[std::size_t{padded}];
  alignas(64) float flipped[std::size_t{flips ? padded : 1}];
  float least_plain = 0.0f, least_flipped = 0.0f;
  int cheapest = 0;  ///< combination that least_plain belongs to

  /// `cost(k, level)` and `flipped_cost(k, level)` of component k of this half.
  template <class Cost, class Flipped>
  QUANTAL_INLINE void fill(Cost cost, Flipped flipped_cost) noexcept {
    constexpr int levels = G::levels.count;
    float least_extra = 1e30f;
    plain[0] = 0.0f;
    if constexpr (flips) flipped[0] = 1e30f;
    int width = 1;
    for (int k = 0; k < G::half; ++k, width *= levels) {
      float c[std::size_t{levels}], f[std::size_t{levels}];
      int least = 0, least_flip = 0;
      for (int l = 0; l < levels; ++l) {
        c[l] = cost(k, l);
        if (c[l] < c[least]) least = l;
        if constexpr (flips) {
          f[l] = flipped_cost(k, l);
          if (f[l] < f[least_flip]) least_flip = l;
        }
      }
      simd::make_opaque<levels>(c);  // products, which are not fused with the sums
      if constexpr (flips) simd::make_opaque<levels>(f);
      // The lowest level last: it overwrites what the others extend.
      for (int l = levels - 1; l >= 0; --l) extend(width, l * width, c[l], flips ? f[l] : 0.0f);
      least_plain += c[least];
      cheapest += width * least;
      if constexpr (flips)
        least_extra = f[least_flip] - c[least] < least_extra ? f[least_flip] - c[least] : least_extra;
    }
    least_flipped = least_plain + least_extra;
    for (int i = G::combinations; i < padded; ++i) {
      plain[i] = std::numeric_limits<float>::max();
      if constexpr (flips) flipped[i] = std::numeric_limits<float>::max();
    }
  }

 private:
  QUANTAL_INLINE void extend(int width, int at, float c, float f) noexcept {
    if constexpr (flips)
      for (int i = 0; i < width; ++i) {
        const float kept = flipped[i] + c, here = plain[i] + f;
        flipped[at + i] = kept < here ? kept : here;
      }
    for (int i = 0; i < width; ++i) plain[at + i] = plain[i] + c;
  }
};

struct grid_match {
  int index = 0;
  float cost = std::numeric_limits<float>::max();
};

/// Calls visit(c) for the combinations whose bound is below the best cost so far; `bound` gives a register of
/// bounds.
template <class B, int combinations, class Bound, class Visit>
QUANTAL_INLINE void for_each_promising(const grid_match& best, Bound bound, Visit visit) noexcept {
  for (int first = 0; first < combinations; first += static_cast<int>(B::size)) {
    auto promising = (bound(first) < B(best.cost)).mask();
    for (; promising; promising &= promising - 1) visit(first + __builtin_ctzll(promising));
  }
}

/// The cheapest vector, whose second half may only be combined with what the grid holds for its first half.
/// B: the registers to use.
template <class B, class G, bool flips>
QUANTAL_INLINE grid_match cheapest_vector(const half_costs<G, flips>& a,
                                          const half_costs<G, flips>& b) noexcept {
  const auto& g = G::table;
  grid_match best;
  const auto visit = [&](int c) QUANTAL_LAMBDA {
    for (int i = g.begin[c]; i < g.begin[c + 1]; ++i) {
      const float cost = a.plain[c] + b.plain[g.second[i]];
      if (cost < best.cost) best = {g.entry[i], cost};
    }
  };
  visit(a.cheapest);  // before the others: it bounds them
  const B rest(b.least_plain);
  for_each_promising<B, G::combinations>(
      best, [&](int c) QUANTAL_LAMBDA { return B::load_aligned(a.plain + c) + rest; }, visit);
  return best;
}

/// The same with one flipped sign in the vector.
template <class B, class G>
QUANTAL_INLINE grid_match cheapest_flipped_vector(const half_costs<G, true>& a,
                                                  const half_costs<G, true>& b) noexcept {
  const auto& g = G::table;
  grid_match best;
  const auto visit = [&](int c) QUANTAL_LAMBDA {
    for (int i = g.begin[c]; i < g.begin[c + 1]; ++i) {
      const float x = a.flipped[c] + b.plain[g.second[i]], y = a.plain[c] + b.flipped[g.second[i]];
      const float cost = x < y ? x : y;
      if (cost < best.cost) best = {g.entry[i], cost};
    }
  };
  visit(a.cheapest);
  const B rest(b.least_plain), flipped_rest(b.least_flipped);
  for_each_promising<B, G::combinations>(
      best,
      [&](int c) QUANTAL_LAMBDA {
        return xsimd::min(B::load_aligned(a.flipped + c) + rest, B::load_aligned(a.plain + c) + flipped_rest);
      },
      visit);
  return best;
}

}  // namespace quantal::quantize
