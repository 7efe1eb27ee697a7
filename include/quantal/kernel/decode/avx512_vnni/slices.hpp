// Slices of several short blocks in natural order: what panels are made of where the lanes' own order is no
// faster.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/scales.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {

namespace avx512_vnni {

template <class F>
concept natural_slices = planar_slices<F> &&(slice_blocks<F> > 1) &&
                         !has_two_tables<F> && has_planned_scales<F>;

}  // namespace avx512_vnni

/// Codes, scales and offsets of a whole slice; scales and offsets have room for sixteen each.
template <avx512_vnni::natural_slices F, avx512_vnni::arch A>
QUANTAL_INLINE void slice_codes(const F&, const typename F::block* b, float row_scale, std::uint8_t* codes,
                                float* scales, float* offsets, const simd::on<A>&) noexcept {
  using lanes = avx512_vnni::scales_in_order<sub_group<F>>;
  const auto* const slice = reinterpret_cast<const std::uint8_t*>(b);
  __m512i c[4];
  avx512_vnni::slice_codes_in<F, avx512_vnni::order_of_slice>(slice, c);
  simd::unroll<4>([&](auto r) QUANTAL_LAMBDA { _mm512_store_si512(codes + 64 * r, c[r]); });
  _mm512_store_ps(scales, avx512_vnni::scale_lanes<F, lanes>(slice, row_scale));
  if constexpr (F::layout.has_offset) _mm512_store_ps(offsets, avx512_vnni::offset_lanes<F, lanes>(slice));
}

}  // namespace quantal::kernel

#endif
