// Groups whose scale is an integer times a scale that they share: with the block (q3_K, q6_K, iq4_xs, iq2_k
// .. iq6_k) or with the row (iq2_ks .. iq5_ks, iq4_kss, iq2_kl). Where a format has two tables each group
// chooses one.
//
// Each group is searched alone first and keeps its two best scales, its own ones. A shared scale then turns
// them into integers: for every candidate each group takes, among the integers around its own scales, the
// one with the least error of the codes it really gets. Their sums refit the shared scale by least squares;
// an increase is never accepted.
#pragma once

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>

#include "quantal/quantize/balance.hpp"
#include "quantal/quantize/group_coder.hpp"
#include "quantal/quantize/lattice.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/quantize/scale_search.hpp"

namespace quantal::quantize {

template <class F>
concept scaled_groups = block_format<F> && !F::layout.has_offset && requires(typename F::block & b) {
  sizeof(group_coder<F>);
  { F::min_sub_scale + F::max_sub_scale } -> std::convertible_to<int>;
  F::set_sub_scale(b, 0, 0);
};
/// The block stores what its groups share.
template <class F>
concept scaled_by_block = scaled_groups<F> && F::layout.row_meta == 0 && requires(typename F::block& b) {
  F::set_super(b, 1.0f);
};
/// The row stores it.
template <class F>
concept scaled_by_row = scaled_groups<F> && F::layout.row_meta > 0 && requires(std::byte* row) {
  F::set_row_scale(row, 1.0f);
};

namespace detail {

/// The free scales that suit a group best, of two different kinds (sign of the scale, table). The table is
/// the lowest bit of the mantissa: four bytes a scale.
struct free_scales {
  static constexpr int count = 2;
  float scale[count] = {};

