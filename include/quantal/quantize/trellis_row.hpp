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
#include "quantal/quantize/lanes.hpp"
#include "quantal/quantize/row.hpp"

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

/// The codewords of a generator by bucket, in blocks of lane_count, component by component.
template <class F>
struct codeword_index {
  static constexpr int n = F::vector, size = F::grid_size, buckets = 256;
  static constexpr int most_blocks = size / lane_count + buckets;
  alignas(64) float value[most_blocks][n][lane_count];
  std::uint16_t id[most_blocks][lane_count];
  int begin[buckets + 1];  ///< first block of a bucket

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
    for (int b = 0; b < buckets; ++b) begin[b + 1] = begin[b] + (filled[b] + lane_count - 1) / lane_count;
    std::fill_n(filled, int{buckets}, 0);
    for (int i = 0; i < size; ++i) put(bucket_of(i), filled, i, seed);
    // A last block that is not full repeats its first codeword.
    for (int b = 0; b < buckets; ++b)
      while (filled[b] % lane_count) put(b, filled, id[begin[b] + filled[b] / lane_count][0], seed);
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
    const int block = begin[bucket] + filled[bucket] / lane_count, lane = filled[bucket] % lane_count;
    for (int k = 0; k < n; ++k)
      value[block][k][lane] = static_cast<float>(codeword_component<F>(index, k, seed));
    id[block][lane] = static_cast<std::uint16_t>(index);
    ++filled[bucket];
  }
};

/// Nearest codeword of what was searched so far, a candidate per lane.
template <class F>
class codeword_search {
 public:
  codeword_search(const codeword_index<F>& index, const float* target, const float* w) noexcept
      : index_(index) {
    for (int k = 0; k < n; ++k) target_[k] = target[k], weight_[k] = w[k];
    for (int l = 0; l < lane_count; ++l) least_[l] = std::numeric_limits<float>::infinity(), block_[l] = 0.0f;
  }

  /// Searches the buckets whose bound is below `reach` times the best cost, the home bucket first.
  void run(float reach) noexcept {
    alignas(64) float bound[codeword_index<F>::buckets];
    const int home = fill_bounds(bound);
    search(home);
    for (int first = 0; first < codeword_index<F>::buckets; first += static_cast<int>(batch::size)) {
      auto near = (batch::load_aligned(bound + first) < batch(reach * best_)).mask();
      for (; near; near &= near - 1) {
        const int b = first + __builtin_ctzll(near);
        if (bound[b] < reach * best_ && b != home) search(b);
      }
    }
  }

  float cost() const noexcept { return best_; }
  int index() const noexcept {
    int lane = 0;
    for (int l = 1; l < lane_count; ++l) lane = least_[l] < least_[lane] ? l : lane;
    return index_.id[static_cast<int>(block_[lane])][lane];
  }

 private:
  static constexpr int n = F::vector;
  using batch = lanes<F>;

  int fill_bounds(float* bound) const noexcept {
    using bins = component_bins<F>;
    int home = 0, width = 1;
    bound[0] = 0.0f;
    for (int k = 0; k < n; ++k, width *= bins::count) {
      home += width * bins::bin(target_[k]);
      for (int b = bins::count - 1; b >= 0; --b) {
        const float d = bins::distance(target_[k], b), cost = weight_[k] * d * d;
        for (int i = 0; i < width; ++i) bound[b * width + i] = bound[i] + cost;
      }
    }
    return home;
  }

  void search(int bucket) noexcept {
    for (int l = 0; l < lane_count; l += static_cast<int>(batch::size)) {
      batch least = batch::load_aligned(least_ + l), at = batch::load_aligned(block_ + l);
      for (int block = index_.begin[bucket]; block < index_.begin[bucket + 1]; ++block) {
        batch sum(0.0f);
        for (int k = 0; k < n; ++k) {
          const batch e = batch::load_aligned(index_.value[block][k] + l) - batch(target_[k]);
          sum += batch(weight_[k]) * e * e;
        }
        const auto better = sum < least;
        least = xsimd::select(better, sum, least);
        at = xsimd::select(better, batch(static_cast<float>(block)), at);
      }
      least.store_aligned(least_ + l);
      at.store_aligned(block_ + l);
    }
    best_ = least_[0];
    for (int l = 1; l < lane_count; ++l) best_ = least_[l] < best_ ? least_[l] : best_;
  }

  const codeword_index<F>& index_;
  float target_[n], weight_[n];
  alignas(64) float least_[lane_count];
  alignas(64) float block_[lane_count];
  float best_ = std::numeric_limits<float>::infinity();
};

