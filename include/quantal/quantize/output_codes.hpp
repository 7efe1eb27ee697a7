// The one thing that output-aware quantization asks of a format: codes for eight neighbouring weights under
// the scales that the row already has, for the least |(x - q) U + y|^2. U is upper triangular; y is what the
// errors of other columns have put into the same components.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "quantal/dequantize.hpp"
#include "quantal/quantize/group_coder.hpp"
#include "quantal/quantize/output_coder.hpp"
#include "quantal/quantize/output_scales.hpp"
#include "quantal/quantize/quantize.hpp"

namespace quantal::quantize {

/// The code nearest to what each weight should be, now that the errors of the weights before it are known.
template <single_codes F>
void choose_codes(std::byte* row, std::int64_t first, const group_target& t, float* decoded) noexcept {
  static_assert(F::layout.group % code_group == 0);
  using book = codebook<F>;
  auto& b = row_blocks<F>(row)[first / F::layout.elements];
  const int e0 = static_cast<int>(first % F::layout.elements), g = e0 / F::layout.group;
  const float rs = row_scale<F>(row), scale = F::scale(b, rs, g), inverse = safe_inverse(scale);
  float offset = 0.0f, shift = 0.0f;
  if constexpr (F::layout.has_offset) offset = simd::opaque(F::offset(b, rs, g));
  if constexpr (book::tables == 2) shift = F::table(b, g) ? static_cast<float>(book::shift) : 0.0f;
  float error[code_group];
  for (int i = 0; i < code_group; ++i) {
    float y = t.y[i];
    for (int k = 0; k < i; ++k) y += mul(error[k], t.factor[k * t.stride + i]);
    const float wanted = t.x[i] + y / t.factor[i * t.stride + i];
    const int index = book::nearest(mul(wanted - offset, inverse) - shift);
    book::store(b, e0 + i, index);
    decoded[i] = mul(scale, static_cast<float>(book::level(index)) + shift);
    if constexpr (F::layout.has_offset) decoded[i] += offset;
    error[i] = t.x[i] - decoded[i];
  }
}

/// Formats that choose a vector of a small table for 2, 4 or 8 weights, perhaps with signs or a shift.
template <class F>
concept vector_codes = block_format<F> && !single_codes<F> && F::vector <= code_group &&
                       F::grid_size <= 2048 && requires(int i) {
  { F::grid_value(i, i) } -> std::same_as<int>;
};

namespace detail {

/// What the signs of a vector may be.
enum class sign_rule { none, any, even, odd };

template <class F>
constexpr bool has_signs() noexcept {
  return requires { F::even_signs; };
}
template <class F>
constexpr bool even_signs() noexcept {
  if constexpr (has_signs<F>())
    return F::even_signs;
  else
    return false;
}

/// The vectors of F component by component, as floats.
template <class F>
struct vector_table {
  alignas(64) float component[std::size_t{F::vector}][std::size_t{F::grid_size}];

  vector_table() noexcept {
    for (int k = 0; k < F::vector; ++k)
      for (int i = 0; i < F::grid_size; ++i) component[k][i] = static_cast<float>(F::grid_value(i, k));
  }
  static const vector_table& get() noexcept {
    static const vector_table one;
    return one;
  }
};

/// n weights that share a codeword (all members are inlined: the same code serves every arch): target t, and
/// metric G: the cost of q is (t - q) G (t - q).
template <int n>
struct vector_problem {
  float t[std::size_t{n}], metric[std::size_t{n}][std::size_t{n}];

