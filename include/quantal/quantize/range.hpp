// Weights that the scales of a format cannot express: too large, and cut to the largest that they can, or so small
// that all their neighbours became zero with them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "quantal/formats.hpp"

namespace quantal {

struct range_loss {
  std::int64_t weights = 0, cut = 0, lost = 0;

  bool any() const noexcept { return cut > 0 || lost > 0; }
  range_loss& operator+=(const range_loss& o) noexcept {
    weights += o.weights, cut += o.cut, lost += o.lost;
    return *this;
  }
};

/// The least and the largest weight that some block of a format can hold.
struct weight_range {
  double least, largest;
};

/// The largest |code|; 0 of trellises, whose scales reach everything.
template <block_format F>
constexpr int largest_code_of() noexcept {
  int most = 0;
  const auto take = [&](int code) { most = std::max(most, code < 0 ? -code : code); };
  if constexpr (requires { F::level(0, 0); }) {
    for (int i = 0; i < F::levels; ++i) take(F::level(i, 0)), take(F::level(i, 1));
  } else if constexpr (requires { F::level(0); }) {
    for (int i = 0; i < F::levels; ++i) take(F::level(i));
  } else if constexpr (requires { F::min_code; }) {
    take(F::min_code), take(F::max_code);
  }
  return most;
}

template <any_format F>
constexpr weight_range weight_range_of() noexcept {
  constexpr double half = 65504, all = std::numeric_limits<float>::max();
  if constexpr (F::gguf_id == f16::gguf_id) {
    return {-half, half};
  } else if constexpr (float_format<F> || F::layout.row_meta == 4) {
    return {-all, all};
  } else {
    const double code = largest_code_of<F>();
    const auto both = [](double v) { return weight_range{-v, v}; };
    if constexpr (requires { F::max_exponent; }) {
      return {-all, all};
    } else if constexpr (requires { F::max_scale_code; }) {
      return both(F::scale_value(F::max_scale_code) * code);
    } else if constexpr (requires { F::max_sub_min; }) {
      return {-half * F::max_sub_min, half * F::max_sub_scale * F::max_code};
    } else if constexpr (requires { F::min_sub_scale; }) {
      return both(half * std::max<int>(-F::min_sub_scale, F::max_sub_scale) * code);
    } else if constexpr (requires { F::scale_unit; }) {
      return both(half * F::scale_unit * (2 * F::max_sub_scale + 1) * code);
    } else if constexpr (F::layout.has_offset) {
      return {-half, half * (F::max_code + 1)};
    } else if constexpr (requires { F::block::d; }) {
      return sizeof(F::block::d) == 4 ? both(all) : both(half * code);
    } else {
      return both(half * code);
    }
  }
}

/// The scale beside a tensor under which its largest weight is the largest of the format.
inline float tensor_scale_for(std::uint32_t gguf_id, float largest_weight) noexcept {
  double largest = 1;
  visit_format(gguf_id, [&]<class F>() { largest = weight_range_of<F>().largest; });
  const float scale = static_cast<float>(static_cast<double>(largest_weight) / largest);
  return scale > 0.0f ? scale : 1.0f;  // of zeros, and of what is too small for a float
}

/// Weights that share a scale, or a scale of scales: where all of them are zero, the scale was too coarse.
constexpr std::int64_t scale_span(const format_info& f, std::int64_t cols) noexcept {
  if (f.is_float || f.layout.row_meta > 0) return cols;
  return f.gguf_id == nvfp4::gguf_id ? f.layout.group : f.layout.elements;
}

/// What of a row the round trip through a format cut or lost.
inline range_loss range_loss_of(const format_info& f, const float* original, const float* decoded,
                                std::int64_t cols) noexcept {
  weight_range range{};
  visit_format(f.gguf_id, [&]<class F>() { range = weight_range_of<F>(); });
  range_loss out;
  out.weights = cols;
  const std::int64_t span = std::max<std::int64_t>(scale_span(f, cols), 1);
  for (std::int64_t first = 0; first < cols; first += span) {
    std::int64_t source = 0, left = 0;
    for (std::int64_t i = first; i < first + span; ++i) {
      out.cut += original[i] < range.least || original[i] > range.largest;
      source += original[i] != 0.0f, left += decoded[i] != 0.0f;
    }
    if (left == 0) out.lost += source;
  }
  return out;
}

}  // namespace quantal
