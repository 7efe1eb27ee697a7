// The lane decoder of every format whose codes are bits in planes: generated from the format's bit plan.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/blocks.hpp"
#include "quantal/kernel/decode/avx512_vnni/scales.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {
namespace avx512_vnni {

/// Values of block_scales in lanes: for formats whose scales are read by no plan.
template <block_format F, class Lanes, arch A>
QUANTAL_INLINE void stated_scales(const typename F::block* b, float row_scale,
                                  lane_registers<A>& out) noexcept {
  constexpr int per_block = F::layout.elements / sub_group<F>;
  alignas(64) static constexpr auto index = lanes_of([](int l) { return Lanes::weight(l) / sub_group<F>; });
  alignas(64) float scales[16] = {}, offsets[16] = {};
  for (int i = 0; i < slice_blocks<F>; ++i)
    block_scales(F{}, b[i], row_scale, scales + per_block * i, offsets + per_block * i, simd::on<A>{});
  out.scale = _mm512_permutexvar_ps(load(index), _mm512_load_ps(scales));
  if constexpr (F::layout.has_offset)
    out.offset = _mm512_permutexvar_ps(load(index), _mm512_load_ps(offsets));
}

}  // namespace avx512_vnni

template <avx512_vnni::planar_slices F, avx512_vnni::arch A>
struct lane_decoder<F, A> : avx512_vnni::slice_decoder<F, A, lane_decoder<F, A>> {
  static constexpr avx512_vnni::lane_order order = avx512_vnni::best_order<F>;
  static constexpr lane_map map = avx512_vnni::map_of<order>;

  QUANTAL_INLINE void decode_blocks(const typename F::block* b, float row_scale) noexcept {
    using lanes = avx512_vnni::lanes_in<order>;
    const auto* const slice = reinterpret_cast<const std::uint8_t*>(b);
    auto& out = this->decoded;
    __m512i codes[4];
    avx512_vnni::slice_codes_in<F, order>(slice, codes);
    if constexpr (has_two_tables<F>) {
      const __m512i step = avx512_vnni::table_steps<F, lanes>(slice);
      simd::unroll<4>([&](auto r) QUANTAL_LAMBDA { codes[r] = _mm512_add_epi8(codes[r], step); });
    }
    simd::unroll<4>([&](auto r) QUANTAL_LAMBDA { out.codes[r] = codes[r]; });
    if constexpr (avx512_vnni::has_planned_scales<F>) {
      out.scale = avx512_vnni::scale_lanes<F, lanes>(slice, row_scale);
      if constexpr (F::layout.has_offset) out.offset = avx512_vnni::offset_lanes<F, lanes>(slice);
    } else {
      avx512_vnni::stated_scales<F, lanes>(b, row_scale, out);
    }
  }
};

}  // namespace quantal::kernel

#endif