  static QUANTAL_INLINE float packed(float scale, int table) noexcept {
    return quantal::detail::float_from_bits((quantal::detail::bits_from_float(scale) & ~1u) |
                                            static_cast<std::uint32_t>(table));
  }
  static QUANTAL_INLINE int table(float own) noexcept {
    return static_cast<int>(quantal::detail::bits_from_float(own) & 1u);
  }
};

template <class F>
constexpr int sub_scale_step() noexcept {
  if constexpr (requires { F::sub_scale_step; })
    return F::sub_scale_step;
  else
    return 1;
}

template <class F>
free_scales free_scales_of(const group_view& g) noexcept {
  using coder = group_coder<F>;
  // Eight starts a kind: the integers around a scale refine it anyway.
  constexpr int kinds = 2 * coder::tables, each = 8, total = kinds * each;
  const float extreme = extreme_of<F, coder::size>(g.x);
  free_scales out;
  if (std::fabs(extreme) < 1e-30f) return out;
  alignas(64) float inverse[std::size_t{total}], shifts[std::size_t{total}], xq[std::size_t{total}],
      qq[std::size_t{total}];
  for (int kind = 0; kind < kinds; ++kind) {
    const float s = kind / 2 ? coder::shift : 0.0f;
    const float end = (kind % 2 ? coder::highest : coder::lowest) + s;
    for (int k = 0; k < each; ++k) {
      inverse[kind * each + k] = end / extreme * candidate_factor<coder, each>(k);
      shifts[kind * each + k] = s;
    }
  }
  coder::template sums<total>(g, inverse, shifts, xq, qq);
  alignas(64) float loss[std::size_t{total}];
  for (int k = 0; k < total; ++k) {
    const float f = xq[k] / (qq[k] > 0.0f ? qq[k] : 1.0f);
    loss[k] = -xq[k] * f;
    xq[k] = f;
  }
  float gain[free_scales::count] = {};
  for (int kind = 0; kind < kinds; ++kind) {
    int at = kind * each;
    for (int k = at + 1; k < (kind + 1) * each; ++k) at = loss[k] < loss[at] ? k : at;
    const float best = -loss[at];
    float scale = xq[at];
    scale = free_scales::packed(scale, kind / 2);
    if (best > gain[0]) {
      gain[1] = gain[0], out.scale[1] = out.scale[0];
      gain[0] = best, out.scale[0] = scale;
    } else if (best > gain[1]) {
      gain[1] = best, out.scale[1] = scale;
    }
  }
  return out;
}

/// Puts the scale of a lattice first, if the group lies on one.
template <class F>
void prefer_lattice(const group_view& g, float rounding, free_scales& own) noexcept {
  if constexpr (single_codes<F>)
    if (const lattice_fit fit = lattice_of<F>(g, rounding); fit.scale != 0.0f) {
      own.scale[1] = own.scale[0];
      own.scale[0] = free_scales::packed(fit.scale, fit.shifted);
    }
}

/// The shared scale of which the first own scales of nearly all groups, own(0) .. own(count - 1), are
/// multiples; 0 if there is none. Groups of one weight or two may lie on several lattices.
template <class F, class FreeScale>
float common_scale(std::int64_t count, float extreme, float rounding, FreeScale&& own) noexcept {
  constexpr int step = sub_scale_step<F>();
  const auto fits = [&](int at) {
    const float unit = static_cast<float>(at) / extreme;
    std::int64_t misses = 0;
    for (std::int64_t g = 0; g < count && misses <= count / 8; ++g) {
      const float v = own(g) * unit, off = (v - F::min_sub_scale) * (1.0f / step);
      const bool multiple =
          v > F::min_sub_scale - 0.02f && v < F::max_sub_scale + 0.02f &&
          std::fabs(off - static_cast<float>(rounded(off, 0, 255))) < multiple_tolerance(v, rounding);
      misses += v != 0.0f && !multiple;
    }
    return misses <= count / 8;
  };
  // The finest first: positive ones, whose negatives exist too.
  for (int at = F::max_sub_scale; at > 0; at -= step)
    if (fits(at)) return extreme / static_cast<float>(at);
  for (int at = F::min_sub_scale; at < 0; at += step)
    if (fits(at)) return extreme / static_cast<float>(at);
  return 0.0f;
}

/// What a group takes under a shared scale. Sums are in units of the shared scale; the error lacks sum w x x.
struct group_choice {
  int sub = 0, table = 0;
  float error = 0.0f, xq = 0.0f, qq = 0.0f;
};

/// The sub-scales that a group tries under a shared scale: the integers around its own scales.
struct sub_scale_trials {
  alignas(64) float sub[lane_count], shifts[lane_count];
};
template <class F>
QUANTAL_INLINE sub_scale_trials trials_around(const free_scales& own, float unit) noexcept {
  using coder = group_coder<F>;
  constexpr int step = sub_scale_step<F>(), each = lane_count / free_scales::count;
  constexpr int top = (F::max_sub_scale - F::min_sub_scale) / step;
  sub_scale_trials t;
  for (int c = 0; c < free_scales::count; ++c) {
    const float at = (mul(own.scale[c], unit) - F::min_sub_scale) * (1.0f / step);
    const int first = std::clamp(rounded(at, 0, top) - (each / 2 - 1), 0, std::max(top + 1 - each, 0));
    const float start = static_cast<float>(F::min_sub_scale + step * first);
    const float shift = free_scales::table(own.scale[c]) ? coder::shift : 0.0f;
    for (int k = 0; k < each; ++k) {
      t.sub[c * each + k] = start + static_cast<float>(step * k);
      t.shifts[c * each + k] = shift;
    }
  }
  return t;
}

/// Errors at these scales without the constant sum w x x.
template <class F>
QUANTAL_INLINE void errors_of(const float* scale, const float* xq, const float* qq, float* error) noexcept {
  using batch = lanes<F>;
  for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
    const batch s = batch::load_aligned(scale + k), twice = batch(2.0f) * batch::load_aligned(xq + k);
    (s * (s * batch::load_aligned(qq + k) - twice)).store_aligned(error + k);
  }
}

template <class F>
group_choice choose_sub_scale(const group_view& g, const free_scales& own, float shared) noexcept {
  using coder = group_coder<F>;
  alignas(64) float scale[lane_count], inverse[lane_count];
  alignas(64) float xq[lane_count], qq[lane_count], error[lane_count];
  const sub_scale_trials t = trials_around<F>(own, safe_inverse(shared));
  for (int k = 0; k < lane_count; ++k) scale[k] = shared * t.sub[k];
  for (int k = 0; k < lane_count; ++k) inverse[k] = safe_inverse(scale[k]);
  coder::template sums<lane_count>(g, inverse, t.shifts, xq, qq);
  errors_of<F>(scale, xq, qq, error);
  const int best = smallest<F, lane_count>(error);
  const float s = t.sub[best];
  return {static_cast<int>(s), t.shifts[best] != 0.0f, error[best], s * xq[best], s * s * qq[best]};
}

/// The same with what the sum of the errors costs the row. The negatives of the own scales are tried too: their
/// errors are of the opposite sign where the levels are not symmetric.
template <class F>
group_choice choose_balanced_sub_scale(const group_view& g, const free_scales& own, float shared,
                                       error_balance& balance) noexcept {
  using coder = group_coder<F>;
  alignas(64) float scale[lane_count], inverse[lane_count];
  alignas(64) float xq[lane_count], qq[lane_count], sum[lane_count], unused[lane_count];
  const group_view plain{g.x, g.w, ones<coder::size>::at.data()};
  float total = 0, norm = 0;
  for (int i = 0; i < coder::size; ++i) total += g.x[i], norm += g.wx[i] * g.x[i];
  group_choice best = choose_sub_scale<F>(g, own, shared);
  const float limit = error_balance::limit(best.error, norm, norm);
  float least = std::numeric_limits<float>::max(), bias = 0;
  for (const float sign : {1.0f, -1.0f}) {
    const sub_scale_trials t = trials_around<F>(own, sign * safe_inverse(shared));
    for (int k = 0; k < lane_count; ++k) scale[k] = shared * t.sub[k], inverse[k] = safe_inverse(scale[k]);
    coder::template sums<lane_count>(g, inverse, t.shifts, xq, qq);
    coder::template sums<lane_count>(plain, inverse, t.shifts, sum, unused);
    for (int k = 0; k < lane_count; ++k) {
      const float error = mul(scale[k], mul(scale[k], qq[k]) - mul(2.0f, xq[k])),
                  b = mul(scale[k], sum[k]) - total;
      if (const float cost = error + balance.cost(b); error <= limit && cost < least) {
        const float s = t.sub[k];
        least = cost, bias = b;
        best = {static_cast<int>(s), t.shifts[k] != 0.0f, error, s * xq[k], s * s * qq[k]};
      }
    }
  }
  balance.sum += bias;
  return best;
}

/// A block's choices under one shared scale.
template <class F>
struct group_plan {
  group_choice choice[F::layout.groups()];
  double error = 0, xq = 0, qq = 0;
};

/// One block ready for planning.
template <class F>
struct group_source {
  static constexpr int elements = F::layout.elements, groups = F::layout.groups();
  alignas(64) float x[std::size_t{elements}], w[std::size_t{elements}], wx[std::size_t{elements}];