  /// Of the target's columns i .. i + n, once the errors before them are in z = y + error * U.
  QUANTAL_INLINE void load(const group_target& g, int i, const float* z) noexcept {
    const float* u = g.factor + i * g.stride + i;
    float step[std::size_t{n}];
    for (int c = 0; c < n; ++c) {  // step U = z
      float s = z[c];
      for (int k = 0; k < c; ++k) s -= mul(step[k], u[k * g.stride + c]);
      step[c] = s / u[c * g.stride + c];
      t[c] = g.x[i + c] + step[c];
    }
    for (int a = 0; a < n; ++a)
      for (int b = 0; b < n; ++b) {
        float s = 0.0f;
        for (int c = a > b ? a : b; c < n; ++c) s += mul(u[a * g.stride + c], u[b * g.stride + c]);
        metric[a][b] = s;
      }
  }
  QUANTAL_INLINE float cost(const float* q) const noexcept {
    float d[std::size_t{n}], sum = 0.0f;
    for (int k = 0; k < n; ++k) d[k] = t[k] - q[k];
    for (int a = 0; a < n; ++a) {
      float s = 0.0f;
      for (int b = 0; b < n; ++b) s += mul(metric[a][b], d[b]);
      sum += mul(d[a], s);
    }
    return sum;
  }
};

/// A choice for n weights: entry of the table, signs (bit k: weight k is negative), values.
template <int n>
struct vector_choice {
  int index = 0, signs = 0;
  float cost = 0.0f;
  float q[std::size_t{n}] = {};

  /// Flips one sign, or two where parity is fixed, as long as that pays.
  QUANTAL_INLINE void improve_signs(const vector_problem<n>& p, bool pairs) noexcept {
    float slope[std::size_t{n}];  // of the cost, by the value of a weight; negative
    for (int sweep = 0; sweep < n; ++sweep) {
      float step[std::size_t{n}], single[std::size_t{n}];
      price_flips(p, slope, step, single);
      float least = -1e-6f * cost;
      int i = -1, j = -1;
      for (int a = 0; a < n; ++a) {
        if (!pairs && single[a] < least) least = single[a], i = a;
        for (int b = 0; pairs && b < a; ++b) {
          const float both = single[a] + single[b] + mul(2.0f * step[a] * step[b], p.metric[a][b]);
          if (both < least) least = both, i = a, j = b;
        }
      }
      if (i < 0) return;
      flip(i);
      if (j >= 0) flip(j);
      cost = p.cost(q);
    }
  }
  /// The one flip that costs least.
  QUANTAL_INLINE void flip_cheapest(const vector_problem<n>& p) noexcept {
    float slope[std::size_t{n}], step[std::size_t{n}], single[std::size_t{n}];
    price_flips(p, slope, step, single);
    int best = 0;
    for (int k = 1; k < n; ++k) best = single[k] < single[best] ? k : best;
    flip(best);
    cost = p.cost(q);
  }

