// Rows of float32 weights to any format.
//
// Importance: one non-negative number per column, the mean square of the activation that meets it; the quantizers
// minimise sum importance * (weight - decoded)^2. Null, or a block whose importances are all (nearly) zero: every
// column counts the same. NaN, infinite or negative importances are refused, and so are NaN or infinite weights.
#pragma once

#include <cmath>

#include "quantal/formats.hpp"
#include "quantal/quantize/grid_block.hpp"
#include "quantal/status.hpp"

namespace quantal {

namespace quantize {

/// Largest |weight| that quantizers take: squares must stay finite in float32 sums over a block.
inline constexpr float largest_weight = 1e15f;

inline status check_row(const float* x, const float* importance, std::int64_t cols) noexcept {
  for (std::int64_t i = 0; i < cols; ++i)
    if (!std::isfinite(x[i])) return status::not_finite;
  if (importance)
    for (std::int64_t i = 0; i < cols; ++i)
      if (!std::isfinite(importance[i]) || importance[i] < 0.0f) return status::bad_importance;
  return status::ok;
}

/// Weights of one block's error, scaled to a mean of 1 so that no sum under- or overflows.
inline void block_weights(const float* x, const float* importance, int n, float mean_square, const quantize_policy& p, float* w) noexcept {
  double sum = 0;
  for (int i = 0; i < n; ++i) {
    w[i] = importance ? importance[i] : 1.0f;
    if (p.magnitude > 0.0f) w[i] *= std::sqrt(mean_square + x[i] * x[i]);
    sum += w[i];
  }
  if (!(sum > 1e-30 * n)) {
    for (int i = 0; i < n; ++i) w[i] = 1.0f;
    return;
  }
  const double scale = n / sum;
  for (int i = 0; i < n; ++i) w[i] = static_cast<float>(w[i] * scale);
}

}  // namespace quantize

/// A format that quantize_row can write.
template <class F>
concept quantizable = float_format<F> || quantize::simple_format<F> || quantize::super_symmetric<F> ||
                      quantize::super_affine<F> || quantize::grid_format<F>;

/// Quantizes one row of `cols` weights (a multiple of the block) into row_bytes<F>(cols) bytes. `importance`: null or
/// one per column. Errors leave `out` unspecified. No allocation; the bytes depend on the arguments alone.
template <any_format F, quantize_policy P = quantize_policy{}>
  requires quantizable<F>
status quantize_row(const float* x, const float* importance, std::byte* out, std::int64_t cols) noexcept {
  if (cols < 0 || cols % F::layout.elements != 0) return status::bad_shape;
  if (!x || !out) return status::null_pointer;
  if (const status s = quantize::check_row(x, importance, cols); s != status::ok) return s;
  auto* blocks = row_blocks<F>(out);
  if constexpr (float_format<F>) {
    for (std::int64_t i = 0; i < cols; ++i) blocks[i] = F::from_float(x[i]);
  } else {
    constexpr int n = F::layout.elements;
    double square = 0;
    for (std::int64_t i = 0; i < cols; ++i) square += static_cast<double>(x[i]) * x[i];
    const float mean_square = cols ? static_cast<float>(square / static_cast<double>(cols)) : 0.0f;
    for (std::int64_t i = 0; i < cols; i += n) {
      float w[n], v[n];
      for (int e = 0; e < n; ++e) v[e] = std::fmin(std::fmax(x[i + e], -quantize::largest_weight), quantize::largest_weight);
      quantize::block_weights(v, importance ? importance + i : nullptr, n, mean_square, P, w);
      blocks[i / n] = typename F::block{};
      quantize::encode_block<F>(v, w, P, blocks[i / n]);
    }
  }
  return status::ok;
}

/// True if quantize_row knows this format.
constexpr bool can_quantize(std::uint32_t gguf_id) noexcept {
  bool can = false;
  visit_format(gguf_id, [&]<class F>() { can = quantizable<F>; });
  return can;
}

/// quantize_row for a format known at run time.
inline status quantize_row(std::uint32_t gguf_id, const float* x, const float* importance, std::byte* out, std::int64_t cols) noexcept {
  status s = status::unknown_format;
  visit_format(gguf_id, [&]<class F>() {
    if constexpr (quantizable<F>) s = quantize_row<F>(x, importance, out, cols);
    else s = status::unsupported;
  });
  return s;
}

}  // namespace quantal
