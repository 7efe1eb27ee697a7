// FP4 formats: E2M1 elements under a power of two (mxfp4) or a UE4M3 scale (nvfp4). There are few scales:
// those around the one that maps the largest weight to the largest element are all tried.
#pragma once

#include "quantal/quantize/group_coder.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/quantize/stored.hpp"

namespace quantal::quantize {

template <class F>
concept fp4_format = block_format<F> && fp4_codes<F>;

namespace detail {

/// Largest scale code and the scale of a code, ascending.
template <class F>
constexpr int top_scale_code() noexcept {
  if constexpr (requires { F::max_exponent; })
    return F::max_exponent;
  else
    return F::max_scale_code;
}
template <class F>
float fp4_scale(int code) noexcept {
  if constexpr (requires { F::max_exponent; }) {
    typename F::block b{};
    F::set_exponent(b, code);
    return F::scale(b, 1.0f, 0);
  } else {
    return F::scale_value(code);
  }
}
template <class F>
void set_fp4_scale(typename F::block& b, int g, int code) noexcept {
  if constexpr (requires { F::max_exponent; })
    F::set_exponent(b, code);
  else
    F::set_scale_code(b, g, code);
}

/// The smallest scale code that clips nothing.
template <class F>
int unclipped_code(float largest) noexcept {
  int low = 0, high = top_scale_code<F>();
  while (low < high) {
    const int middle = (low + high) / 2;
    if (fp4_scale<F>(middle) * group_coder<F>::highest >= largest)
      high = middle;
    else
      low = middle + 1;
  }
  return low;
}

}  // namespace detail

template <fp4_format F>
void encode_block(const float* x, const float* w, const quantize_policy&, typename F::block& out) noexcept {
  using coder = group_coder<F>;
  constexpr int n = F::layout.group, total = 2 * lane_count, above = 4;
  for (int g = 0; g < F::layout.groups(); ++g) {
    alignas(64) float wx[n], inverse[total], scale[total], xq[total], qq[total];
    float largest = 0;
    for (int i = 0; i < n; ++i) {
      wx[i] = w[g * n + i] * x[g * n + i];
      largest = std::max(largest, std::fabs(x[g * n + i]));
    }
    const group_view view{x + g * n, w + g * n, wx};
    const int first = std::clamp(detail::unclipped_code<F>(largest) - (total - 1 - above), 0,
                                 detail::top_scale_code<F>() + 1 - total);
    for (int k = 0; k < total; ++k) {
      scale[k] = detail::fp4_scale<F>(first + k);
      inverse[k] = safe_inverse(scale[k]);
    }
    coder::template sums<total>(view, inverse, inverse, xq, qq);
    int best = 0;
    float least = std::numeric_limits<float>::infinity();
    for (int k = 0; k < total; ++k) {
      const float e = scale[k] * (scale[k] * qq[k] - 2.0f * xq[k]);
      if (e < least) least = e, best = k;
    }
    detail::set_fp4_scale<F>(out, g, first + best);
    coder::store(out, g, view, inverse[best], 0);
  }
}

}  // namespace quantal::quantize
