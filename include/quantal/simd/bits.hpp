// The bits of one kind of lane as another.
#pragma once

#include <cstring>

#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// The same bits as lanes of T. xsimd's bitwise_cast picks NEON's casts through a table of functions, and so
/// becomes a call in the middle of a kernel.
template <class T, class U, class A>
QUANTAL_INLINE xsimd::batch<T, A> bits_as(const xsimd::batch<U, A>& v) noexcept {
  using from = typename xsimd::batch<U, A>::register_type;
  using to = typename xsimd::batch<T, A>::register_type;
  static_assert(sizeof(from) == sizeof(to));
  const from in = v;
  to out;
  std::memcpy(&out, &in, sizeof out);
  return xsimd::batch<T, A>(out);
}

}  // namespace quantal::simd
