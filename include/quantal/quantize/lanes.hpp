// Candidates side by side: the lanes of a register hold scales, and a loop over the weights of a group serves
// them all.
//
// Every lane adds its terms in the order of the weights and nothing is fused, so the chosen blocks do not
// depend on the width of the registers: quantal::runtime gives the same bytes on every arch. (A compiler that
// is allowed to contract a * b + c, as GCC is with -march=native, may choose other, equally good blocks in
// header-only use.)
#pragma once

#include <cmath>

#include "quantal/simd/arch.hpp"

namespace quantal::quantize {

/// A format bound to the arch whose instructions its quantizer may use; what is a template on the format
/// becomes one on the arch too, so that no two variants share a symbol.
template <class F, class A>
struct on_arch : F {
  using arch = std::conditional_t<std::is_same_v<A, simd::scalar>, xsimd::default_arch, A>;
};

namespace detail {
template <class F>
struct arch_of {
  using type = xsimd::default_arch;
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

/// 1 / d, and 0 where that would overflow: such scales count as zero.
QUANTAL_INLINE float safe_inverse(float d) noexcept { return std::fabs(d) < 1e-30f ? 0.0f : 1.0f / d; }

}  // namespace quantal::quantize
