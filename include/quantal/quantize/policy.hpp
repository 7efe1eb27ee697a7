// How hard a quantizer searches, and what it weighs. A structural type: usable as a template argument.
#pragma once

namespace quantal {

struct quantize_policy {
  /// Candidate scales on each side of the one that maps the largest weight to the largest level.
  int steps = 9;
  /// Relative distance between candidates.
  float width = 0.025f;
  /// Enumerate every scale at which some code changes instead: the optimum for one scale and a fixed code table.
  bool exact = false;
  /// 0: the squared error is weighed by the importance alone. 1: by importance * sqrt(mean square + weight^2), which
  /// favours large weights.
  float magnitude = 0.0f;

  constexpr bool operator==(const quantize_policy&) const = default;
};

}  // namespace quantal