 private:
  QUANTAL_INLINE void flip(int k) noexcept { signs ^= 1 << k, q[k] = -q[k]; }
  /// What each flip adds to the cost.
  QUANTAL_INLINE void price_flips(const vector_problem<n>& p, float* slope, float* step,
                                  float* single) const noexcept {
    for (int a = 0; a < n; ++a) slope[a] = 0.0f;
    for (int b = 0; b < n; ++b) {  // a symmetric metric, row by row
      float part[std::size_t{n}];
      for (int a = 0; a < n; ++a) part[a] = p.metric[b][a] * (p.t[b] - q[b]);
      simd::make_opaque<n>(part);
      for (int a = 0; a < n; ++a) slope[a] += part[a];
    }
    for (int k = 0; k < n; ++k) {
      step[k] = 2.0f * q[k];  // of t - q
      single[k] = mul(step[k], mul(2.0f, slope[k]) + mul(step[k], p.metric[k][k]));
    }
  }
};

/// Entries that are near in the diagonal metric: the best of every sixteenth. `wanted` is in units of the
/// table.
inline constexpr int shortlist = lane_count;
/// Buckets of codewords are searched if their bound is below this share of the best find.
inline constexpr float codeword_reach = 0.3f;

template <vector_codes F>
void near_entries(const float* wanted, const float* weight, int, int* index) noexcept {
  using batch = lanes<F>;
  constexpr int size = static_cast<int>(batch::size), registers = shortlist / size;
  const auto& table = vector_table<F>::get();
  batch least[std::size_t{registers}], at[std::size_t{registers}], target[std::size_t{F::vector}],
      w[std::size_t{F::vector}];
  for (int r = 0; r < registers; ++r) least[r] = batch(3e38f), at[r] = batch(0.0f);
  for (int k = 0; k < F::vector; ++k) target[k] = batch(wanted[k]), w[k] = batch(weight[k]);
  for (int first = 0; first < F::grid_size; first += shortlist)
    for (int r = 0; r < registers; ++r) {
      batch cost(0.0f);
      for (int k = 0; k < F::vector; ++k) {
        const batch d = target[k] - batch::load_aligned(table.component[k] + first + r * size);
        cost = cost + w[k] * (d * d);
      }
      const auto better = cost < least[r];
      least[r] = xsimd::min(cost, least[r]);
      at[r] = xsimd::select(better, batch(static_cast<float>(first)), at[r]);
    }
  alignas(64) float found[shortlist];
  for (int r = 0; r < registers; ++r) at[r].store_aligned(found + r * size);
  for (int l = 0; l < shortlist; ++l) index[l] = static_cast<int>(found[l]) + l;
}

/// The same of a trellis' codewords. Buckets further away than for the plain choice are searched too.
template <trellis_format F>
void near_entries(const float* wanted, const float* weight, int seed, int* index) noexcept {
  static_assert(shortlist == tile_codes);
  const auto& table = codeword_index<F>::table(seed);
  trellis_group<F, F::vector> g;
  g.load(wanted, weight);
  near_codewords<F>(table, g, trellis_targets<F, F::vector>(g, 1.0f), 0, codeword_reach).shortlist(index);
  for (int l = 0; l < shortlist; ++l) index[l] = table.id[index[l] / tile_codes][index[l] % tile_codes];
}

template <vector_codes F>
QUANTAL_INLINE float entry_component(int index, int k, int) noexcept {
  return vector_table<F>::get().component[k][index];
}
template <trellis_format F>
QUANTAL_INLINE float entry_component(int index, int k, int seed) noexcept {
  return static_cast<float>(codeword_component<F>(index, k, seed));
}

/// The shortlist under natural signs, side by side.
template <class F>
struct vector_candidates {
  static constexpr int n = F::vector;
  int index[shortlist];
  alignas(64) float q[std::size_t{n}][std::size_t{shortlist}];
  alignas(64) float cost[shortlist];

  void measure(const vector_problem<n>& p) noexcept {
    using batch = lanes<F>;
    for (int l = 0; l < shortlist; l += static_cast<int>(batch::size)) {
      batch d[std::size_t{n}], sum(0.0f);
      for (int a = 0; a < n; ++a) {
        d[a] = batch(p.t[a]) - batch::load_aligned(q[a] + l);
        batch s = batch(p.metric[a][a]) * d[a];
        for (int b = 0; b < a; ++b) s = s + batch(2.0f * p.metric[a][b]) * d[b];
        sum = sum + s * d[a];
      }
      sum.store_aligned(cost + l);
    }
  }
  vector_choice<n> choice(int l, int signs) const noexcept {
    vector_choice<n> c{index[l], signs, cost[l], {}};
    for (int k = 0; k < n; ++k) c.q[k] = q[k][l];
    return c;
  }
};

/// Candidates whose signs are worked on.
inline constexpr int sign_candidates = 4;

/// The best vector under a scale: code = factor * entry + shift, times a sign.
template <class F>
vector_choice<F::vector> choose_vector(const vector_problem<F::vector>& p, float scale, float factor,
                                       float shift, int seed, sign_rule rule) noexcept {
  constexpr int n = F::vector;
  const float inverse = safe_inverse(scale), unit = 1.0f / factor;
  float wanted[std::size_t{n}], weight[std::size_t{n}];
  int natural = 0;
  for (int k = 0; k < n; ++k) {
    const float v = mul(p.t[k], inverse);
    const bool negative = rule != sign_rule::none && v < 0.0f;
    natural |= negative << k;
    wanted[k] = ((negative ? -v : v) - shift) * unit, weight[k] = p.metric[k][k];
  }
  vector_candidates<F> near;
  near_entries<F>(wanted, weight, seed, near.index);
  for (int k = 0; k < n; ++k) {
    const float s = natural >> k & 1 ? -scale : scale;
    for (int l = 0; l < shortlist; ++l)
      near.q[k][l] = mul(s, mul(factor, entry_component<F>(near.index[l], k, seed)) + shift);
  }
  near.measure(p);
  if constexpr (!has_signs<F>()) return near.choice(smallest<F, shortlist>(near.cost), 0);
  vector_choice<n> best;
  for (int i = 0; i < sign_candidates; ++i) {
    const int l = smallest<F, shortlist>(near.cost);
    auto c = near.choice(l, natural);
    near.cost[l] = 3e38f;
    const bool odd = std::popcount(static_cast<unsigned>(c.signs)) & 1;
    if ((rule == sign_rule::even && odd) || (rule == sign_rule::odd && !odd)) c.flip_cheapest(p);
    if (rule != sign_rule::none) c.improve_signs(p, rule != sign_rule::any);
    if (i == 0 || c.cost < best.cost) best = c;
  }
  return best;
}

/// What all vectors of a group of eight have in common.
template <class F>
struct vector_setting {
  float scale, factor = 1.0f, shift = 0.0f;
  int seed = 0;

