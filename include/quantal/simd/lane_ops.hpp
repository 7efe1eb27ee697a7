// Arithmetic of lanes that is sure to be one instruction. xsimd picks most of NEON's through a table of
// functions, which GCC does not see through in large kernels: a product of two registers becomes a call.
#pragma once

#include <type_traits>

#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// f of two registers: on NEON of the vectors themselves, whose operators are the compiler's own.
template <class T, class A, class Fn>
QUANTAL_INLINE xsimd::batch<T, A> lane_op(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b,
                                          Fn f) noexcept {
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    using vector = typename xsimd::batch<T, A>::register_type;
    return xsimd::batch<T, A>(f(static_cast<vector>(a), static_cast<vector>(b)));
  } else {
    return f(a, b);
  }
}
template <class T, class A>
QUANTAL_INLINE xsimd::batch<T, A> plus(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b) noexcept {
  return lane_op(a, b, [](auto x, auto y) QUANTAL_LAMBDA { return x + y; });
}
template <class T, class A>
QUANTAL_INLINE xsimd::batch<T, A> minus(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b) noexcept {
  return lane_op(a, b, [](auto x, auto y) QUANTAL_LAMBDA { return x - y; });
}
template <class T, class A>
QUANTAL_INLINE xsimd::batch<T, A> times(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b) noexcept {
  return lane_op(a, b, [](auto x, auto y) QUANTAL_LAMBDA { return x * y; });
}
template <class T, class A>
QUANTAL_INLINE xsimd::batch<T, A> both(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b) noexcept {
  return lane_op(a, b, [](auto x, auto y) QUANTAL_LAMBDA { return x & y; });
}
template <class T, class A>
QUANTAL_INLINE xsimd::batch<T, A> either(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b) noexcept {
  return lane_op(a, b, [](auto x, auto y) QUANTAL_LAMBDA { return x | y; });
}
template <class T, class A>
QUANTAL_INLINE xsimd::batch<T, A> differing(const xsimd::batch<T, A>& a,
                                            const xsimd::batch<T, A>& b) noexcept {
  return lane_op(a, b, [](auto x, auto y) QUANTAL_LAMBDA { return x ^ y; });
}

/// 1 where a >= b, else 0.
template <class A>
QUANTAL_INLINE xsimd::batch<std::uint8_t, A> one_from(const xsimd::batch<std::uint8_t, A>& a,
                                                      const xsimd::batch<std::uint8_t, A>& b) noexcept {
  using batch = xsimd::batch<std::uint8_t, A>;
#if XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) return batch(vandq_u8(vcgeq_u8(a, b), vdupq_n_u8(1)));
#endif
  return xsimd::select(a >= b, batch(std::uint8_t{1}), batch(std::uint8_t{0}));
}

/// Sum of all lanes.
template <class A>
QUANTAL_INLINE float sum_of(const xsimd::batch<float, A>& v) noexcept {
#if XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) return vaddvq_f32(v);
#endif
  return xsimd::reduce_add(v);
}

}  // namespace quantal::simd
