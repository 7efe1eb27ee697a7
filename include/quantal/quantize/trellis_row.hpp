// Trellis formats (iq1_kt .. iq4_kt): every vector of 8 (or 4) weights becomes one of 2^13 to 2^16 codewords
// that a generator produces, under a scale per 32 weights that is a level times a float of the row.
//
// Vectors do not depend on each other, so for a given scale the best choice is the nearest codeword in the
// weighted metric. Codewords are kept in 256 buckets by coarse bins of their components. A bucket cannot hold
// anything nearer than its bins are; buckets whose bound is not well below the best find are skipped, others
// are searched whole.
#pragma once

#include <algorithm>
#include <cstring>
#include <limits>

#include "quantal/format.hpp"
#include "quantal/quantize/balance.hpp"
#include "quantal/quantize/code_tiles.hpp"
#include "quantal/quantize/lanes.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::quantize {

/// Codewords from a generator, scales per group from a float of the row.
template <class F>
concept trellis_format = block_format<F> && F::layout.row_meta == 4 && (F::grid_size >= 1 << 13) &&
                         requires(typename F::block& b) {
  F::set_grid(b, 0, 0);
};

namespace detail {

/// Groups share one of two generators.
template <class F>
concept seeded_trellis = requires(typename F::block& b) {
  F::set_seed_bit(b, 0, 0);
};
/// Codewords are magnitudes, every weight has a sign.
template <class F>
concept signed_trellis = requires(typename F::block& b) {
  F::set_signs(b, 0, 0);
};

template <class F>
QUANTAL_INLINE int codeword_component(int index, int k, int seed) noexcept {
  if constexpr (seeded_trellis<F>)
    return F::grid_value(index, k, seed);
  else
    return F::grid_value(index, k);
}

/// Bins of a component: [edge[i - 1], edge[i]). Codewords have about a standard deviation of 37.
template <class F>
struct component_bins {
  static constexpr int bits = 8 / F::vector, count = 1 << bits;
  static constexpr float edge(int i) noexcept {
    if (count == 4) return i == 0 ? -25.0f : i == 1 ? 0.0f : 25.0f;
    return signed_trellis<F> ? 25.0f : 0.0f;
  }
  QUANTAL_INLINE static int bin(float v) noexcept {
    int b = 0;
    for (int i = 0; i + 1 < count; ++i) b += v >= edge(i);
    return b;
  }
  /// Distance of v from bin b.
  QUANTAL_INLINE static float distance(float v, int b) noexcept {
    if (b > 0 && v < edge(b - 1)) return edge(b - 1) - v;
    if (b + 1 < count && v >= edge(b)) return v - edge(b);
    return 0.0f;
  }
};

/// The codewords of a generator by bucket, in tiles.
template <class F>
struct codeword_index {
  static constexpr int n = F::vector, size = F::grid_size, buckets = 256;
  static constexpr int most_tiles = size / tile_codes + buckets;
  code_tile<n> tile[std::size_t{most_tiles}];
  std::uint16_t id[std::size_t{most_tiles}][tile_codes];
  int begin[buckets + 1];  ///< first tile of a bucket

  explicit codeword_index(int seed) noexcept {
    const auto bucket_of = [&](int i) {
      int b = 0;
      for (int k = n - 1; k >= 0; --k)
        b = b << component_bins<F>::bits |
            component_bins<F>::bin(static_cast<float>(codeword_component<F>(i, k, seed)));
      return b;
    };
    int filled[buckets] = {};
    for (int i = 0; i < size; ++i) ++filled[bucket_of(i)];
    begin[0] = 0;
    for (int b = 0; b < buckets; ++b) begin[b + 1] = begin[b] + (filled[b] + tile_codes - 1) / tile_codes;
    std::fill_n(filled, int{buckets}, 0);
    for (int i = 0; i < size; ++i) put(bucket_of(i), filled, i, seed);
    // A last tile that is not full repeats its first codeword.
    for (int b = 0; b < buckets; ++b)
      while (filled[b] % tile_codes) put(b, filled, id[begin[b] + filled[b] / tile_codes][0], seed);
  }

  static const codeword_index& table(int seed) noexcept {
    if constexpr (seeded_trellis<F>) {
      static const codeword_index both[2] = {codeword_index(0), codeword_index(1)};
      return both[seed];
    } else {
      static const codeword_index one(0);
      return one;
    }
  }

