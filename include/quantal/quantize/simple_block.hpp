// Blocks with one stored scale (q4_0, q5_0, q6_0, q8_0, iq4_nl) or one scale and one offset (q4_1, q5_1).
#pragma once

#include "quantal/quantize/affine_search.hpp"

namespace quantal::quantize {

// Ternary blocks are not among them: their best scale can lie far below the largest weight, where this search does not
// look.
template <class F>
concept simple_format = block_format<F> && F::usage == role::weight && F::layout.groups() == 1 &&
                        (uniform_codes<F> || table_codes<F>) && codebook<F>::size != 3 &&
                        requires(typename F::block& b) { F::set_scale(b, 1.0f); };

/// The neighbour of a half in the direction of `step`, for scales that a coarser rounding moved off their optimum.
inline float half_neighbour(float v, int step) noexcept {
  const std::uint16_t h = detail::float_to_half(v);
  const std::uint16_t next = static_cast<std::uint16_t>(h + step);
  const float f = detail::half_to_float(next);
  return (h & 0x7fff) == 0 || !std::isfinite(f) ? detail::half_to_float(h) : f;
}

/// A scale as the block can store it: rounded to binary16 and never beyond its largest value.
inline float stored_half(float v) noexcept {
  const float clamped = v > 65504.0f ? 65504.0f : v < -65504.0f ? -65504.0f : v;
  return detail::half_to_float(detail::float_to_half(clamped));
}

template <simple_format F>
inline void encode_block(const float* x, const float* w, const quantize_policy& p, typename F::block& out) noexcept {
  using C = codebook<F>;
  constexpr int n = F::layout.elements;
  if constexpr (F::layout.has_offset) {
    const affine_fit f = search_affine<C>(x, w, n, p, false);
    float d = stored_half(f.scale), m = stored_half(f.offset);
    float best = affine_error<C>(x, w, n, d, m);
    for (const int step : {-1, 1}) {
      const float e = affine_error<C>(x, w, n, d, half_neighbour(m, step));
      if (e < best) best = e, m = half_neighbour(m, step);
    }
    F::set_scale(out, d);
    F::set_offset(out, m);
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    for (int i = 0; i < n; ++i) C::store(out, i, affine_code<C>(x[i], inverse, m));
  } else {
    float d = stored_half(search_scale<C>(x, w, n, p).scale);
    float best = error_at<C>(x, w, n, d);
    const float centre = d;
    for (const int step : {-1, 1}) {
      const float near = half_neighbour(centre, step);
      const float e = error_at<C>(x, w, n, near);
      if (e < best) best = e, d = near;
    }
    F::set_scale(out, d);
    const float inverse = d != 0.0f ? 1.0f / d : 0.0f;
    for (int i = 0; i < n; ++i) C::store(out, i, C::nearest(x[i] * inverse));
  }
}

}  // namespace quantal::quantize
