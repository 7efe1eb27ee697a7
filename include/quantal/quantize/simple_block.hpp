// Blocks with one stored scale (q4_0, q5_0, q6_0, q8_0, iq4_nl, q1_0, q2_0; q8_1, q8_K) or one scale and one
// offset (q4_1, q5_1).
#pragma once

#include "quantal/quantize/affine_search.hpp"
#include "quantal/quantize/scale_search.hpp"
#include "quantal/quantize/stored.hpp"

namespace quantal::quantize {

/// Ternary blocks are not among them: their best scale can lie far below the largest weight, where this
/// search does not look.
template <class F>
concept simple_format = block_format<F> && F::layout.groups() == 1 &&
                        (uniform_codes<F> || table_codes<F>)&&codebook<F>::size != 3 &&
                        requires(typename F::block& b) {
  F::set_scale(b, 1.0f);
};

template <class F>
concept simple_symmetric = simple_format<F> && !F::layout.has_offset;
template <class F>
concept simple_affine = simple_format<F> && F::layout.has_offset;

namespace detail {

/// A scale as the block gives it back.
template <class F, class T>
QUANTAL_INLINE T stored_scale(const T& d) noexcept {
  if constexpr (sizeof(F::block::d) == 4)
    return d;
  else
    return stored_half(d);
}

/// Sums of codes that activation formats carry for the offsets of weights.
template <class F>
void store_sums(typename F::block& out) noexcept {
  constexpr int n = F::layout.elements;
  if constexpr (requires { F::set_sum(out, 0, 0); }) {
    for (int h = 0; h < n / 16; ++h) {
      int sum = 0;
      for (int i = 0; i < 16; ++i) sum += F::code(out, 16 * h + i);
      F::set_sum(out, h, sum);
    }
  } else if constexpr (requires { F::set_sum(out, 1.0f); }) {
    int sum = 0;
    for (int i = 0; i < n; ++i) sum += F::code(out, i);
    F::set_sum(out, stored_half(F::scale(out, 1.0f, 0) * static_cast<float>(sum)));
  }
}

}  // namespace detail

namespace detail {

/// Two levels, d and -d: each zero takes the one that brings the sum of the block's errors nearer to zero.
template <class F>
void balance_zeros(const float* x, float d, typename F::block& out) noexcept {
  constexpr int n = F::layout.elements;
  const float magnitude = std::fabs(d);
  int free = 0;
  for (int e = 0; e < n; ++e) free += is_signless(x[e], magnitude);
  if (free == 0) return;
  float sum = 0;
  for (int e = 0; e < n; ++e)
    if (!is_signless(x[e], magnitude)) sum += mul(d, static_cast<float>(F::code(out, e))) - x[e];
  for (int e = 0; e < n; ++e)
    if (is_signless(x[e], magnitude)) {
      const int index = (sum > 0.0f) != (d > 0.0f) ? 1 : 0;
      F::set_index(out, e, index);
      sum += mul(d, static_cast<float>(F::level(index)));
    }
}

}  // namespace detail

template <simple_symmetric F>
void encode_block(const float* x, const float* w, const quantize_policy& p, row_state& row,
                  typename F::block& out) noexcept {
  using coder = group_coder<F>;
  constexpr int n = F::layout.elements;
  alignas(64) float wx[std::size_t{n}];
  for (int i = 0; i < n; ++i) wx[i] = w[i] * x[i];
  const group_view view{x, w, wx};
  float d = search_scale<F>(
      view, p, [](const auto& s) QUANTAL_LAMBDA { return detail::stored_scale<F>(s); }, row);
  if constexpr (sizeof(F::block::d) == 2) {
    constexpr float end = coder::highest > -coder::lowest ? coder::highest : -coder::lowest;
    const float near = largest_magnitude_of<F, n>(x) / end;
    if (near < coarse_half) d = search_coarse_scale<F>(view, d != 0.0f ? std::fabs(d) : near);
  }
  F::set_scale(out, d);
  coder::store(out, 0, view, safe_inverse(d), 0);
  if constexpr (coder::levels == 2) detail::balance_zeros<F>(x, d, out);
  detail::store_sums<F>(out);
}

namespace detail {

/// On a lattice the last lanes take the pair of the first with one half or the other, or both, rounded the
/// other way, and with offsets that are whole steps of the scale as stored: those keep zero at zero.
template <class F>
void spread_lattice(const affine_group<F>& g, affine_lanes& at) noexcept {
  const float d = at.scale[0], m = at.offset[0] + g.centre, stored = stored_half(d);
  const int steps = d > 0.0f ? rounded(m / d, -4096, 4096) : 0;
  for (int k = 0; k < 9; ++k) {
    const int at_lane = lane_count - 9 + k, up = k % 3 - 1, offset_up = k / 3 - 1;
    at.scale[at_lane] = up ? half_neighbour(stored, up) : stored;
    const float whole = stored_half(at.scale[at_lane] * static_cast<float>(steps));
    at.offset[at_lane] = (offset_up ? half_neighbour(whole, offset_up) : whole) - g.centre;
  }
}

/// Pairs of coarse halves around one that reaches both ends of the group.
template <class F>
void coarse_pairs(const affine_group<F>& g, affine_lanes& at) noexcept {
  constexpr int side = 4;
  const float step = half_units((g.high - g.low) * (1.0f / F::max_code));
  const float low = std::floor(g.low / smallest_half);
  for (int k = 0; k < lane_count; ++k) {
    at.scale[k] = (step + static_cast<float>(k / side)) * smallest_half;
    at.offset[k] = mul(low + static_cast<float>(k % side - 1), smallest_half) - g.centre;
  }
}

}  // namespace detail

template <simple_affine F>
void encode_block(const float* x, const float* w, const quantize_policy&, row_state& row,
                  typename F::block& out) noexcept {
  affine_group<F> g;
  g.load(x, w);
  affine_lanes at;
  search_affine(g, false, row, at);
  if (row.on_lattice) detail::spread_lattice(g, at);
  const float range = g.high - g.low;
  const bool coarse = range < coarse_half * F::max_code;
  if (coarse) detail::coarse_pairs(g, at);
  using batch = lanes<F>;
  alignas(64) float d[lane_count], m[lane_count];
  for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
    const batch scale = stored_half(batch::load_unaligned(at.scale + k));
    const batch offset = stored_half(batch::load_unaligned(at.offset + k) + batch(g.centre));
    scale.store_aligned(d + k), scale.store_unaligned(at.scale + k);
    offset.store_aligned(m + k), (offset - batch(g.centre)).store_unaligned(at.offset + k);
  }
  add_up(g, at);
  alignas(64) float error[lane_count];
  if (row.on_lattice)
    direct_errors(g, at, error);
  else
    at.template errors<F>(g.sw, g.sx, error);
  const auto left_out = [&] { return row.on_lattice ? 0.0f : g.norm(); };
  const int best = row.balance.active ? balanced_lane(g, at, error, left_out(), row.balance)
                                      : smallest<F, lane_count>(error);
  if (coarse && !(error[best] + left_out() < g.zeros() + g.norm())) return;
  F::set_scale(out, d[best]);
  F::set_offset(out, m[best]);
  store_affine<F>(x, 0, d[best], m[best], out);
}

}  // namespace quantal::quantize