 private:
  void put(int bucket, int* filled, int index, int seed) noexcept {
    const int at = begin[bucket] + filled[bucket] / tile_codes, code = filled[bucket] % tile_codes;
    for (int k = 0; k < n; ++k) tile[at].set(code, k, codeword_component<F>(index, k, seed));
    id[at][code] = static_cast<std::uint16_t>(index);
    ++filled[bucket];
  }
};

/// Weights as the search sees them, a group or some of its vectors: magnitudes where signs are stored apart.
template <class F, int weights = F::layout.group>
struct trellis_group {
  static constexpr int n = weights, vectors = n / F::vector;
  alignas(64) float x[std::size_t{n}], w[std::size_t{n}];
  alignas(
      64) float scaled_root[std::size_t{n}];  ///< root / 128: distances of tiles are of components times this
  alignas(64) std::int16_t root[std::size_t{n}];
  std::uint32_t signs = 0;  ///< bit e: weight e is negative

  void load(const float* from, const float* importance) noexcept {
    for (int e = 0; e < n; ++e) {
      w[e] = importance[e];
      x[e] = signed_trellis<F> ? std::fabs(from[e]) : from[e];
    }
    signs = 0;
    if constexpr (signed_trellis<F>)
      for (int e = 0; e < n; ++e) signs |= static_cast<std::uint32_t>(from[e] < 0) << e;
    for (int v = 0; v < n; v += F::vector) {
      float largest = w[v];
      for (int k = 1; k < F::vector; ++k) largest = w[v + k] > largest ? w[v + k] : largest;
      const float unit = 1.0f / largest;
      for (int k = 0; k < F::vector; ++k) scaled_root[v + k] = w[v + k] * unit;
    }
    for (int e = 0; e < n; ++e) {
      const int r = static_cast<int>(largest_root * std::sqrt(scaled_root[e]));
      root[e] = static_cast<std::int16_t>(r);
      scaled_root[e] = static_cast<float>(r) * (1.0f / 128);
    }
  }
};

/// Their targets at a scale, and what each bin of each component costs at least.
template <class F, int weights = F::layout.group>
struct trellis_targets {
  using bins = component_bins<F>;
  static constexpr int n = weights;
  alignas(64) std::int16_t target[std::size_t{n}];
  alignas(64) float bound[bins::count][std::size_t{n}];

  trellis_targets(const trellis_group<F, n>& g, float s) noexcept {
    const float inverse = safe_inverse(s);
    for (int e = 0; e < n; ++e) {
      float v = g.x[e] * inverse;
      v = v < -128.0f ? -128.0f : v > 128.0f ? 128.0f : v;
      target[e] = target_of(v);
      for (int b = 0; b < bins::count; ++b) {
        const float d = g.scaled_root[e] * bins::distance(v, b);
        bound[b][e] = d * d;
      }
    }
  }
};

/// Sums over 4 components of one bin each (or 2 of 2 bits each): which of them lane l adds.
template <class F>
struct bin_patterns {
  using bins = component_bins<F>;
  static constexpr int components = F::vector / 2;
  alignas(64) float use[std::size_t{components}][bins::count][lane_count] = {};