/// A group's codewords under a scale.
template <class F>
struct trellis_choice {
  static constexpr int n = F::layout.group, vectors = n / F::vector;
  int index[vectors] = {};
  int seed = 0;
  std::uint32_t signs = 0;  ///< bit e: weight e is negative
  float error = 0.0f;       ///< sum w (x - s code)^2

  float code(int e) const noexcept {
    const int c = codeword_component<F>(index[e / F::vector], e % F::vector, seed);
    return static_cast<float>(signs >> e & 1 ? -c : c);
  }
};

/// A bucket is searched if its bound is below this share of the best find: 1 is exact; less costs little, and
/// least where scales are only compared.
struct trellis_reach {
  float compare, choose;

  constexpr trellis_reach(const quantize_policy& p) noexcept
      : compare(p.exact ? 1.0f : 0.1f), choose(p.exact ? 1.0f : 0.3f) {}
};

template <class F>
trellis_choice<F> choose_codewords(const float* x, const float* w, float s, int seed, float reach) noexcept {
  trellis_choice<F> c;
  c.seed = seed;
  const auto& index = codeword_index<F>::table(seed);
  const float inverse = safe_inverse(s);
  for (int v = 0; v < c.vectors; ++v) {
    float target[F::vector];
    for (int k = 0; k < F::vector; ++k) {
      const int e = v * F::vector + k;
      target[k] = x[e] * inverse;
      if constexpr (signed_trellis<F>) {
        c.signs |= static_cast<std::uint32_t>(x[e] < 0) << e;
        target[k] = std::fabs(target[k]);
      }
    }
    codeword_search<F> search(index, target, w + v * F::vector);
    search.run(reach);
    c.index[v] = search.index();
    c.error += search.cost() * s * s;
  }
  return c;
}

/// The better generator, where there are two.
template <class F>
trellis_choice<F> choose_codewords(const float* x, const float* w, float s, float reach) noexcept {
  auto c = choose_codewords<F>(x, w, s, 0, reach);
  if constexpr (seeded_trellis<F>) {
    const auto other = choose_codewords<F>(x, w, s, 1, reach);
    if (other.error < c.error) c = other;
  }
  return c;
}

/// Scales that are tried. With short vectors the error of a group is a rugged function of its scale.
template <class F>
struct trellis_effort {
  static constexpr int starts = F::vector < 8 ? 8 : 5, levels = F::vector < 8 ? 4 : 3;
};

struct trellis_fit {
  double xq = 0, qq = 0;
};

template <class F>
trellis_fit fit_of(const float* x, const float* w, const trellis_choice<F>& c) noexcept {
  trellis_fit f;
  for (int e = 0; e < c.n; ++e) {
    const double q = c.code(e);
    f.xq += w[e] * static_cast<double>(x[e]) * q;
    f.qq += w[e] * q * q;
  }
  return f;
}

