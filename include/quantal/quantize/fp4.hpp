// FP4 formats: E2M1 elements under a power of two (mxfp4) or a UE4M3 scale (nvfp4). There are few scales:
// those around the one that maps the largest weight to the largest element are all tried. Powers of two are
// tried downwards from the smallest that clips nothing - larger ones have no element that it lacks in the
// range - until what is clipped alone costs more than the best find: the optimum. That is nearly always one
// of the first two, which are compared for some blocks together.
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

namespace detail {

/// Only powers of two, one per block.
template <class F>
concept power_scaled = fp4_format<F> && F::layout.groups() == 1 &&
                       requires(typename F::block& b, const std::uint8_t* v) {
  F::max_exponent;
  F::set_index_bytes(b, v);
};

/// v >= 0 to two significant bits and to whole numbers: below 14 the nearest of 0, 1, 2, 3, 4, 6, 8, 12.
template <class B>
QUANTAL_INLINE B two_bits_of(B v) noexcept {
  const B power = xsimd::bitwise_cast<float>(xsimd::bitwise_cast<std::int32_t>(v) & 0x7f800000);
  const B magic = xsimd::max(power, B(2.0f)) * B(6291456.0f);
  return simd::opaque(v + magic) - magic;
}
/// v >= 0 to the nearest of those.
template <class B>
QUANTAL_INLINE B nearest_e2m1(B v) noexcept {
  return xsimd::min(two_bits_of(v), B(12.0f));
}

/// sum w e e of a block under one scale and the part of it that clipping causes, in units of the scale.
struct power_error {
  float all, clipped;
};

template <class F>
QUANTAL_INLINE power_error error_at_power(const float* x, const float* w, float inverse) noexcept {
  using batch = lanes<F>;
  constexpr int n = F::layout.elements;
  alignas(64) float all[lane_count], clipped[lane_count];
  for (int l = 0; l < lane_count; l += static_cast<int>(batch::size)) {
    batch sum(0.0f), clip(0.0f);
    for (int i = l; i < n; i += lane_count) {
      const batch v = xsimd::abs(batch::load_unaligned(x + i)) * batch(inverse), e = v - nearest_e2m1(v);
      const batch c = xsimd::max(v - batch(12.0f), batch(0.0f)), weight = batch::load_unaligned(w + i);
      sum += weight * e * e;
      clip += weight * c * c;
    }
    sum.store_aligned(all + l);
    clip.store_aligned(clipped + l);
  }
  return {sum_of_lanes(all), sum_of_lanes(clipped)};
}

template <class F>
QUANTAL_INLINE void store_e2m1(const float* x, float inverse, typename F::block& out) noexcept {
  using batch = lanes<F>;
  constexpr int half = F::layout.elements / 2;
  const auto indices = [&](int i) QUANTAL_LAMBDA {
    const batch v = batch::load_unaligned(x + i) * batch(inverse), r = nearest_e2m1(xsimd::abs(v));
    // From 2 on the exponent and the upper bit of the mantissa count through the elements.
    const auto bits = xsimd::bitwise_cast<std::int32_t>(r);
    const auto small = xsimd::to_int(xsimd::min(r, batch(1.0f))), large = (bits >> 22) - 254;
    const auto sign = (xsimd::bitwise_cast<std::int32_t>(v) >> 28) & 8;
    return xsimd::select(small == 0, small, xsimd::max(small, large) | sign);
  };
  alignas(64) std::int32_t pair[std::size_t{half}];
  for (int i = 0; i < half; i += static_cast<int>(batch::size))
    (indices(i) | indices(i + half) << 4).store_aligned(pair + i);
  std::uint8_t byte[std::size_t{half}];
  for (int i = 0; i < half; ++i) byte[i] = static_cast<std::uint8_t>(pair[i]);
  F::set_index_bytes(out, byte);
}

/// The exponent of the smallest scale that clips nothing.
QUANTAL_INLINE int unclipped_exponent(float largest) noexcept {
  const std::uint32_t bits = quantal::detail::bits_from_float(largest * (1.0f / 12));
  return static_cast<int>((bits + 0x7fffffu) >> 23) + 1;
}
/// 1 / 2^(exponent - 128), for 1 <= exponent <= 254.
QUANTAL_INLINE float inverse_power(int exponent) noexcept {
  return quantal::detail::float_from_bits(static_cast<std::uint32_t>(255 - exponent) << 23);
}

/// Some neighbouring blocks under the smallest scale that clips nothing, half of it, and what a quarter of it
/// would clip.
template <class F>
struct power_blocks {
  static constexpr int most = 8, n = F::layout.elements;
  using batch = lanes<F>;
  static constexpr int width = static_cast<int>(batch::size);

  int count;
  float largest[most];
  int exponent[most];

  QUANTAL_INLINE void measure(const float* x) noexcept {
    for (int b = 0; b < count; ++b) {
      largest[b] = largest_magnitude_of<F, n>(x + b * n);
      exponent[b] = unclipped_exponent(std::clamp(largest[b], 1e-30f, largest_weight));
    }
  }

