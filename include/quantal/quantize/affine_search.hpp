// A scale and an offset for a group of uniform codes 0..max: x[i] ~ d * q[i] + m, many pairs (d, m) at once.
//
// Codes and least squares alternate: the codes of (d, m) give sum w q, sum w q q and sum w x q, these the
// pair that suits the codes best. The weights are centred first, so that sums of groups far from zero do not
// cancel.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantal/quantize/balance.hpp"
#include "quantal/quantize/codebook.hpp"
#include "quantal/quantize/lattice.hpp"
#include "quantal/quantize/stored.hpp"

namespace quantal::quantize {

struct affine_fit {
  float scale = 0.0f, offset = 0.0f;
};

/// One group: weights minus their centre, importances, products, and the sums that no code changes.
template <class F>
struct affine_group {
  static constexpr int size = F::layout.group;
  const float* w;
  alignas(64) float x[std::size_t{size}], wx[std::size_t{size}];
  float centre, low, high;
  float sw, sx;  ///< of the centred weights

  void load(const float* source, const float* importance) noexcept {
    w = importance;
    using batch = lanes<F>;
    batch least = batch::load_unaligned(source), most = least;
    for (int i = static_cast<int>(batch::size); i < size; i += static_cast<int>(batch::size)) {
      const batch v = batch::load_unaligned(source + i);
      least = xsimd::min(least, v), most = xsimd::max(most, v);
    }
    low = xsimd::reduce_min(least), high = xsimd::reduce_max(most);
    centre = mul(0.5f, low) + mul(0.5f, high);
    sw = sx = 0;
    for (int i = 0; i < size; ++i) {
      x[i] = source[i] - centre;
      wx[i] = w[i] * x[i];
    }
    simd::make_opaque<std::size_t{size}>(wx);  // the products are not fused with their sum
    for (int i = 0; i < size; ++i) sw += w[i], sx += wx[i];
  }
  /// sum w x x of the centred weights: what affine_lanes leaves out of errors.
  float norm() const noexcept {
    float sum = 0;
    for (int i = 0; i < size; ++i) sum += mul(wx[i], x[i]);
    return sum;
  }
  /// The error of all zeros, as affine_lanes counts it.
  float zeros() const noexcept { return mul(centre, mul(2.0f, sx) + mul(centre, sw)); }
};

/// lane_count pairs and the sums of their codes. Offsets are relative to the centre of the group.
struct affine_lanes {
  alignas(64) float scale[lane_count], offset[lane_count];
  alignas(64) float sq[lane_count], sqq[lane_count], sxq[lane_count];

  /// Errors of the pairs with these codes, without the constant sum w x x.
  template <class F>
  QUANTAL_INLINE void errors(float sw, float sx, float* out) const noexcept {
    using batch = lanes<F>;
    const batch two(2.0f), weight(sw), twice_sx(2.0f * sx);
    for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
      const batch d = batch::load_aligned(scale + k), m = batch::load_aligned(offset + k);
      const batch codes = batch::load_aligned(sq + k), squares = batch::load_aligned(sqq + k);
      const batch slope = d * squares + two * (m * codes - batch::load_aligned(sxq + k));
      (d * slope + m * (m * weight - twice_sx)).store_unaligned(out + k);
    }
  }
};

template <class F>
void add_up(const affine_group<F>& g, affine_lanes& at) noexcept {
  using C = codebook<F>;
  using batch = lanes<F>;
  alignas(64) float inverse[lane_count];
  for (int k = 0; k < lane_count; ++k) inverse[k] = safe_inverse(at.scale[k]);
  for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
    const batch t = batch::load_aligned(inverse + k), shift = t * batch::load_unaligned(at.offset + k);
    batch a(0.0f), b(0.0f), c(0.0f);
    for (int i = 0; i < affine_group<F>::size; ++i) {
      const batch q = C::nearest_level(t * batch(g.x[i]) - shift), wq = batch(g.w[i]) * q;
      a += wq;
      b += wq * q;
      c += batch(g.wx[i]) * q;
    }
    a.store_unaligned(at.sq + k);
    b.store_unaligned(at.sqq + k);
    c.store_unaligned(at.sxq + k);
  }
}

/// The errors of the pairs themselves, without the cancellation of the sums.
template <class F>
void direct_errors(const affine_group<F>& g, const affine_lanes& at, float* error) noexcept {
  using C = codebook<F>;
  using batch = lanes<F>;
  for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
    alignas(64) float inverse[lane_count];
    for (int l = 0; l < lane_count; ++l) inverse[l] = safe_inverse(at.scale[l]);
    const batch t = batch::load_aligned(inverse + k), d = batch::load_aligned(at.scale + k);
    const batch m = batch::load_aligned(at.offset + k), shift = t * m;
    batch sum(0.0f);
    for (int i = 0; i < affine_group<F>::size; ++i) {
      const batch x(g.x[i]), e = x - m - d * C::nearest_level(t * x - shift);
      sum += batch(g.w[i]) * e * e;
    }
    sum.store_unaligned(error + k);
  }
}

