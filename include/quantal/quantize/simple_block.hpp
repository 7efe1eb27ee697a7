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

template <simple_symmetric F>
void encode_block(const float* x, const float* w, const quantize_policy& p, typename F::block& out) noexcept {
  using coder = group_coder<F>;
  constexpr int n = F::layout.elements;
  alignas(64) float wx[std::size_t{n}];
  for (int i = 0; i < n; ++i) wx[i] = w[i] * x[i];
  const group_view view{x, w, wx};
  const float d =
      search_scale<F>(view, p, [](const auto& s) QUANTAL_LAMBDA { return detail::stored_scale<F>(s); });
  F::set_scale(out, d);
  coder::store(out, 0, view, safe_inverse(d), 0);
  detail::store_sums<F>(out);
}

template <simple_affine F>
void encode_block(const float* x, const float* w, const quantize_policy&, typename F::block& out) noexcept {
  affine_group<F> g;
  g.load(x, w);
  affine_lanes at;
  search_affine(g, false, at);
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
  at.errors(g.sw, g.sx, error);
  const int best = smallest<F, lane_count>(error);
  F::set_scale(out, d[best]);
  F::set_offset(out, m[best]);
  store_affine<F>(x, 0, d[best], m[best], out);
}

}  // namespace quantal::quantize