  vector_setting(const std::byte* row, std::int64_t first) noexcept {
    const auto& b = row_blocks<F>(row)[first / F::layout.elements];
    const int e0 = static_cast<int>(first % F::layout.elements);
    scale = F::scale(b, row_scale<F>(row), e0 / F::layout.group);
    if constexpr (requires { F::shift_group; })
      factor = 8.0f, shift = static_cast<float>(F::shift(b, e0 / F::shift_group));
    if constexpr (requires { F::seed_bit(b, 0); }) seed = F::seed_bit(b, e0 / F::layout.group);
  }
};

/// The vectors of eight weights, one after the other.
template <class F>
struct unit_of_vectors {
  static constexpr int n = F::vector, count = code_group / n;
  vector_choice<n> vector[std::size_t{count}];
  float cost = 0.0f;

  int signs() const noexcept {
    int all = 0;
    for (int v = 0; v < count; ++v) all |= vector[v].signs << (n * v);
    return all;
  }
  /// The next vector, given those before it.
  void add(int v, const group_target& t, const vector_setting<F>& s, sign_rule rule) noexcept {
    const int i = v * n;
    float z[std::size_t{n}];
    for (int c = 0; c < n; ++c) {
      z[c] = t.y[i + c];
      for (int k = 0; k < i; ++k)
        z[c] += mul(t.x[k] - vector[k / n].q[k % n], t.factor[k * t.stride + i + c]);
    }
    vector_problem<n> p;
    p.load(t, i, z);
    vector[v] = choose_vector<F>(p, s.scale, s.factor, s.shift, s.seed, rule);
    cost += vector[v].cost;
  }
};

template <class F>
unit_of_vectors<F> choose_unit(const group_target& t, const vector_setting<F>& s) noexcept {
  using unit = unit_of_vectors<F>;
  unit best;
  if constexpr (even_signs<F>() && unit::count == 2) {
    // The signs of both vectors have the same parity: either.
    unit odd;
    for (int v = 0; v < 2; ++v) best.add(v, t, s, sign_rule::even), odd.add(v, t, s, sign_rule::odd);
    if (odd.cost < best.cost) best = odd;
  } else {
    static_assert(!even_signs<F>() || unit::count == 1);
    const auto rule = !has_signs<F>() ? sign_rule::none : even_signs<F>() ? sign_rule::even : sign_rule::any;
    for (int v = 0; v < unit::count; ++v) best.add(v, t, s, rule);
  }
  return best;
}

}  // namespace detail

template <class F>
requires(vector_codes<F> || trellis_format<F>) void choose_codes(std::byte* row, std::int64_t first,
                                                                 const group_target& t,
                                                                 float* decoded) noexcept {
  constexpr int n = F::vector;
  const auto unit = detail::choose_unit<F>(t, detail::vector_setting<F>(row, first));
  auto& b = row_blocks<F>(row)[first / F::layout.elements];
  const int e0 = static_cast<int>(first % F::layout.elements);
  for (int v = 0; v < unit.count; ++v) {
    if constexpr (requires { F::set_vector(b, 0, 0, 0); })
      F::set_vector(b, e0 / n, unit.vector[v].index, unit.vector[v].signs);
    else
      F::set_grid(b, e0 / n + v, unit.vector[v].index);
    for (int c = 0; c < n; ++c) decoded[v * n + c] = unit.vector[v].q[c];
  }
  if constexpr (requires { F::set_signs(b, 0, 0); }) F::set_signs(b, e0 / code_group, unit.signs());
}

namespace detail {

/// Two words of four weights each, weight by weight: the best choices for either parity of both words so far.
template <word_codes F>
class word_search {
  static constexpr int states = 4;  // bit w: word w has an odd number of set bits
  struct path {
    int index[code_group] = {};
    float q[code_group] = {}, cost = 3e38f;
  };

