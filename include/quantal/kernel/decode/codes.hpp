// A whole block decoded at once: codes in element order as unsigned bytes, and the scales. What every kernel
// consumes.
//
// The generic forms run on F::code / F::scale. The overloads, by family in the headers beside this one, are
// the same decode written over the stored fields in 32-byte registers. They end in an arch tag, so that an
// arch's own overload wins where there is one.
#pragma once

#include <array>

#include "quantal/code_bias.hpp"
#include "quantal/format.hpp"
#include "quantal/format/bit_plan.hpp"
#include "quantal/formats.hpp"
#include "quantal/simd/arch.hpp"

namespace quantal::kernel {

/// Weights per scale as kernels see it: 16, 32 or the 128 of an activation block.
template <block_format F>
inline constexpr int sub_group = F::layout.group < 32    ? F::layout.group
                                 : F::layout.group < 128 ? 32
                                                         : 128;

template <block_format F>
inline constexpr bool narrow_codes = code_bias<F> != 128;

/// codes[e] = F::code(b, e) + code_bias<F> for the whole block.
template <block_format F>
QUANTAL_INLINE void block_codes(const F&, const typename F::block& b, std::uint8_t* codes,
                                const simd::base&) noexcept {
  for (int e = 0; e < F::layout.elements; ++e)
    codes[e] = static_cast<std::uint8_t>(F::code(b, e) + code_bias<F>);
}

/// scales[s] (and offsets[s] where the format has them) of every sub_group of the block.
template <block_format F>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& b, float row_scale, float* scales,
                                 float* offsets, const simd::base&) noexcept {
  constexpr int per_group = F::layout.group / sub_group<F>;
  for (int g = 0; g < F::layout.groups(); ++g)
    for (int s = 0; s < per_group; ++s) {
      scales[g * per_group + s] = F::scale(b, row_scale, g);
      if constexpr (F::layout.has_offset) offsets[g * per_group + s] = F::offset(b, row_scale, g);
    }
}

/// Formats whose levels a byte lookup reaches.
template <class F>
inline constexpr bool levels_in_reach = true;
template <has_levels F>
inline constexpr bool levels_in_reach<F> = F::levels <= 64;

/// Codes of the n levels of a table format (its first table where it has two), for a byte lookup of at
/// least 16.
template <block_format F, int n>
inline constexpr auto level_codes = [] {
  std::array<std::uint8_t, std::size_t{n < 16 ? 16 : n}> t{};
  for (int i = 0; i < n; ++i)
    t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(first_level<F>(i) + code_bias<F>);
  return t;
}();

}  // namespace quantal::kernel
