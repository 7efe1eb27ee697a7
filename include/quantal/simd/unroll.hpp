// Loops that are unrolled before anything else is optimized.
#pragma once

#include <type_traits>
#include <utility>

#include "quantal/config.hpp"

namespace quantal::simd {

/// f(0), ..., f(N - 1) with the index as a compile-time constant. A local array of registers that is only
/// indexed like this stays in registers; compilers that unroll an ordinary loop late leave it in memory.
/// Take the index as an int where it need not be a constant expression: f is then compiled once, not N times.
template <int N, class Fn>
QUANTAL_INLINE constexpr void unroll(Fn&& f) noexcept {
  [&]<int... I>(std::integer_sequence<int, I...>) QUANTAL_LAMBDA {
    (f(std::integral_constant<int, I>{}), ...);
  }
  (std::make_integer_sequence<int, N>{});
}

/// f(i, j) for all i < N, j < M.
template <int N, int M, class Fn>
QUANTAL_INLINE constexpr void unroll(Fn&& f) noexcept {
  [&]<int... I>(std::integer_sequence<int, I...>) QUANTAL_LAMBDA {
    (f(std::integral_constant<int, I / M>{}, std::integral_constant<int, I % M>{}), ...);
  }
  (std::make_integer_sequence<int, N * M>{});
}

}  // namespace quantal::simd