  group_view view(int g) const noexcept {
    constexpr int n = F::layout.group;
    return {x + g * n, w + g * n, wx + g * n};
  }
};

template <class F>
void plan_groups(const group_source<F>& source, const free_scales* own, float shared, group_plan<F>& plan,
                 error_balance* balance = nullptr) noexcept {
  plan.error = plan.xq = plan.qq = 0;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const auto& c = plan.choice[g] =
        balance ? choose_balanced_sub_scale<F>(source.view(g), own[g], shared, *balance)
                : choose_sub_scale<F>(source.view(g), own[g], shared);
    plan.error += c.error, plan.xq += c.xq, plan.qq += c.qq;
  }
}

template <class F>
void store_groups(const group_source<F>& source, const group_plan<F>& plan, float shared,
                  typename F::block& out) noexcept {
  if constexpr (requires(const std::int8_t* c) { F::set_codes(out, c); }) {
    std::int8_t code[F::layout.elements];
    for (int g = 0; g < F::layout.groups(); ++g) {
      const int sub = plan.choice[g].sub;
      F::set_sub_scale(out, g, sub);
      group_coder<F>::nearest_codes(source.view(g), safe_inverse(shared * static_cast<float>(sub)),
                                    code + g * F::layout.group);
    }
    F::set_codes(out, code);
    return;
  }
  for (int g = 0; g < F::layout.groups(); ++g) {
    const group_choice& c = plan.choice[g];
    F::set_sub_scale(out, g, c.sub);
    if constexpr (group_coder<F>::tables > 1) F::set_table(out, g, c.table);
    group_coder<F>::store(out, g, source.view(g), safe_inverse(shared * static_cast<float>(c.sub)), c.table);
  }
}

/// Shared scales to try, as the sub-scale that the largest own scale would become: the ends of the range and a
/// little beyond, which clips that group. The finer the integers the fewer are worth trying; the exact policy
/// tries all.
template <class F>
constexpr auto shared_candidates() noexcept {
  constexpr float a = F::min_sub_scale, b = F::max_sub_scale;
  return std::array{a, b, a * 1.06f, b * 1.06f, a * 0.92f, b * 0.92f};
}
template <class F>
constexpr std::size_t candidate_count(const quantize_policy& p) noexcept {
  return p.searches_longer() || F::max_sub_scale <= 15 ? 6 : 1;
}
/// Least-squares rounds after them.
template <class F>
constexpr int refit_count(const quantize_policy& p) noexcept {
  return p.searches_longer() ? 4 : F::max_sub_scale > 31 ? 1 : 2;
}