 public:
  word_search(const group_target& t, float scale, int table) noexcept
      : t_(t), scale_(scale), inverse_(safe_inverse(scale)), table_(table) {
    best_[0].cost = 0.0f;
  }
  /// Weight i, of word w.
  void add(int i, int w) noexcept {
    path next[states];
    for (int state = 0; state < states; ++state) {
      const path& p = best_[state];
      if (!(p.cost < 3e38f)) continue;
      float y = t_.y[i];
      for (int k = 0; k < i; ++k) y += mul(t_.x[k] - p.q[k], t_.factor[k * t_.stride + i]);
      const float u = t_.factor[i * t_.stride + i], wanted = t_.x[i] + y / u;
      const float v = mul(wanted, inverse_) - (table_ ? group_coder<F>::shift : 0.0f);
      for (int parity = 0; parity < 2; ++parity) {
        const int index = group_coder<F>::nearest(v, parity);
        const float q = mul(scale_, static_cast<float>(F::level(index, table_)));
        const float miss = mul(wanted - q, u), cost = p.cost + mul(miss, miss);
        path& to = next[state ^ parity << w];
        if (!(cost < to.cost)) continue;
        to = p;
        to.index[i] = index, to.q[i] = q, to.cost = cost;
      }
    }
    std::copy_n(next, states, best_);
  }
  const int* indices() const noexcept { return best_[0].index; }
  const float* decoded() const noexcept { return best_[0].q; }

 private:
  const group_target& t_;
  float scale_, inverse_;
  int table_;
  path best_[states];
};

}  // namespace detail

/// Words of four weights whose indices have an even number of set bits between them (iq4_kss): two neighbours
/// and the two 16 columns on. Eight weights are two words: four neighbours and the four 16 columns on.
template <word_codes F>
void choose_codes(std::byte* row, std::int64_t first, const group_target& t, float* decoded) noexcept {
  auto& b = row_blocks<F>(row)[first / F::layout.elements];
  const int e0 = static_cast<int>(first % F::layout.elements), g = e0 / F::layout.group;
  detail::word_search<F> words(t, F::scale(b, row_scale<F>(row), g), F::table(b, g));
  for (int i = 0; i < code_group; ++i) words.add(i, i % 4 / 2);
  const int* v = words.indices();
  for (int w = 0; w < 2; ++w, v += 2)
    F::set_word(b, F::layout.group / 4 * g + e0 % F::layout.group / 2 + w,
                v[0] | v[4] << 4 | v[1] << 8 | v[5] << 12);
  std::copy_n(words.decoded(), code_group, decoded);
}

/// Neighbours among the eight weights that choose together.
template <class F>
constexpr int code_run() noexcept {
  return word_codes<F> ? 4 : code_group;
}

template <class F>
concept output_codable = quantizable<F> && block_format<F> && F::usage == role::weight &&
                         (single_codes<F> || vector_codes<F> || trellis_format<F> || word_codes<F>);

/// F's coder on arch A. The bytes do not depend on it.
template <output_codable F, class A = simd::native>
constexpr output_coder coder_of() noexcept {
  using G = on_arch<F, A>;
  return {F::layout.elements,   F::layout.bytes,      F::layout.row_meta,
          F::layout.group,      F::layout.has_offset, code_run<F>(),
          shared_scale_of<F>(), &row_bytes<G>,        &quantize_row<F, quantize_policy{}, A>,
          &dequantize_row<G>,   &choose_codes<G>,     &decode_part<G>,
          &codes_of_group<G>,   &move_scale<G>,       &move_shared<G>};
}

}  // namespace quantal::quantize
