// Products that stay products. Compilers may contract a * b + c to one fused operation, which rounds once
// where the source rounds twice: GCC does so wherever the machine can (-ffp-contract=fast), clang within an
// expression.
#pragma once

#include <cstddef>
#include <type_traits>

#include "quantal/config.hpp"

// Units that are compiled with -ffp-contract=off say so, and nothing has to be marked: QUANTAL_NO_CONTRACTION, as those of
// quantal::runtime do. Marks cost its quantizers up to a tenth of their speed.
#ifdef QUANTAL_NO_CONTRACTION
#define QUANTAL_MARKS_PRODUCTS 0
#else
#define QUANTAL_MARKS_PRODUCTS 1
#endif

// A place for a float or a vector in an operand of asm: AVX-512 has registers that "x" does not name.
#if defined(__x86_64__)
#define QUANTAL_FLOAT_OPERAND "+x"
#elif defined(__aarch64__)
#define QUANTAL_FLOAT_OPERAND "+w"
#else
#define QUANTAL_FLOAT_OPERAND "+g"
#endif

namespace quantal::simd {

/// v, of which the compiler no longer knows how it came about.
template <class T>
requires std::is_floating_point_v<T> QUANTAL_INLINE constexpr T opaque(T v) noexcept {
#if QUANTAL_MARKS_PRODUCTS
  if (!std::is_constant_evaluated()) asm("" : QUANTAL_FLOAT_OPERAND(v));
#endif
  return v;
}
/// The same of n values in memory: loops before and after it may become vectors.
template <std::size_t n, class T>
QUANTAL_INLINE void make_opaque([[maybe_unused]] T* v) noexcept {
#if QUANTAL_MARKS_PRODUCTS
  asm("" : "+m"(*reinterpret_cast<T(*)[n]>(v)));
#endif
}

/// a * b, rounded to their common type before anything is added to it.
template <class T, class U>
requires std::is_arithmetic_v<T> && std::is_arithmetic_v<U> QUANTAL_INLINE constexpr auto mul(T a,
                                                                                              U b) noexcept {
  using common = std::common_type_t<T, U>;
  return opaque(static_cast<common>(a) * static_cast<common>(b));
}

/// A register of floats that, where it is a product, is not fused with the sum that it goes into. GCC's
/// barrier costs nothing, but gets lost where the compiler itself makes vectors of floats, which therefore
/// take `opaque`. Clang does not fuse what intrinsics return, unless it is told -ffp-contract=fast.
template <class V>
QUANTAL_INLINE V as_written(V v) noexcept {
#if QUANTAL_MARKS_PRODUCTS && defined(__GNUC__) && !defined(__clang__)
#if __GNUC__ >= 12
  return __builtin_assoc_barrier(v);
#else
  asm("" : QUANTAL_FLOAT_OPERAND(v));
#endif
#endif
  return v;
}

}  // namespace quantal::simd

namespace quantal::quantize {
using simd::mul;
}

#undef QUANTAL_FLOAT_OPERAND
#undef QUANTAL_MARKS_PRODUCTS