/// What groups make of one shared scale.
struct shared_fit {
  double error = std::numeric_limits<double>::max(), xq = 0, qq = 0;
};

/// The shared scale, 0 where nothing is better than all zeros: candidates meet `sample`, the best of them and
/// its refits `all`. With one candidate, and under the exact policy, every candidate is refitted. `hint`: 0
/// or a candidate of the caller's. `mirrored`: the negatives of all sub-scales must exist too. `stored`
/// rounds a scale to what the block or row holds.
template <class F, class All, class Sample, class Stored>
float search_shared(float extreme, float hint, bool mirrored, const quantize_policy& p, All&& all,
                    Sample&& sample, Stored&& stored) noexcept {
  constexpr auto ends = shared_candidates<F>();
  const std::size_t count = candidate_count<F>(p);
  float best = 0;
  double least = 0;  // what all zeros leave
  const auto follow = [&](float d) {
    shared_fit fit;
    for (int round = 0; round <= refit_count<F>(p); ++round) {
      const shared_fit next = all(d);
      if (!(next.error < fit.error)) return;
      fit = next;
      if (fit.error < least) least = fit.error, best = d;
      if (!(fit.qq > 0)) return;
      d = stored(static_cast<float>(fit.xq / fit.qq));
    }
  };
  if (hint != 0.0f) follow(stored(hint));
  if (const float wanted = extreme / ends[0];
      F::layout.row_meta < 4 && std::fabs(wanted) < coarse_half && wanted != 0.0f) {
    // Both ends of the range, from the first half that reaches the largest own scale on.
    for (const float end : {ends[0], ends[1]})
      for (int k = 0; k < 6; ++k)
        follow(std::copysign((half_units(extreme / end) + static_cast<float>(k)) * smallest_half,
                             extreme / end));
    return best;
  }
  if (mirrored) {
    for (std::size_t i = 1; i < ends.size(); i += 2) follow(stored(extreme / ends[i]));
    return best;
  }
  if (p.searches_longer() || count == 1) {
    for (std::size_t i = 0; i < count; ++i) follow(stored(extreme / ends[i]));
    return best;
  }
  float start = 0;
  shared_fit first;
  for (std::size_t i = 0; i < count; ++i) {
    const float d = stored(extreme / ends[i]);
    if (const shared_fit fit = sample(d); fit.error < first.error) first = fit, start = d;
  }
  follow(start);
  return best;
}

/// Loads a block; returns the importance that its weights of mean 1 stand for.
template <class F>
float load_groups(const row_view& row, std::int64_t block, const quantize_policy& p,
                  group_source<F>& out) noexcept {
  constexpr int n = F::layout.elements;
  const float mass = load_block<F, n>(row, block * n, p, out.x, out.w);
  for (int i = 0; i < n; ++i) out.wx[i] = out.w[i] * out.x[i];
  return mass;
}

}  // namespace detail

template <scaled_by_block F>
void encode_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  constexpr int groups = F::layout.groups();
  row_state state{balance_of(row)};
  if constexpr (single_codes<F>) state.on_lattice = starts_on_lattice<F>(row);
  auto* blocks = row_blocks<F>(out);
  for (std::int64_t b = 0; b < row.cols / F::layout.elements; ++b) {
    detail::group_source<F> source;
    detail::load_groups(row, b, p, source);
    detail::free_scales own[std::size_t{groups}];
    float extreme = 0;
    for (int g = 0; g < groups; ++g) {
      own[g] = detail::free_scales_of<F>(source.view(g));
      if (state.on_lattice) detail::prefer_lattice<F>(source.view(g), row.rounding, own[g]);
      if (std::fabs(own[g].scale[0]) > std::fabs(extreme)) extreme = own[g].scale[0];
    }
    const float hint = state.on_lattice && extreme != 0.0f
                           ? detail::common_scale<F>(groups, extreme, row.rounding,
                                                     [&](std::int64_t g) { return own[g].scale[0]; })
                           : 0.0f;
    detail::group_plan<F> best, next;
    best.error = std::numeric_limits<double>::max();
    const auto plan = [&](float d) -> detail::shared_fit {
      plan_groups(source, own, d, next);
      if (next.error < best.error) best = next;
      return {next.error, next.xq, next.qq};
    };
    const float shared = detail::search_shared<F>(extreme, hint, state.balance.active, p, plan, plan,
                                                  [](float d) { return stored_half(d); });
    if (state.balance.active) plan_groups(source, own, shared, best, &state.balance);
    blocks[b] = typename F::block{};
    F::set_super(blocks[b], shared);
    store_groups(source, best, shared, blocks[b]);
  }
}

