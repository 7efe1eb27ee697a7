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

/// Codes of the n levels of a table format (its first table where it has two), for a byte lookup of at
/// least 16.
template <block_format F, int n>
inline constexpr auto level_codes = [] {
  std::array<std::uint8_t, std::size_t{n < 16 ? 16 : n}> t{};
  for (int i = 0; i < n; ++i) {
    if constexpr (requires { F::level(0, 0); })
      t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(F::level(i, 0) + code_bias<F>);
    else
      t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(F::level(i) + code_bias<F>);
  }
  return t;
}();

/// Levels that are their index times a power of two need no table: log2 of it, else -1. Two specialisations rather than
/// one function: GCC 13 takes a call of that for one before its definition.
template <block_format F>
inline constexpr int level_shift = -1;
template <has_levels F>
requires(!has_two_tables<F>) inline constexpr int level_shift<F> = [](auto level) {
  for (int s = 0; s < 7; ++s) {
    bool all = true;
    for (int i = 0; i < F::levels; ++i) all &= level(i) + code_bias<F> == i << s;
    if (all) return s;
  }
  return -1;
}([](int i) { return F::level(i); });
/// Do codes come from a table of levels?
template <block_format F>
inline constexpr bool looks_up = has_levels<F>&& level_shift<F> < 0;

}  // namespace quantal::kernel
