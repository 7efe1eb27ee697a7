// Moments of a tensor's inputs in two models that read the same tokens: the model as it is quantized so far, and the
// reference that it comes from.
#pragma once

#include <span>
#include <vector>

#include "quantal/imatrix/moments.hpp"

namespace quantal::plan {

/// Of inputs x in the quantized model, and d = r - x, r the reference's inputs.
struct paired_moments {
  imatrix::moments inputs;  ///< of x
  std::vector<float> shift,
      held_shift;                ///< [slices][cols][cols]: sum of d x^T; of the tokens that are held out
  std::vector<float> held_rest;  ///< the same of d d^T

  std::span<const float> slice_of(const std::vector<float>& sums, std::int64_t slice) const {
    const auto n = static_cast<std::size_t>(inputs.cols * inputs.cols);
    return std::span(sums).subspan(static_cast<std::size_t>(slice) * n, n);
  }
};

}  // namespace quantal::plan