namespace detail {

/// Plans the own scales that lie in every `stride`th block of a row.
template <class F>
shared_fit fit_row(const row_view& row, const quantize_policy& p, const std::byte* out, float shared,
                   std::int64_t stride) noexcept {
  shared_fit sum{0};
  const auto* blocks = row_blocks<F>(out);
  for (std::int64_t b = 0; b < row.cols / F::layout.elements; b += stride) {
    group_source<F> source;
    const double mass = load_groups(row, b, p, source);
    free_scales own[F::layout.groups()];
    static_assert(sizeof own <= sizeof blocks[b]);
    std::memcpy(static_cast<void*>(own), blocks + b, sizeof own);
    group_plan<F> plan;
    plan_groups(source, own, shared, plan);
    sum.error += mul(mass, plan.error), sum.xq += mul(mass, plan.xq), sum.qq += mul(mass, plan.qq);
  }
  return sum;
}

/// The scale as the row can store it.
template <class F>
float stored_row_scale(float d, std::byte* out) noexcept {
  F::set_row_scale(out, F::layout.row_meta == 2 ? stored_half(d) : d);
  return F::row_scale(out);
}

}  // namespace detail

/// The own scales of a block wait in its bytes until the scale of the row is known: no allocation, one
/// search.
template <scaled_by_row F>
void encode_row(const row_view& whole, const quantize_policy& p, std::byte* out) noexcept {
  row_view row = whole;
  if constexpr (F::layout.row_meta == 4) row.unit = unit_of(row.largest);
  row_state state{balance_of(row)};
  if constexpr (single_codes<F>) state.on_lattice = starts_on_lattice<F>(row);
  constexpr int groups = F::layout.groups();
  constexpr std::int64_t sample = 8;
  const std::int64_t count = row.cols / F::layout.elements;
  auto* blocks = row_blocks<F>(out);
  float extreme = 0;
  for (std::int64_t b = 0; b < count; ++b) {
    detail::group_source<F> source;
    detail::load_groups(row, b, p, source);
    detail::free_scales own[std::size_t{groups}];
    for (int g = 0; g < groups; ++g) {
      own[g] = detail::free_scales_of<F>(source.view(g));
      if (state.on_lattice) detail::prefer_lattice<F>(source.view(g), row.rounding, own[g]);
      if (std::fabs(own[g].scale[0]) > std::fabs(extreme)) extreme = own[g].scale[0];
    }
    std::memcpy(static_cast<void*>(blocks + b), own, sizeof own);
  }
  const std::int64_t stride = (count + sample - 1) / sample;
  const float hint =
      state.on_lattice && extreme != 0.0f
          ? detail::common_scale<F>(count * groups, extreme, row.rounding,
                                    [&](std::int64_t i) {
                                      detail::free_scales own[std::size_t{groups}];
                                      std::memcpy(static_cast<void*>(own), blocks + i / groups, sizeof own);
                                      return own[i % groups].scale[0];
                                    })
          : 0.0f;
  const float shared = detail::search_shared<F>(
      extreme, hint, state.balance.active, p, [&](float d) { return detail::fit_row<F>(row, p, out, d, 1); },
      [&](float d) { return detail::fit_row<F>(row, p, out, d, stride); },
      [&](float d) { return detail::stored_row_scale<F>(d, out); });
  F::set_row_scale(out, shared / row.unit);
  for (std::int64_t b = 0; b < count; ++b) {
    detail::group_source<F> source;
    detail::load_groups(row, b, p, source);
    detail::free_scales own[std::size_t{groups}];
    std::memcpy(static_cast<void*>(own), blocks + b, sizeof own);
    detail::group_plan<F> plan;
    plan_groups(source, own, shared, plan, state.balance.active ? &state.balance : nullptr);
    blocks[b] = typename F::block{};
    store_groups(source, plan, shared, blocks[b]);
  }
}

}  // namespace quantal::quantize
