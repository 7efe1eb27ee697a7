// How hard a quantizer searches, and what it weighs. A structural type: usable as a template argument.
#pragma once

namespace quantal {

struct quantize_policy {
  /// Search longer. Blocks with one scale of at most 32 weights: every scale at which some code changes, the
  /// optimum for one scale and a fixed code table, next to the candidates of the fast search. Scales shared
  /// by groups: more candidates and more least-squares rounds.
  bool exact = false;
  /// 0: the squared error is weighed by the importance alone. 1: by importance * sqrt(mean square +
  /// weight^2), which favours large weights.
  float magnitude = 0.0f;

  constexpr bool operator==(const quantize_policy&) const = default;
};

}  // namespace quantal