  constexpr bin_patterns() {
    for (int k = 0; k < components; ++k)
      for (int l = 0; l < lane_count; ++l) use[k][l >> (bins::bits * k) & (bins::count - 1)][l] = 1.0f;
  }
};
template <class F>
inline constexpr bin_patterns<F> patterns_of{};

/// Bounds of the sixteen halves of bucket numbers that the components from `e` on make.
template <class F, int n>
QUANTAL_INLINE void half_bounds(const trellis_targets<F, n>& t, int e, float* out) noexcept {
  using batch = lanes<F>;
  using bins = component_bins<F>;
  for (int l = 0; l < lane_count; l += static_cast<int>(batch::size)) {
    batch sum(0.0f);
    simd::unroll<F::vector / 2>([&](int k) QUANTAL_LAMBDA {
      for (int b = 0; b < bins::count; ++b)
        sum += batch(t.bound[b][e + k]) * batch::load_aligned(patterns_of<F>.use[k][b] + l);
    });
    sum.store_aligned(out + l);
  }
}

/// Bit l: value[l] + offset < limit.
template <class F>
QUANTAL_INLINE std::uint32_t lanes_below(const float* value, float offset, float limit) noexcept {
  using batch = lanes<F>;
  std::uint32_t mask = 0;
  for (int l = 0; l < lane_count; l += static_cast<int>(batch::size))
    mask |= static_cast<std::uint32_t>((batch::load_aligned(value + l) + batch(offset) < batch(limit)).mask())
            << l;
  return mask;
}

/// The codewords near the vector at `e`, among the buckets whose bound is below `reach` times the least
/// distance in the home bucket.
template <class F, int n>
QUANTAL_INLINE auto near_codewords(const codeword_index<F>& index, const trellis_group<F, n>& g,
                                   const trellis_targets<F, n>& t, int e, float reach) noexcept {
  using arch = typename lanes<F>::arch_type;
  alignas(64) float low[lane_count], high[lane_count];
  half_bounds<F>(t, e, low);
  half_bounds<F>(t, e + F::vector / 2, high);
  const float none = 1e-30f;
  const int home = std::countr_zero(lanes_below<F>(low, 0.0f, none)) +
                   16 * std::countr_zero(lanes_below<F>(high, 0.0f, none));
  nearest_tracker<arch> best;
  const auto search = [&](int bucket) QUANTAL_LAMBDA {
    for (int i = index.begin[bucket]; i < index.begin[bucket + 1]; ++i)
      best.add(distances<arch>(index.tile[i], t.target + e, g.root + e), i);
  };
  search(home);
  const float limit = reach * static_cast<float>(best.least());
  // All buckets first, then the few that are near: loops over both at once would mispredict most of their
  // ends.
  std::uint64_t near[4] = {};
  for (int row = 0; row < 16; ++row)
    near[row / 4] |= static_cast<std::uint64_t>(lanes_below<F>(low, high[row], limit)) << (row % 4 * 16);
  near[home / 64] &= ~(std::uint64_t{1} << home % 64);
  for (int part = 0; part < 4; ++part)
    for (std::uint64_t bits = near[part]; bits; bits &= bits - 1) search(64 * part + std::countr_zero(bits));
  return best;
}

/// A group's codewords under a scale.
template <class F>
struct trellis_choice {
  static constexpr int n = F::layout.group, vectors = n / F::vector;
  int index[std::size_t{vectors}] = {};
  int seed = 0;
  code_sums sums;
};

/// A bucket is searched if its bound is below this share of the best find: 1 is exact but for the roundings
/// of the tiles; less costs little, and least where scales are only compared.
struct trellis_reach {
  float compare, choose;
};
template <class F>
constexpr trellis_reach reach_of(const quantize_policy& p) noexcept {
  if (p.searches_longer()) return {1.01f, 1.01f};
  return {0.1f, F::vector < 8 ? 0.3f : signed_trellis<F> ? 0.2f : 0.15f};
}

template <class F>
trellis_choice<F> choose_codewords(const trellis_group<F>& g, const trellis_targets<F>& targets, int seed,
                                   float reach) noexcept {
  trellis_choice<F> c;
  c.seed = seed;
  const auto& index = codeword_index<F>::table(seed);
  alignas(64) std::int8_t code[trellis_choice<F>::n];
  for (int v = 0; v < c.vectors; ++v) {
    const nearest_code found = near_codewords<F>(index, g, targets, v * F::vector, reach).result();
    const int tile = found.code / tile_codes, lane = found.code % tile_codes;
    c.index[v] = index.id[tile][lane];
    index.tile[tile].get(lane, code + v * F::vector);
  }
  c.sums = sums_of<F, trellis_choice<F>::n>(g.x, g.w, code);
  return c;
}

/// The better generator at scale s, where there are two.
template <class F>
trellis_choice<F> choose_codewords(const trellis_group<F>& g, float s, float reach) noexcept {
  const trellis_targets<F> targets(g, s);
  auto c = choose_codewords<F>(g, targets, 0, reach);
  if constexpr (seeded_trellis<F>) {
    const auto other = choose_codewords<F>(g, targets, 1, reach);
    if (other.sums.error(s) < c.sums.error(s)) c = other;
  }
  return c;
}

/// Scales that are tried. With short vectors the error of a group is a rugged function of its scale, and
/// levels are fine: free scales are searched first. With long ones the error says little between two of the
/// coarse levels: those around a scale that suits the size of the weights are tried at once, the fewer the
/// fewer codewords there are.
template <class F>
struct trellis_effort {
  static constexpr bool is_short = F::vector < 8;
  static constexpr int starts = is_short ? 8 : 0;
  static constexpr int levels = is_short ? 4 : signed_trellis<F> ? 5 : F::grid_size > 1 << 13 ? 3 : 2;
};

/// The best free scale of a group, from guesses between one that makes codes and weights equally large and
/// one that just reaches the largest weight; without starts a guess.
template <class F>
float free_trellis_scale(const trellis_group<F>& g, float reach) noexcept {
  constexpr int starts = trellis_effort<F>::starts;
  float xx[lane_count] = {}, ww[lane_count] = {}, most[lane_count] = {};
  for (int e = 0; e < g.n; e += lane_count)
    for (int l = 0; l < lane_count; ++l) {
      const float x = std::fabs(g.x[e + l]), w = g.w[e + l];
      xx[l] += mul(w * x, x), ww[l] += w;
      most[l] = x > most[l] ? x : most[l];
    }
  for (int l = 1; l < lane_count; ++l) {
    xx[0] += xx[l], ww[0] += ww[l];
    most[0] = most[l] > most[0] ? most[l] : most[0];
  }
  const float even = std::sqrt(xx[0] / ww[0]) / 37.0f;
  if (even < 1e-30f) return 0.0f;
  if constexpr (starts == 0) return std::fmax(1.05f * even, most[0] / 120.0f);
  const float low = 0.75f * even, high = std::fmax(1.4f * even, most[0] / 105.0f);
  float best = 0.0f, gain = 0.0f;
  for (int i = 0; i < starts; ++i) {
    const float start = low + mul((high - low) * (1.0f / (starts - 1)), static_cast<float>(i));
    const code_sums c = choose_codewords<F>(g, start, reach).sums;
    if (!(c.xq > 0 && c.qq > 0)) continue;
    const float free = c.xq / c.qq;
    if (c.xq * free > gain) gain = c.xq * free, best = free;
  }
  return best;
}

/// Levels that scales of groups can have, in units of the row's float.
template <class F>
struct trellis_levels {
  static constexpr int count = [] {
    if constexpr (requires { F::scale_levels; })
      return int{F::scale_levels};
    else if constexpr (requires { F::min_sub_scale; })
      return F::max_sub_scale - F::min_sub_scale + 1;
    else
      return F::max_sub_scale + 1;
  }();
  static constexpr int level(int i) noexcept {
    if constexpr (requires { F::scale_levels; })
      return F::scale_level(i);
    else if constexpr (requires { F::min_sub_scale; })
      return F::min_sub_scale + i;
    else
      return i;
  }
  static constexpr int largest = [] {
    int m = 0;
    for (int i = 0; i < count; ++i) m = std::max(m, level(i) < 0 ? -level(i) : level(i));
    return m;
  }();

