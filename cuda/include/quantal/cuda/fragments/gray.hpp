// Codes and scales of iq4_kss: indices are Gray-coded, and the lowest bits of 16-bit numbers are those of a
// scale.
#pragma once

#include "quantal/cuda/fragments/lookup.hpp"
#include "quantal/cuda/fragments/scales.hpp"
#include "quantal/format/iq4_kss.hpp"

namespace quantal::cuda {

template <>
struct fragment_reader<iq4_kss> : code_reader<iq4_kss> {
  static constexpr fragment_order order = fragment_order::interleaved;

  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    constexpr auto table = detail::level_words<16>::of([](int i) { return iq4_kss::level(i, 0); }, 128);
    // Bit 0 of the two 16-bit numbers of a word are bits of the scale, and the lower one is cleared before
    // the shift would take the upper one's into it.
    const std::uint32_t w = bytes.template u32<16 * C>(4 * t) & 0xfffefffeu;
    const fragment_codes o = detail::lookup_16(table, w ^ w >> 1);
    const std::uint32_t step = detail::table_step<0, 4>(bytes.template u32<16 * C>());
    return {o.low + step, o.high + step};
  }
};

template <>
struct scale_reader<iq4_kss> {
  template <int Run, class Bytes>
  QUANTAL_HD static affine get(const Bytes& bytes, float row_scale, int t) noexcept {
    constexpr std::uint32_t ends = 0x00010001u;
    const word_pair a = bytes.template u64<64 * Run>(16 * t), b = bytes.template u64<64 * Run + 8>(16 * t);
    const std::uint32_t v =
        (a.low & ends) | (a.high & ends) << 2 | (b.low & ends) << 4 | (b.high & ends) << 6;
    return {row_scale * detail::biased_float<127>((v | v >> 15) & 254), 0};
  }
};

}  // namespace quantal::cuda
