// One binary16 scale to float32, with the arch's own instruction where it has one.
#pragma once

#include "quantal/format/detail/half.hpp"
#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// The value of h; a signalling NaN may come out quiet.
QUANTAL_INLINE float half_on(quantal::detail::half_bits h, const base&) noexcept { return h.get(); }

#if XSIMD_WITH_AVX2 && defined(__F16C__)
QUANTAL_INLINE float half_on(quantal::detail::half_bits h, const xsimd::avx2&) noexcept { return _cvtsh_ss(h.raw.get()); }
#endif

#if XSIMD_WITH_NEON64
QUANTAL_INLINE float half_on(quantal::detail::half_bits h, const xsimd::neon64&) noexcept {
  return vgetq_lane_f32(vcvt_f32_f16(vreinterpret_f16_u16(vdup_n_u16(h.raw.get()))), 0);
}
#endif

}  // namespace quantal::simd