  /// The `tried` levels whose magnitudes are nearest to `own` (>= 0) under the row's float d > 0, nearest
  /// first.
  static constexpr int tried = trellis_effort<F>::levels;
  QUANTAL_INLINE static void nearest(float own, float d, int* out) noexcept {
    float distance[std::size_t{tried}];
    for (int t = 0; t < tried; ++t) distance[t] = std::numeric_limits<float>::max(), out[t] = 0;
    for (int i = 0; i < count; ++i) {
      const float off = std::fabs(std::fabs(d * static_cast<float>(level(i))) - own);
      if (!(off < distance[tried - 1])) continue;
      int t = tried - 1;
      for (; t > 0 && off < distance[t - 1]; --t) distance[t] = distance[t - 1], out[t] = out[t - 1];
      distance[t] = off, out[t] = i;
    }
  }
  static void store(typename F::block& b, int group, int i) noexcept {
    if constexpr (requires { F::scale_levels; })
      F::set_scale_index(b, group, i);
    else
      F::set_sub_scale(b, group, level(i));
  }
};

/// The row's float under which the own scales of all groups are met best, each weighed by what a miss costs it.
template <class F>
float choose_row_scale(const row_view& row, const quantize_policy& p, const std::byte* out,
                       float largest) noexcept {
  constexpr int n = F::layout.elements, groups = F::layout.groups(), tries = 25;
  using levels = trellis_levels<F>;
  const auto* blocks = row_blocks<F>(out);
  double error[tries] = {};
  const auto candidate = [&](int t) {
    return largest / levels::largest * (0.88f + mul(0.01f, static_cast<float>(t)));
  };
  for (std::int64_t b = 0; b < row.cols / n; ++b) {
    alignas(64) float x[std::size_t{n}], w[std::size_t{n}];
    const float mass = load_block<F, n>(row, b * n, p, x, w);
    float own[std::size_t{groups}];
    std::memcpy(own, static_cast<const void*>(blocks + b), sizeof own);
    for (int g = 0; g < groups; ++g) {
      float weight = 0;
      for (int e = 0; e < F::layout.group; ++e) weight += w[g * F::layout.group + e];
      for (int t = 0; t < tries; ++t) {
        int at[levels::tried];
        levels::nearest(own[g], candidate(t), at);
        const double miss = std::fabs(mul(candidate(t), static_cast<float>(levels::level(at[0])))) - own[g];
        error[t] += mul(static_cast<double>(mass) * weight * miss, miss);
      }
    }
  }
  return candidate(static_cast<int>(std::min_element(error, error + tries) - error));
}

/// Signs of weights that are zero cost nothing: each takes the one that brings the sum of the row's errors
/// nearer to zero. Only groups that hold such weights add to the sum.
template <signed_trellis F>
void balance_zeros(const trellis_choice<F>& c, float scale, trellis_group<F>& g,
                   error_balance& balance) noexcept {
  float v[trellis_choice<F>::n];
  std::uint32_t free = 0;
  for (int e = 0; e < g.n; ++e) {
    v[e] = scale * static_cast<float>(codeword_component<F>(c.index[e / F::vector], e % F::vector, c.seed));
    free |= static_cast<std::uint32_t>(is_signless(g.x[e], std::fabs(v[e]))) << e;
  }
  if (!free) return;
  for (int e = 0; e < g.n; ++e)
    if (!(free >> e & 1u)) balance.sum += g.signs >> e & 1u ? g.x[e] - v[e] : v[e] - g.x[e];
  g.signs &= ~free;
  for (std::uint32_t left = free; left; left &= left - 1) {
    const int e = std::countr_zero(left);
    const bool negative = balance.sum > 0.0f;
    if (negative) g.signs |= 1u << e;
    balance.sum += negative ? -v[e] : v[e];
  }
}

template <class F>
void store_group(const trellis_choice<F>& c, const trellis_group<F>& from, int group,
                 typename F::block& b) noexcept {
  for (int v = 0; v < c.vectors; ++v) F::set_grid(b, group * c.vectors + v, c.index[v]);
  if constexpr (seeded_trellis<F>) F::set_seed_bit(b, group, c.seed);
  if constexpr (signed_trellis<F>)
    for (int v = 0; v < c.vectors; ++v)
      F::set_signs(b, group * c.vectors + v,
                   static_cast<int>(from.signs >> (v * F::vector) & ((1u << F::vector) - 1)));
}

}  // namespace detail

