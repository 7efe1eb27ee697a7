// Weights through a format and back, for accuracy gates (testing/gtest.hpp) and measurements.
#pragma once

#include <span>
#include <vector>

#include "quantal/dequantize.hpp"
#include "quantal/quantize/quantize.hpp"

namespace quantal::testing {

/// Weights through format F and back, in rows as long as `importance`, or one row without it. Empty if that
/// is refused.
template <any_format F>
std::vector<float> round_trip(std::span<const float> weights, std::span<const float> importance = {}) {
  const auto cols = static_cast<std::int64_t>(importance.empty() ? weights.size() : importance.size());
  if (cols == 0 || static_cast<std::int64_t>(weights.size()) % cols != 0) return {};
  std::vector<float> out(weights.size());
  std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(cols)));
  for (std::size_t at = 0; at < weights.size(); at += static_cast<std::size_t>(cols)) {
    const float* w = importance.empty() ? nullptr : importance.data();
    if (quantize_row<F>(weights.data() + at, w, row.data(), cols) != status::ok) return {};
    dequantize_row<F>(row.data(), out.data() + at, cols);
  }
  return out;
}

}  // namespace quantal::testing
