// Candidates side by side: the lanes of a register hold scales, and a loop over the weights of a group serves
// them all.
//
// Every lane adds its terms in the order of the weights and nothing is fused (simd/as_written.hpp), so the
// chosen blocks depend neither on the width of the registers nor on what a compiler is allowed to contract:
// quantal::runtime gives the same bytes on every arch, and so do the headers.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "quantal/quantize/stored.hpp"
#include "quantal/simd/arch.hpp"
#include "quantal/simd/round.hpp"

namespace quantal::quantize {

/// A format bound to the arch whose instructions its quantizer may use; what is a template on the format
/// becomes one on the arch too, so that no two variants share a symbol.
template <class F, class A>
struct on_arch : F {
  using arch = A;
};

namespace detail {
template <class F>
struct arch_of {
  using type = simd::native;
};
template <class F>
requires requires { typename F::arch; }
struct arch_of<F> {
  using type = typename F::arch;
};
}  // namespace detail

/// One register of candidates.
template <class F>
using lanes = xsimd::batch<float, typename detail::arch_of<F>::type>;

/// Candidates are evaluated in multiples of this many, whatever the arch.
inline constexpr int lane_count = 16;

/// 1 / d, and 0 where that would overflow: such scales count as zero. The division is unconditional, so that
/// loops over lanes become vectors.
QUANTAL_INLINE float safe_inverse(float d) noexcept {
  const bool zero = std::fabs(d) < 1e-30f;
  const float inverse = 1.0f / (zero ? 1.0f : d);
  return zero ? 0.0f : inverse;
}

/// The sum of lane_count numbers, in one order on every arch. Uses them up.
QUANTAL_INLINE float sum_of_lanes(float* v) noexcept {
  for (int l = 0; l < 8; ++l) v[l] += v[l + 8];
  for (int l = 0; l < 4; ++l) v[l] += v[l + 4];
  return (v[0] + v[2]) + (v[1] + v[3]);
}

/// Index of the first smallest of K values, a multiple of lane_count; none may be NaN.
template <class F, int K>
QUANTAL_INLINE int smallest(const float* v) noexcept {
  using batch = lanes<F>;
  constexpr int width = static_cast<int>(batch::size);
  batch least = batch::load_unaligned(v);
  for (int k = width; k < K; k += width) least = xsimd::min(least, batch::load_unaligned(v + k));
  const batch all(xsimd::reduce_min(least));
  for (int k = 0; k < K; k += width)
    if (const auto found = (batch::load_unaligned(v + k) == all).mask())
      return k + std::countr_zero(static_cast<std::uint64_t>(found));
  return 0;
}

/// The value of largest magnitude, the positive one of two; N is a multiple of lane_count.
template <class F, int N>
QUANTAL_INLINE float extreme_of(const float* x) noexcept {
  using batch = lanes<F>;
  batch low = batch::load_unaligned(x), high = low;
  for (int i = static_cast<int>(batch::size); i < N; i += static_cast<int>(batch::size)) {
    const batch v = batch::load_unaligned(x + i);
    low = xsimd::min(low, v), high = xsimd::max(high, v);
  }
  const float a = xsimd::reduce_min(low), b = xsimd::reduce_max(high);
  return -a > b ? a : b;
}

namespace detail {

/// stored_half of every lane. Fallback.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> stored_half_on(const xsimd::batch<float, A>& v,
                                                     const simd::base&) noexcept {
  using batch = xsimd::batch<float, A>;
  const batch clamped = xsimd::min(xsimd::max(v, batch(-65504.0f)), batch(65504.0f));
  // The last place of a half is 2^-10 of its power of two, and never below 2^-24. Adding 1.5 * 2^23 of it
  // rounds to nearest even.
  const batch power = xsimd::bitwise_cast<float>(xsimd::bitwise_cast<std::int32_t>(clamped) & 0x7f800000);
  const batch magic = xsimd::max(power * batch(12288.0f), batch(0.75f));
  return simd::opaque(clamped + magic) - magic;
}
#if XSIMD_WITH_AVX2 && defined(__F16C__)
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> stored_half_on(const xsimd::batch<float, A>& v,
                                                     const xsimd::avx2&) noexcept {
  using batch = xsimd::batch<float, A>;
  const batch clamped = xsimd::min(xsimd::max(v, batch(-65504.0f)), batch(65504.0f));
  const batch half = _mm256_cvtph_ps(_mm256_cvtps_ph(clamped, _MM_FROUND_TO_NEAREST_INT));
  return xsimd::select(half == batch(0.0f), batch(0.0f), half);  // no negative zero
}
#endif
#if XSIMD_WITH_AVX512F
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> stored_half_on(const xsimd::batch<float, A>& v,
                                                     const xsimd::avx512f&) noexcept {
  using batch = xsimd::batch<float, A>;
  const batch clamped = xsimd::min(xsimd::max(v, batch(-65504.0f)), batch(65504.0f));
  const batch half = _mm512_cvtph_ps(_mm512_cvtps_ph(clamped, _MM_FROUND_TO_NEAREST_INT));
  return xsimd::select(half == batch(0.0f), batch(0.0f), half);
}
#endif

}  // namespace detail

/// stored_half of every lane.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> stored_half(const xsimd::batch<float, A>& v) noexcept {
  return detail::stored_half_on<A>(v, simd::on<A>{});
}

/// The largest magnitude; N is a multiple of lane_count.
template <class F, int N>
QUANTAL_INLINE float largest_magnitude_of(const float* x) noexcept {
  using batch = lanes<F>;
  batch most = xsimd::abs(batch::load_unaligned(x));
  for (int i = static_cast<int>(batch::size); i < N; i += static_cast<int>(batch::size))
    most = xsimd::max(most, xsimd::abs(batch::load_unaligned(x + i)));
  return xsimd::reduce_max(most);
}

}  // namespace quantal::quantize