  /// weight(i): importances of the weights from i on.
  template <class Weight>
  QUANTAL_INLINE void compare(const float* x, Weight&& weight) noexcept {
    for (int b = 0; b < count; ++b) {
      const batch inverse(inverse_power(exponent[b]));
      for (int l = 0; l < lane_count; l += width) {
        batch whole(0.0f), half(0.0f), clip(0.0f);
        for (int i = b * n + l; i < (b + 1) * n; i += lane_count) {
          const batch v = xsimd::abs(batch::load_unaligned(x + i)) * inverse, twice = v + v, w = weight(i);
          const batch e = v - two_bits_of(v), h = twice - nearest_e2m1(twice),
                      c = xsimd::max(twice - batch(6.0f), batch(0.0f));
          whole += w * e * e;
          half += w * h * h;
          clip += w * c * c;
        }
        whole.store_aligned(error[b][0] + l);
        half.store_aligned(error[b][1] + l);
        clip.store_aligned(error[b][2] + l);
      }
    }
  }

  /// Chooses between the first two scales; false if neither may be the best, or there is nothing to compare.
  QUANTAL_INLINE bool choose(int b) noexcept {
    const float whole = sum_of_lanes(error[b][0]), half = 0.25f * sum_of_lanes(error[b][1]);
    const float quarter_clips = 0.25f * sum_of_lanes(error[b][2]);
    if (half < whole) --exponent[b];
    return largest[b] > 1e-30f && largest[b] < largest_weight && whole > 1e-30f &&
           quarter_clips >= std::min(whole, half);
  }

 private:
  alignas(64) float error[most][3][lane_count];
};

}  // namespace detail

template <fp4_format F>
requires detail::power_scaled<F>
void encode_block(const float* x, const float* w, const quantize_policy&, typename F::block& out) noexcept {
  const float largest = std::fabs(extreme_of<F, F::layout.elements>(x));
  if (largest < 1e-30f) return;
  const int first = detail::unclipped_exponent(largest);
  float inverse = detail::inverse_power(first), unit = 1.0f;
  float least = std::numeric_limits<float>::max(), best_inverse = inverse;
  int best = first;
  for (int code = first; code > first - 40 && code > 28; --code, inverse *= 2.0f, unit *= 0.25f) {
    const auto error = detail::error_at_power<F>(x, w, inverse);
    if (unit * error.all < least) least = unit * error.all, best = code, best_inverse = inverse;
    if (!(unit * error.clipped < least)) break;
  }
  detail::set_fp4_scale<F>(out, 0, best);
  detail::store_e2m1<F>(x, best_inverse, out);
}

namespace detail {

/// Divides the scale of a block by a power of two; it becomes zeros where no exponent is small enough.
template <class F>
void take_out_unit(float unit, typename F::block& out) noexcept {
  if (unit == 1.0f) return;
  const int shift = static_cast<int>(quantal::detail::bits_from_float(unit) >> 23) - 127;
  const int exponent = F::exponent(out) - shift;
  if (exponent < 0)
    out = typename F::block{};
  else
    F::set_exponent(out, std::min(exponent, F::max_exponent));
}

}  // namespace detail

/// Eight blocks at a time; those that need more than a comparison of two scales one by one.
template <fp4_format F>
requires detail::power_scaled<F>
void encode_power_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  using batch = lanes<F>;
  constexpr int n = F::layout.elements;
  const bool weighted = row.largest_importance > 1e-30f;
  const batch unit(weighted ? 1.0f / row.largest_importance : 1.0f);
  auto* blocks = row_blocks<F>(out);
  detail::power_blocks<F> some;
  for (std::int64_t first = 0; first < row.cols; first += some.most * n) {
    const float* x = row.x + first;
    some.count = static_cast<int>(std::min<std::int64_t>(some.most, (row.cols - first) / n));
    some.measure(x);
    if (weighted)
      some.compare(
          x, [&](int i) QUANTAL_LAMBDA { return batch::load_unaligned(row.importance + first + i) * unit; });
    else
      some.compare(x, [&](int) QUANTAL_LAMBDA { return unit; });
    for (int b = 0; b < some.count; ++b) {
      auto& block = blocks[first / n + b];
      block = typename F::block{};
      if (some.choose(b)) {
        detail::set_fp4_scale<F>(block, 0, some.exponent[b]);
        detail::store_e2m1<F>(x + b * n, detail::inverse_power(some.exponent[b]), block);
      } else {
        alignas(64) float clamped[std::size_t{n}], w[std::size_t{n}];
        row_view here = row;
        here.unit = unit_of(some.largest[b]);
        load_block<F, n>(here, first + b * n, p, clamped, w);
        encode_block<F>(clamped, w, p, block);
        detail::take_out_unit<F>(here.unit, block);
      }
    }
  }
}

template <fp4_format F>
requires(!detail::power_scaled<F>) void encode_block(const float* x, const float* w, const quantize_policy&,
                                                     typename F::block& out) noexcept {
  using coder = group_coder<F>;
  // A group whose largest element is 4 has 1.5 times the scale that clips nothing: five codes above it.
  constexpr int n = F::layout.group, total = 2 * lane_count, above = 5;
  for (int g = 0; g < F::layout.groups(); ++g) {
    alignas(64) float wx[std::size_t{n}], inverse[total], scale[total], xq[total], qq[total];
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
    float least = std::numeric_limits<float>::max();
    for (int k = 0; k < total; ++k) {
      const float e = mul(scale[k], mul(scale[k], qq[k]) - mul(2.0f, xq[k]));
      if (e < least) least = e, best = k;
    }
    detail::set_fp4_scale<F>(out, g, first + best);
    coder::store(out, g, view, inverse[best], 0);
  }
}

}  // namespace quantal::quantize
