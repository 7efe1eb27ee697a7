// Scales that suit codes which are chosen already: what output-aware quantization asks of a format beside its
// codes. Scales are stepped in what the format stores: an integer per group, a float, an exponent.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "quantal/dequantize.hpp"
#include "quantal/quantize/output_coder.hpp"
#include "quantal/quantize/quantize.hpp"

namespace quantal::quantize {

template <block_format F>
void decode_part(const std::byte* row, std::int64_t first, std::int64_t count, float* out) noexcept {
  constexpr int n = F::layout.group;
  const float rs = row_scale<F>(row);
  for (std::int64_t i = 0; i < count;) {
    const auto& b = row_blocks<F>(row)[(first + i) / F::layout.elements];
    const int e0 = static_cast<int>((first + i) % F::layout.elements), g = e0 / n;
    const std::int64_t end = std::min<std::int64_t>(count, i + n - e0 % n);
    const float scale = F::scale(b, rs, g);
    float offset = 0.0f;
    if constexpr (F::layout.has_offset) offset = simd::opaque(F::offset(b, rs, g));
    for (int e = e0; i < end; ++i, ++e) {
      const float v = mul(scale, static_cast<float>(F::code(b, e)));
      out[i] = F::layout.has_offset ? v + offset : v;
    }
  }
}

template <block_format F>
void codes_of_group(const std::byte* row, std::int64_t first, float* q, scale_problem& fit) noexcept {
  const auto& b = row_blocks<F>(row)[first / F::layout.elements];
  const int e0 = static_cast<int>(first % F::layout.elements), g = e0 / F::layout.group;
  for (int i = 0; i < F::layout.group; ++i) q[i] = static_cast<float>(F::code(b, e0 + i));
  fit.scale = F::scale(b, row_scale<F>(row), g), fit.offset = 0.0f;
  if constexpr (F::layout.has_offset) fit.offset = F::offset(b, row_scale<F>(row), g);
}

namespace detail {

/// Numbered sub-scales, from which F::scale follows: a number more is a larger scale or a smaller one.
template <class F>
struct sub_scales {
  static constexpr bool any = false;
};
template <class F>
requires requires(typename F::block& b) { F::set_scale_index(b, 0, 0); }
struct sub_scales<F> {
  static constexpr bool any = true;
  static constexpr int count = F::scale_levels;
  static int get(const typename F::block& b, int g) noexcept { return F::scale_index(b, g); }
  static void set(typename F::block& b, int g, int i) noexcept { F::set_scale_index(b, g, i); }
};
template <class F>
requires requires(typename F::block& b) { F::set_sub_scale(b, 0, 0); }
struct sub_scales<F> {
  static constexpr bool any = true;
  static constexpr int low = [] {
    if constexpr (requires { F::min_sub_scale; })
      return F::min_sub_scale;
    else
      return 0;
  }();
  static constexpr int step = [] {
    if constexpr (requires { F::sub_scale_step; })
      return F::sub_scale_step;
    else
      return 1;
  }();
  static constexpr int count = (F::max_sub_scale - low) / step + 1;
  static int get(const typename F::block& b, int g) noexcept { return (F::sub_scale(b, g) - low) / step; }
  static void set(typename F::block& b, int g, int i) noexcept { F::set_sub_scale(b, g, low + step * i); }
};
template <fp4_codes F>
struct sub_scales<F> {
  static constexpr bool any = true;
  static constexpr int count = [] {
    if constexpr (requires { F::max_exponent; })
      return F::max_exponent + 1;
    else
      return F::max_scale_code + 1;
  }();
  static int get(const typename F::block& b, int g) noexcept {
    if constexpr (requires { F::max_exponent; })
      return F::exponent(b);
    else
      return F::scale_code(b, g);
  }
  static void set(typename F::block& b, int g, int i) noexcept {
    if constexpr (requires { F::max_exponent; })
      F::set_exponent(b, i);
    else
      F::set_scale_code(b, g, i);
  }
};

/// Gains of less than this share of a group's q P q are noise.
inline constexpr double least_gain = 1e-9;

template <class F>
bool move_sub_scale(typename F::block& b, float rs, int g, const scale_problem& fit) noexcept {
  using subs = sub_scales<F>;
  constexpr int reach = 2;
  const int now = subs::get(b, g);
  int best = now, best_min = 0;
  double gain = least_gain * fit.qq * fit.scale * fit.scale;
  for (int i = std::max(now - reach, 0); i <= std::min(now + reach, subs::count - 1); ++i) {
    subs::set(b, g, i);
    const float s = F::scale(b, rs, g);
    if constexpr (F::layout.has_offset) {
      const float unit = F::super_min(b);
      const int m0 = rounded(-fit.best_offset(s) * safe_inverse(unit), 0, F::max_sub_min);
      if (const double v = fit.gain(s, -(unit * static_cast<float>(m0))); v > gain)
        gain = v, best = i, best_min = m0 + 1;
    } else if (const double v = fit.gain(s, 0); v > gain) {
      gain = v, best = i;
    }
  }
  subs::set(b, g, best);
  if constexpr (F::layout.has_offset)
    if (best_min > 0) return F::set_sub_min(b, g, best_min - 1), true;
  return best != now;
}

/// A scale of the block's own, and an offset.
template <class F>
bool move_own_scale(typename F::block& b, const scale_problem& fit) noexcept {
  const auto stored = [](float v) { return stored_scale<F>(v); };
  if constexpr (F::layout.has_offset) {
    const float s = stored(fit.best_joint_scale()), o = stored(fit.best_offset(s));
    if (!(fit.gain(s, o) > least_gain * fit.qq * fit.scale * fit.scale)) return false;
    F::set_scale(b, s), F::set_offset(b, o);
  } else {
    const float s = stored(fit.best_scale(0));
    if (!(fit.gain(s, 0) > least_gain * fit.qq * fit.scale * fit.scale)) return false;
    F::set_scale(b, s);
  }
  return true;
}

}  // namespace detail

/// The scale of one group.
template <block_format F>
bool move_scale(std::byte* row, std::int64_t first, const scale_problem& fit) noexcept {
  auto& b = row_blocks<F>(row)[first / F::layout.elements];
  const int g = static_cast<int>(first % F::layout.elements) / F::layout.group;
  if constexpr (detail::sub_scales<F>::any)
    return detail::move_sub_scale<F>(b, row_scale<F>(row), g, fit);
  else if constexpr (requires { F::set_scale(b, 1.0f); })
    return detail::move_own_scale<F>(b, fit);
  else
    return false;
}

template <block_format F>
constexpr shared_scale shared_scale_of() noexcept {
  if (F::layout.row_meta > 0) return shared_scale::row;
  return requires(typename F::block & b) { F::set_super(b, 1.0f); }
  ? shared_scale::block : shared_scale::none;
}

/// What the groups of a block or of a row share.
template <block_format F>
bool move_shared(std::byte* row, std::int64_t first, const scale_problem& fit) noexcept {
  constexpr auto shared = shared_scale_of<F>();
  const double noise = detail::least_gain * fit.qq;
  if constexpr (shared == shared_scale::row) {
    const float now = F::row_scale(row);
    if (std::fabs(now) < 1e-30f) return false;
    F::set_row_scale(
        row, F::layout.row_meta == 2 ? stored_half(now * fit.best_scale(0)) : now * fit.best_scale(0));
    if (fit.gain(F::row_scale(row) / now, 0) > noise) return true;
    F::set_row_scale(row, now);
  } else if constexpr (shared == shared_scale::block) {
    auto& b = row_blocks<F>(row)[first / F::layout.elements];
    const float now = F::super(b);
    if (std::fabs(now) < coarse_half) return false;
    if constexpr (F::layout.has_offset) {
      const float min = F::super_min(b);
      const float d = stored_half(now * fit.best_joint_scale());
      const float m = std::fabs(min) < coarse_half ? min : stored_half(min * fit.best_offset(d / now));
      if (!(d > 0) || !(m >= 0)) return false;
      if (!(fit.gain(d / now, std::fabs(min) < coarse_half ? 1.0f : m / min) > noise)) return false;
      F::set_super(b, d), F::set_super_min(b, m);
    } else {
      const float d = stored_half(now * fit.best_scale(0));
      if (!(fit.gain(d / now, 0) > noise)) return false;
      F::set_super(b, d);
    }
    return true;
  }
  return false;
}

}  // namespace quantal::quantize