/// The free scales of a block's groups wait in its own bytes until the float of the row is known.
template <trellis_format F>
void encode_row(const row_view& whole, const quantize_policy& p, std::byte* out) noexcept {
  row_view row = whole;
  row.unit = unit_of(row.largest);
  constexpr int n = F::layout.elements, groups = F::layout.groups(), size = F::layout.group;
  using levels = detail::trellis_levels<F>;
  const std::int64_t count = row.cols / n;
  const detail::trellis_reach reach = detail::reach_of<F>(p);
  auto* blocks = row_blocks<F>(out);
  alignas(64) float x[std::size_t{n}], w[std::size_t{n}];
  detail::trellis_group<F> group;
  float largest = 0;
  for (std::int64_t b = 0; b < count; ++b) {
    load_block<F, n>(row, b * n, p, x, w);
    float own[std::size_t{groups}];
    static_assert(sizeof own <= sizeof blocks[b]);
    for (int g = 0; g < groups; ++g) {
      group.load(x + g * size, w + g * size);
      own[g] = detail::free_trellis_scale<F>(group, reach.compare);
      largest = std::fmax(largest, own[g]);
    }
    std::memcpy(static_cast<void*>(blocks + b), own, sizeof own);
  }
  const float d = largest > 0 ? detail::choose_row_scale<F>(row, p, out, largest) : 0.0f;
  double xq = 0, qq = 0;
  error_balance balance;
  for (std::int64_t b = 0; b < count; ++b) {
    const double mass = load_block<F, n>(row, b * n, p, x, w);
    float own[std::size_t{groups}];
    std::memcpy(own, static_cast<const void*>(blocks + b), sizeof own);
    blocks[b] = typename F::block{};
    for (int g = 0; g < groups; ++g) {
      group.load(x + g * size, w + g * size);
      int at[levels::tried];
      levels::nearest(own[g], d, at);
      detail::trellis_choice<F> best;
      float least = std::numeric_limits<float>::max();
      int level = at[0];
      for (const int i : at) {
        const float s = d * static_cast<float>(levels::level(i));
        const auto c = detail::choose_codewords<F>(group, s, reach.choose);
        if (const float e = c.sums.error(s); e < least) least = e, best = c, level = i;
      }
      if constexpr (detail::signed_trellis<F>)
        detail::balance_zeros<F>(best, d * static_cast<float>(levels::level(level)), group, balance);
      levels::store(blocks[b], g, level);
      detail::store_group<F>(best, group, g, blocks[b]);
      const double l = levels::level(level);
      xq += mul(mass * l, best.sums.xq), qq += mul(mass * l * l, best.sums.qq);
    }
  }
  F::set_row_scale(out, (qq > 0 ? static_cast<float>(xq / qq) : d) / row.unit);
}

}  // namespace quantal::quantize