/// The lane of least error and cost to the row, which counts it. `left_out`: what is missing of the errors.
template <class F>
int balanced_lane(const affine_group<F>& g, const affine_lanes& at, const float* error, float left_out,
                  error_balance& balance) noexcept {
  constexpr int n = affine_group<F>::size;
  affine_group<F> plain = g;
  plain.w = ones<n>::at.data();
  affine_lanes sums = at;
  add_up(plain, sums);
  float total = 0, norm = 0;
  for (int i = 0; i < n; ++i) total += g.x[i], norm += mul(g.wx[i], g.x[i]);
  int best = smallest<F, lane_count>(error);
  const float limit = error_balance::limit(error[best], left_out, norm);
  float bias = 0, least = std::numeric_limits<float>::max();
  for (int k = 0; k < lane_count; ++k) {
    const float b = mul(at.scale[k], sums.sq[k]) + mul(at.offset[k], n) - total,
                cost = error[k] + balance.cost(b);
    if (error[k] <= limit && cost < least) least = cost, best = k, bias = b;
  }
  balance.sum += bias;
  return best;
}

/// The pairs that suit the codes best; with `non_positive`, offsets above zero become zero.
template <class F>
void refit(const affine_group<F>& g, bool non_positive, affine_lanes& at) noexcept {
  using batch = lanes<F>;
  using mask = typename batch::batch_bool_type;
  const batch sw(g.sw), sx(g.sx), centre(g.centre), zero(0.0f), one(1.0f);
  for (int k = 0; k < lane_count; k += static_cast<int>(batch::size)) {
    const batch q = batch::load_aligned(at.sq + k), qq = batch::load_aligned(at.sqq + k);
    const batch xq = batch::load_aligned(at.sxq + k), det = sw * qq - q * q;
    const mask good = det > batch(1e-6f * g.sw) * qq;
    const batch inverse = one / xsimd::select(good, det, one);
    const batch d = (sw * xq - sx * q) * inverse, m = (qq * sx - q * xq) * inverse;
    const mask clip = mask(non_positive) & (m > -centre);
    const batch alone = (xq + centre * q) / xsimd::select(qq > zero, qq, one);
    const batch scale = xsimd::select(clip, alone, d), offset = xsimd::select(clip, -centre, m);
    const mask take = (good | clip) & (scale > zero);
    xsimd::select(take, scale, batch::load_aligned(at.scale + k)).store_aligned(at.scale + k);
    xsimd::select(take, offset, batch::load_aligned(at.offset + k)).store_aligned(at.offset + k);
  }
}

/// Starts from several ranges, alternating codes and least squares. `at` holds the last pairs on return. On a
/// lattice all of them are its coarsest step and its lowest weight.
template <class F>
void search_affine(const affine_group<F>& g, bool non_positive, const row_state& row,
                   affine_lanes& at) noexcept {
  constexpr float top = codebook<F>::size - 1;
  constexpr int rounds = codebook<F>::size < 8 ? 2 : 4;
  const float low = non_positive && g.low > 0.0f ? 0.0f : g.low, range = g.high - low;
  for (int k = 0; k < lane_count; ++k) {
    at.scale[k] = range < 1e-30f ? 0.0f : range / (top * (0.88f + 0.03f * static_cast<float>(k)));
    at.offset[k] = low - g.centre;
  }
  for (int round = 0; round < rounds; ++round) {
    add_up(g, at);
    refit(g, non_positive, at);
  }
  if (!row.on_lattice) return;
  alignas(64) float x[affine_group<F>::size];
  for (int i = 0; i < affine_group<F>::size; ++i) x[i] = g.x[i] + g.centre;
  if (const float step = lattice_step<F, codebook<F>::size - 1>(x, low, g.high, row.rounding); step > 0.0f) {
    std::fill_n(at.scale, lane_count, step);
    std::fill_n(at.offset, lane_count, low - g.centre);
    add_up(g, at);
    refit(g, non_positive, at);
  }
}

/// The best of the lanes after a search, as if stored exactly.
template <class F>
affine_fit best_affine(const affine_group<F>& g, const affine_lanes& at) noexcept {
  alignas(64) float error[lane_count];
  at.template errors<F>(g.sw, g.sx, error);
  const int best = smallest<F, lane_count>(error);
  return {at.scale[best], at.offset[best] + g.centre};
}

/// Codes of a group under the stored pair (d, m).
template <class F, class T>
QUANTAL_INLINE void affine_codes(const float* x, float d, float m, T* out) noexcept {
  using batch = lanes<F>;
  constexpr int n = F::layout.group;
  const batch inverse(safe_inverse(d)), offset(m), magic(12582912.0f), top(static_cast<float>(F::max_code));
  alignas(64) std::int32_t code[std::size_t{n}];
  for (int i = 0; i < n; i += static_cast<int>(batch::size)) {
    const batch v = (batch::load_unaligned(x + i) - offset) * inverse;
    const batch in = xsimd::max(xsimd::min(v, top), batch(0.0f)) + magic;
    (xsimd::bitwise_cast<std::int32_t>(in) - 0x4b400000).store_aligned(code + i);
  }
  for (int i = 0; i < n; ++i) out[i] = static_cast<T>(code[i]);
}

template <class F>
void store_affine(const float* x, int group, float d, float m, typename F::block& out) noexcept {
  constexpr int n = F::layout.group;
  std::int32_t code[std::size_t{n}];
  affine_codes<F>(x + group * n, d, m, code);
  for (int i = 0; i < n; ++i) F::set_code(out, group * n + i, code[i]);
}

}  // namespace quantal::quantize