/// The best free scale of a group, from guesses between one that makes codes and weights equally large and
/// one that just reaches the largest weight.
template <class F>
float free_trellis_scale(const float* x, const float* w, trellis_reach reach) noexcept {
  constexpr int starts = trellis_effort<F>::starts;
  double xx = 0, ww = 0;
  float largest = 0;
  for (int e = 0; e < F::layout.group; ++e) {
    xx += w[e] * static_cast<double>(x[e]) * x[e], ww += w[e];
    largest = std::fmax(largest, std::fabs(x[e]));
  }
  const float even = static_cast<float>(std::sqrt(xx / ww) / 37.0);
  if (even < 1e-30f) return 0.0f;
  const float low = 0.75f * even, ratio = std::fmax(1.4f * even, largest / 105.0f) / low;
  const float step = std::pow(ratio, 1.0f / (starts - 1));
  float best = 0.0f, start = low;
  double gain = 0;
  for (int i = 0; i < starts; ++i, start *= step) {
    const auto f = fit_of<F>(x, w, choose_codewords<F>(x, w, start, reach.compare));
    if (f.xq > 0 && f.qq > 0 && f.xq * f.xq / f.qq > gain)
      gain = f.xq * f.xq / f.qq, best = static_cast<float>(f.xq / f.qq);
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

  /// The `tried` levels whose magnitudes are nearest to `wish` (>= 0) under the row's float d > 0, nearest
  /// first.
  static constexpr int tried = trellis_effort<F>::levels;
  QUANTAL_INLINE static void nearest(float wish, float d, int* out) noexcept {
    float distance[tried];
    for (int t = 0; t < tried; ++t) distance[t] = std::numeric_limits<float>::infinity(), out[t] = 0;
    for (int i = 0; i < count; ++i) {
      const float off = std::fabs(std::fabs(d * static_cast<float>(level(i))) - wish);
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

/// The row's float under which the wishes of all groups are met best, each weighed by what a miss costs it.
template <class F>
float choose_row_scale(const row_view& row, const quantize_policy& p, const std::byte* out,
                       float largest) noexcept {
  constexpr int n = F::layout.elements, groups = F::layout.groups(), tries = 25;
  using levels = trellis_levels<F>;
  const auto* blocks = row_blocks<F>(out);
  double error[tries] = {};
  const auto candidate = [&](int t) {
    return largest / levels::largest * (0.88f + 0.01f * static_cast<float>(t));
  };
  for (std::int64_t b = 0; b < row.cols / n; ++b) {
    alignas(64) float x[n], w[n];
    const float mass = load_block<n>(row, b * n, p, x, w);
    float wish[groups];
    std::memcpy(wish, static_cast<const void*>(blocks + b), sizeof wish);
    for (int g = 0; g < groups; ++g) {
      float weight = 0;
      for (int e = 0; e < F::layout.group; ++e) weight += w[g * F::layout.group + e];
      for (int t = 0; t < tries; ++t) {
        int at[levels::tried];
        levels::nearest(wish[g], candidate(t), at);
        const double miss = std::fabs(candidate(t) * static_cast<float>(levels::level(at[0]))) - wish[g];
        error[t] += static_cast<double>(mass) * weight * miss * miss;
      }
    }
  }
  return candidate(static_cast<int>(std::min_element(error, error + tries) - error));
}

template <class F>
void store_group(const trellis_choice<F>& c, int group, typename F::block& b) noexcept {
  for (int v = 0; v < c.vectors; ++v) F::set_grid(b, group * c.vectors + v, c.index[v]);
  if constexpr (seeded_trellis<F>) F::set_seed_bit(b, group, c.seed);
  if constexpr (signed_trellis<F>)
    for (int v = 0; v < c.vectors; ++v)
      F::set_signs(b, group * c.vectors + v,
                   static_cast<int>(c.signs >> (v * F::vector) & ((1u << F::vector) - 1)));
}

}  // namespace detail

/// The free scales of a block's groups wait in its own bytes until the float of the row is known.
template <trellis_format F>
void encode_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  constexpr int n = F::layout.elements, groups = F::layout.groups(), size = F::layout.group;
  using levels = detail::trellis_levels<F>;
  const std::int64_t count = row.cols / n;
  const detail::trellis_reach reach(p);
  auto* blocks = row_blocks<F>(out);
  alignas(64) float x[n], w[n];
  float largest = 0;
  for (std::int64_t b = 0; b < count; ++b) {
    load_block<n>(row, b * n, p, x, w);
    float wish[groups];
    static_assert(sizeof wish <= sizeof blocks[b]);
    for (int g = 0; g < groups; ++g) {
      wish[g] = detail::free_trellis_scale<F>(x + g * size, w + g * size, reach);
      largest = std::fmax(largest, wish[g]);
    }
    std::memcpy(static_cast<void*>(blocks + b), wish, sizeof wish);
  }
  const float d = largest > 0 ? detail::choose_row_scale<F>(row, p, out, largest) : 0.0f;
  detail::trellis_fit fit;
  for (std::int64_t b = 0; b < count; ++b) {
    const float mass = load_block<n>(row, b * n, p, x, w);
    float wish[groups];
    std::memcpy(wish, static_cast<const void*>(blocks + b), sizeof wish);
    blocks[b] = typename F::block{};
    for (int g = 0; g < groups; ++g) {
      int at[levels::tried];
      levels::nearest(wish[g], d, at);
      detail::trellis_choice<F> best;
      best.error = std::numeric_limits<float>::infinity();
      int level = at[0];
      for (const int i : at) {
        const auto c = detail::choose_codewords<F>(x + g * size, w + g * size,
                                                   d * static_cast<float>(levels::level(i)), reach.choose);
        if (c.error < best.error) best = c, level = i;
      }
      levels::store(blocks[b], g, level);
      detail::store_group<F>(best, g, blocks[b]);
      const auto f = detail::fit_of<F>(x + g * size, w + g * size, best);
      const double l = levels::level(level);
      fit.xq += mass * l * f.xq, fit.qq += mass * l * l * f.qq;
    }
  }
  F::set_row_scale(out, fit.qq > 0 ? static_cast<float>(fit.xq / fit.qq) : d);
}

}  // namespace quantal::quantize
