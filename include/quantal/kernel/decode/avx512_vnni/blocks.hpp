// What lane decoders of avx512_vnni have in common: slices of one block or of several.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/registers.hpp"
#include "quantal/kernel/lanes.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel::avx512_vnni {

static_assert(weights == slice_weights);

/// Four registers of codes under one integer sum.
template <arch A>
using lane_registers = lane_group<A, 4>;

template <lane_order order>
inline constexpr lane_map map_of = [] {
  lane_map m{4, {}};
  for (int t = 0; t < 64; ++t)
    m.word[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(order.weight(t / 16, t % 16 * 4) / 4);
  return m;
}();

/// Slices of n blocks; `D::decode_blocks` decodes n of them.
template <block_format F, arch A, class D>
struct slice_decoder {
  static constexpr int depth = 4, sums = 1, n = slice_weights / F::layout.elements;
  lane_registers<A> decoded;

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    static_cast<D*>(this)->decode_blocks(row_blocks<F>(row) + first / F::layout.elements, row_scale);
  }
  QUANTAL_INLINE void decode_tail(const std::byte* row, float row_scale, std::int64_t first,
                                  int count) noexcept {
    typename F::block blocks[std::size_t{n}] = {};
    std::memcpy(blocks, row_blocks<F>(row) + first / F::layout.elements,
                static_cast<std::size_t>(count / F::layout.elements * F::layout.bytes));
    static_cast<D*>(this)->decode_blocks(blocks, row_scale);
  }
  template <int>
  QUANTAL_INLINE const lane_registers<A>& group() const noexcept {
    return decoded;
  }
};

}  // namespace quantal::kernel::avx512_vnni

#endif
