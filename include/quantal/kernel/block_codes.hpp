// A whole block decoded at once: int8 codes in element order, and its scales. What every kernel consumes.
//
// The generic forms run on F::code / F::scale. The overloads are the same decode written as straight loops over the
// stored fields, which compilers turn into vector code for whichever arch the unit is built for.
#pragma once

#include "quantal/format.hpp"
#include "quantal/formats.hpp"

namespace quantal::kernel {

/// Weights per scale as kernels see it: never more than an activation block.
template <block_format F>
inline constexpr int sub_group = F::layout.group < 32 ? F::layout.group : 32;

/// codes[e] = F::code(b, e) for the whole block.
template <block_format F>
QUANTAL_INLINE void block_codes(const F&, const typename F::block& b, std::int8_t* codes) noexcept {
  for (int e = 0; e < F::layout.elements; ++e) codes[e] = static_cast<std::int8_t>(F::code(b, e));
}

/// scales[s] (and offsets[s] where the format has them) of every sub_group of the block.
template <block_format F>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& b, float row_scale, float* scales,
                                 float* offsets) noexcept {
  constexpr int per_group = F::layout.group / sub_group<F>;
  for (int g = 0; g < F::layout.groups(); ++g)
    for (int s = 0; s < per_group; ++s) {
      scales[g * per_group + s] = F::scale(b, row_scale, g);
      if constexpr (F::layout.has_offset) offsets[g * per_group + s] = F::offset(b, row_scale, g);
    }
}

namespace detail {

/// Low nibbles of `n` bytes to out[0..n), high nibbles to out[n..2n), each minus `bias`.
template <int n>
QUANTAL_INLINE void split_nibbles(const std::uint8_t* qs, std::int8_t* out, int bias) noexcept {
  for (int i = 0; i < n; ++i) out[i] = static_cast<std::int8_t>((qs[i] & 15) - bias);
  for (int i = 0; i < n; ++i) out[n + i] = static_cast<std::int8_t>((qs[i] >> 4) - bias);
}

/// 64 bytes of 2-bit fields in the order of q2_K: out[128n + 32j + l] = bits 2j..2j+1 of byte 32n + l.
QUANTAL_INLINE void split_pairs(const std::uint8_t* qs, std::int8_t* out) noexcept {
  for (int n = 0; n < 2; ++n)
    for (int j = 0; j < 4; ++j)
      for (int l = 0; l < 32; ++l) out[128 * n + 32 * j + l] = static_cast<std::int8_t>(qs[32 * n + l] >> (2 * j) & 3);
}

/// Adds `value` to out[32 * g + l] where bit g of byte l is set.
QUANTAL_INLINE void add_bit_plane(const std::uint8_t* plane, std::int8_t* out, int value) noexcept {
  for (int g = 0; g < 8; ++g)
    for (int l = 0; l < 32; ++l)
      out[32 * g + l] = static_cast<std::int8_t>(out[32 * g + l] + (plane[l] >> g & 1) * value);
}

}  // namespace detail

QUANTAL_INLINE void block_codes(const q8_0&, const q8_0::block& b, std::int8_t* codes) noexcept {
  __builtin_memcpy(codes, b.qs, 32);
}

QUANTAL_INLINE void block_codes(const q4_0&, const q4_0::block& b, std::int8_t* codes) noexcept {
  detail::split_nibbles<16>(b.qs, codes, 8);
}

QUANTAL_INLINE void block_codes(const q4_1&, const q4_1::block& b, std::int8_t* codes) noexcept {
  detail::split_nibbles<16>(b.qs, codes, 0);
}

QUANTAL_INLINE void block_codes(const q4_K&, const q4_K::block& b, std::int8_t* codes) noexcept {
  for (int c = 0; c < 4; ++c) detail::split_nibbles<32>(b.qs + 32 * c, codes + 64 * c, 0);
}

QUANTAL_INLINE void block_codes(const q5_K&, const q5_K::block& b, std::int8_t* codes) noexcept {
  for (int c = 0; c < 4; ++c) detail::split_nibbles<32>(b.qs + 32 * c, codes + 64 * c, 0);
  detail::add_bit_plane(b.qh, codes, 16);
}

QUANTAL_INLINE void block_codes(const q2_K&, const q2_K::block& b, std::int8_t* codes) noexcept {
  detail::split_pairs(b.qs, codes);
}

QUANTAL_INLINE void block_codes(const q3_K&, const q3_K::block& b, std::int8_t* codes) noexcept {
  detail::split_pairs(b.qs, codes);
  for (int e = 0; e < 256; ++e) codes[e] = static_cast<std::int8_t>(codes[e] - 4);
  detail::add_bit_plane(b.hmask, codes, 4);
}

QUANTAL_INLINE void block_codes(const q6_K&, const q6_K::block& b, std::int8_t* codes) noexcept {
  for (int n = 0; n < 2; ++n)
    for (int j = 0; j < 4; ++j)
      for (int l = 0; l < 32; ++l) {
        const int low = b.ql[64 * n + 32 * (j % 2) + l] >> (4 * (j / 2)) & 15;
        const int high = b.qh[32 * n + l] >> (2 * j) & 3;
        codes[128 * n + 32 * j + l] = static_cast<std::int8_t>((low | high << 4) - 32);
      }
}

QUANTAL_INLINE void block_codes(const iq2_xxs&, const iq2_xxs::block& b, std::int8_t* codes) noexcept {
  for (int g = 0; g < 8; ++g) {
    const std::uint32_t w = b.groups[g].w.get();
    for (int t = 0; t < 4; ++t) {
      const int signs = quantal::detail::signs7(static_cast<int>(w >> (7 * t) & 127));
      const std::uint32_t entry = quantal::detail::grid_iq2_xxs_entries[b.groups[g].grid[t]];
      for (int k = 0; k < 8; ++k) {
        const int magnitude = static_cast<int>(0x2b1908u >> (8 * (entry >> (2 * k) & 3)) & 255);
        const int negative = -(signs >> k & 1);
        codes[32 * g + 8 * t + k] = static_cast<std::int8_t>((magnitude ^ negative) - negative);
      }
    }
  }
}

}  // namespace quantal::kernel
