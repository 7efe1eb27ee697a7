// How hard a quantizer searches, and what it weighs. A structural type: usable as a template argument.
#pragma once

#include "quantal/config.hpp"

namespace quantal {

struct quantize_policy {
  /// Search longer. Blocks with one scale of at most 32 weights: every scale at which some code changes, the
  /// optimum for one scale and a fixed code table, next to the candidates of the fast search. Scales shared
  /// by groups: more candidates and more least-squares rounds.
  bool thorough = false;
  /// 0: the squared error is weighed by the importance alone. 1: by importance * sqrt(mean square +
  /// weight^2), which favours large weights.
  float magnitude = 0.0f;
  [[deprecated("thorough")]] bool exact = false;  ///< the name that `thorough` had

  QUANTAL_INLINE constexpr bool searches_longer() const noexcept {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
    return thorough || exact;
#pragma GCC diagnostic pop
  }
  constexpr bool operator==(const quantize_policy&) const = default;
};

}  // namespace quantal
