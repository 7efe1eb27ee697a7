// Loops whose index is a constant.
#pragma once

#include <utility>

#include "quantal/config.hpp"

namespace quantal::cuda {
namespace detail {

template <class Fn, int... I>
QUANTAL_HD void unroll(Fn& fn, std::integer_sequence<int, I...>) noexcept {
  (fn.template operator()<I>(), ...);
}

}  // namespace detail

/// Calls fn.template operator()<I>() for I = 0 .. N - 1.
template <int N, class Fn>
QUANTAL_HD void unrolled(Fn&& fn) noexcept {
  detail::unroll(fn, std::make_integer_sequence<int, N>{});
}

}  // namespace quantal::cuda
