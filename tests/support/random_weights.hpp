// Valid random rows of any format: random code bytes with scale fields set to finite, moderate values.
#pragma once

#include <cmath>
#include <cstring>
#include <random>
#include <vector>

#include "quantal/formats.hpp"

namespace quantal::test {

using rng = std::mt19937;

inline std::vector<float> gaussian(rng& g, std::size_t n, float sigma = 1.0f) {
  std::normal_distribution<float> d(0.0f, sigma);
  std::vector<float> v(n);
  for (auto& x : v) x = d(g);
  return v;
}

/// Scale fields after random bytes: half of them could be infinite otherwise. Offsets centre the weights, so that
/// results are not dominated by one common direction.
template <any_format F>
void make_scales_finite(typename F::block& b, rng& g) {
  const float d = std::uniform_real_distribution<float>(0.001f, 0.1f)(g);
  if constexpr (float_format<F>) b = F::from_float(std::normal_distribution<float>(0, 1)(g));
  if constexpr (requires { F::set_offset(b, d); }) {
    F::set_scale(b, d);
    F::set_offset(b, -0.5f * d * F::max_code);
  } else if constexpr (requires { F::set_scale(b, d); }) {
    F::set_scale(b, g() % 4 ? d : -d);
  } else if constexpr (requires { F::set_super_min(b, d); }) {
    F::set_super(b, d);
    F::set_super_min(b, 0.5f * d * F::max_code);
  } else if constexpr (requires { F::set_super(b, d); }) {
    F::set_super(b, g() % 4 ? d : -d);
  } else if constexpr (requires { F::set_exponent(b, 0); }) {
    F::set_exponent(b, 118 + static_cast<int>(g() % 8));
  } else if constexpr (requires { F::set_scale_code(b, 0, 0); }) {
    for (int i = 0; i < F::layout.groups(); ++i) F::set_scale_code(b, i, 40 + static_cast<int>(g() % 24));
  }
}

/// `rows` rows of `cols` weights, each row `row_stride` bytes apart, starting `shift` bytes into the buffer.
template <any_format F>
std::vector<std::byte> random_rows(rng& g, std::int64_t rows, std::int64_t cols, std::int64_t row_stride,
                                   std::size_t shift = 0) {
  std::vector<std::byte> bytes(shift + static_cast<std::size_t>(rows * row_stride));
  for (auto& b : bytes) b = static_cast<std::byte>(g() & 255);
  for (std::int64_t r = 0; r < rows; ++r) {
    std::byte* row = bytes.data() + shift + r * row_stride;
    if constexpr (F::layout.row_meta > 0)
      F::set_row_scale(row, std::uniform_real_distribution<float>(0.001f, 0.1f)(g));
    auto* blocks = row_blocks<F>(row);
    for (std::int64_t i = 0; i < cols / F::layout.elements; ++i) make_scales_finite<F>(blocks[i], g);
  }
  return bytes;
}

/// |a - b| / |b|, both as vectors.
template <class T>
double relative_error(const std::vector<T>& a, const std::vector<double>& b) {
  double diff = 0, norm = 0;
  for (std::size_t i = 0; i < b.size(); ++i) diff += (a[i] - b[i]) * (a[i] - b[i]), norm += b[i] * b[i];
  return std::sqrt(diff / (norm > 0 ? norm : 1));
}

}  // namespace quantal::test
