// The rounding of activations to int8, written plainly: what the q8 kernels are compared with.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace quantal::reference {

/// One activation vector with every block of up to `block` values rounded to multiples of its largest
/// magnitude / 127.
inline std::vector<float> round_activations(const std::vector<float>& x, std::int64_t block) {
  std::vector<float> out(x.size());
  for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(block)) {
    const std::size_t n = std::min(x.size() - at, static_cast<std::size_t>(block));
    float largest = 0.0f;
    for (std::size_t k = at; k < at + n; ++k) largest = std::fmax(largest, std::fabs(x[k]));
    const float scale = largest / 127.0f, inverse = largest > 0.0f ? 127.0f / largest : 0.0f;
    for (std::size_t k = at; k < at + n; ++k) out[k] = scale * std::nearbyint(x[k] * inverse);
  }
  return out;
}

}  // namespace quantal::reference
