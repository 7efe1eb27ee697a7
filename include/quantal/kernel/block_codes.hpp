// A whole block decoded at once: codes in element order as unsigned bytes, and the scales. What every kernel consumes.
//
// The generic forms run on F::code / F::scale. The overloads are the same decode written over the stored fields, mostly
// as straight loops, which compilers turn into vector code for whichever arch the unit is built for. They end in an
// arch tag, so that an arch's own overload wins where there is one.
#pragma once

#include <cstring>

#include "quantal/format.hpp"
#include "quantal/formats.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/lookup16.hpp"

namespace quantal::kernel {

/// Weights per scale as kernels see it: never more than an activation block.
template <block_format F>
inline constexpr int sub_group = F::layout.group < 32 ? F::layout.group : 32;

/// Kernels see codes as unsigned bytes, code + code_bias. Without a bias nothing has to be corrected afterwards; a bias
/// below 128 keeps the bytes within 7 bits, which int8 instructions without a u8 x s8 form need.
template <block_format F>
constexpr int code_bias_of() noexcept {
  if constexpr (requires { F::min_code + F::max_code; }) {
    if (F::min_code >= 0) return 0;
    if (F::max_code - F::min_code <= 127) return -F::min_code;
  }
  return 128;
}
template <block_format F>
inline constexpr int code_bias = code_bias_of<F>();
template <block_format F>
inline constexpr bool narrow_codes = code_bias<F> != 128;

/// codes[e] = F::code(b, e) + code_bias<F> for the whole block.
template <block_format F>
QUANTAL_INLINE void block_codes(const F&, const typename F::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  for (int e = 0; e < F::layout.elements; ++e) codes[e] = static_cast<std::uint8_t>(F::code(b, e) + code_bias<F>);
}

/// scales[s] (and offsets[s] where the format has them) of every sub_group of the block.
template <block_format F>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& b, float row_scale, float* scales, float* offsets,
                                 const simd::base&) noexcept {
  constexpr int per_group = F::layout.group / sub_group<F>;
  for (int g = 0; g < F::layout.groups(); ++g)
    for (int s = 0; s < per_group; ++s) {
      scales[g * per_group + s] = F::scale(b, row_scale, g);
      if constexpr (F::layout.has_offset) offsets[g * per_group + s] = F::offset(b, row_scale, g);
    }
}

namespace detail {

/// Low nibbles of `n` bytes to out[0..n), high nibbles to out[n..2n).
template <int n>
QUANTAL_INLINE void split_nibbles(const std::uint8_t* qs, std::uint8_t* out) noexcept {
  for (int i = 0; i < n; ++i) out[i] = qs[i] & 15;
  for (int i = 0; i < n; ++i) out[n + i] = qs[i] >> 4;
}

/// 64 bytes of 2-bit fields in the order of q2_K: out[128n + 32j + l] = bits 2j..2j+1 of byte 32n + l.
QUANTAL_INLINE void split_pairs(const std::uint8_t* qs, std::uint8_t* out) noexcept {
  for (int n = 0; n < 2; ++n)
    for (int j = 0; j < 4; ++j)
      for (int l = 0; l < 32; ++l) out[128 * n + 32 * j + l] = qs[32 * n + l] >> (2 * j) & 3;
}

/// Adds 1 << value_bit to out[32 * g + l] where bit g of byte l is set.
QUANTAL_INLINE void add_bit_plane(const std::uint8_t* plane, std::uint8_t* out, int value_bit) noexcept {
  for (int g = 0; g < 8; ++g)
    for (int l = 0; l < 32; ++l) out[32 * g + l] |= static_cast<std::uint8_t>((plane[l] >> g & 1) << value_bit);
}

/// Adds 1 << 4 to out[e] where bit e of the 32-bit word is set.
QUANTAL_INLINE void add_bit_word(const std::uint8_t* word, std::uint8_t* out) noexcept {
  static constexpr std::uint8_t mask[32] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128,
                                            1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
  std::uint8_t spread[32];
  for (int i = 0; i < 4; ++i) std::memset(spread + 8 * i, word[i], 8);
  for (int e = 0; e < 32; ++e) out[e] |= (spread[e] & mask[e]) ? 16 : 0;
}

/// Scales and mins of q4_K and q5_K, four fields to a 32-bit operation.
template <class Block, class Tag>
QUANTAL_INLINE void k4_scales(const Block& b, float* scales, float* offsets, const Tag& tag) noexcept {
  std::uint32_t p[3], q[4];
  std::memcpy(p, b.scales.packed, 12);
  q[0] = p[0] & 0x3f3f3f3fu;
  q[1] = (p[2] & 0x0f0f0f0fu) | (p[0] >> 2 & 0x30303030u);
  q[2] = p[1] & 0x3f3f3f3fu;
  q[3] = (p[2] >> 4 & 0x0f0f0f0fu) | (p[1] >> 2 & 0x30303030u);
  std::uint8_t fields[16];
  std::memcpy(fields, q, 16);
  const float d = simd::half_on(b.d, tag), m = simd::half_on(b.dmin, tag);
  for (int g = 0; g < 8; ++g) scales[g] = d * static_cast<float>(fields[g]);
  for (int g = 0; g < 8; ++g) offsets[g] = -(m * static_cast<float>(fields[8 + g]));
}

/// Levels of iq4_nl with the bias of kernel codes.
inline constexpr std::uint8_t lut4_nl_codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                   129, 141, 153, 166, 181, 197, 217, 241};

}  // namespace detail

// Legacy formats: one half scale per 32 weights.

template <class Tag>
QUANTAL_INLINE void block_scales(const q8_0&, const q8_0::block& b, float, float* s, float*, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q4_0&, const q4_0::block& b, float, float* s, float*, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q5_0&, const q5_0::block& b, float, float* s, float*, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q6_0&, const q6_0::block& b, float, float* s, float*, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const iq4_nl&, const iq4_nl::block& b, float, float* s, float*, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q4_1&, const q4_1::block& b, float, float* s, float* o, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
  o[0] = simd::half_on(b.m, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q5_1&, const q5_1::block& b, float, float* s, float* o, const Tag& t) noexcept {
  s[0] = simd::half_on(b.d, t);
  o[0] = simd::half_on(b.m, t);
}

QUANTAL_INLINE void block_codes(const q8_0&, const q8_0::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  for (int e = 0; e < 32; ++e) codes[e] = static_cast<std::uint8_t>(b.qs[e]) ^ 128;
}
QUANTAL_INLINE void block_codes(const q4_0&, const q4_0::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_nibbles<16>(b.qs, codes);
}
QUANTAL_INLINE void block_codes(const q4_1&, const q4_1::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_nibbles<16>(b.qs, codes);
}
QUANTAL_INLINE void block_codes(const q5_0&, const q5_0::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_nibbles<16>(b.qs, codes);
  detail::add_bit_word(b.qh, codes);
}
QUANTAL_INLINE void block_codes(const q5_1&, const q5_1::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_nibbles<16>(b.qs, codes);
  detail::add_bit_word(b.qh, codes);
}
QUANTAL_INLINE void block_codes(const q6_0&, const q6_0::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_nibbles<16>(b.qs, codes);
  for (int h = 0; h < 4; ++h)  // weights 8h .. 8h + 7
    for (int i = 0; i < 8; ++i) codes[8 * h + i] |= (b.qh[i] >> (4 * (h % 2) + 2 * (h / 2)) & 3) << 4;
}
template <class Tag>
QUANTAL_INLINE void block_codes(const iq4_nl&, const iq4_nl::block& b, std::uint8_t* codes, const Tag& tag) noexcept {
  simd::lookup_nibbles16(detail::lut4_nl_codes, b.qs, codes, tag);
}

// K formats: sub-scales under a half super-scale.

template <class Tag>
QUANTAL_INLINE void block_scales(const q4_K&, const q4_K::block& b, float, float* s, float* o, const Tag& t) noexcept {
  detail::k4_scales(b, s, o, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q5_K&, const q5_K::block& b, float, float* s, float* o, const Tag& t) noexcept {
  detail::k4_scales(b, s, o, t);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q6_K&, const q6_K::block& b, float, float* s, float*, const Tag& t) noexcept {
  const float d = simd::half_on(b.d, t);
  for (int g = 0; g < 16; ++g) s[g] = d * static_cast<float>(b.scales[g]);
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q2_K&, const q2_K::block& b, float, float* s, float* o, const Tag& t) noexcept {
  const float d = simd::half_on(b.d, t), m = simd::half_on(b.dmin, t);
  for (int g = 0; g < 16; ++g) s[g] = d * static_cast<float>(b.scales[g] & 15);
  for (int g = 0; g < 16; ++g) o[g] = -(m * static_cast<float>(b.scales[g] >> 4));
}
template <class Tag>
QUANTAL_INLINE void block_scales(const q3_K&, const q3_K::block& b, float, float* s, float*, const Tag& t) noexcept {
  std::uint8_t fields[16];
  for (int g = 0; g < 8; ++g) fields[g] = b.scales[g] & 15;
  for (int g = 0; g < 8; ++g) fields[8 + g] = b.scales[g] >> 4;
  for (int j = 0; j < 4; ++j)
    for (int i = 0; i < 4; ++i) fields[4 * j + i] |= static_cast<std::uint8_t>((b.scales[8 + i] >> (2 * j) & 3) << 4);
  const float d = simd::half_on(b.d, t);
  for (int g = 0; g < 16; ++g) s[g] = d * static_cast<float>(fields[g] - 32);
}

QUANTAL_INLINE void block_codes(const q4_K&, const q4_K::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  for (int c = 0; c < 4; ++c) detail::split_nibbles<32>(b.qs + 32 * c, codes + 64 * c);
}
QUANTAL_INLINE void block_codes(const q5_K&, const q5_K::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  for (int c = 0; c < 4; ++c) detail::split_nibbles<32>(b.qs + 32 * c, codes + 64 * c);
  detail::add_bit_plane(b.qh, codes, 4);
}
QUANTAL_INLINE void block_codes(const q2_K&, const q2_K::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_pairs(b.qs, codes);
}
QUANTAL_INLINE void block_codes(const q3_K&, const q3_K::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  detail::split_pairs(b.qs, codes);
  detail::add_bit_plane(b.hmask, codes, 2);
}
QUANTAL_INLINE void block_codes(const q6_K&, const q6_K::block& b, std::uint8_t* codes, const simd::base&) noexcept {
  for (int n = 0; n < 2; ++n)
    for (int j = 0; j < 4; ++j)
      for (int l = 0; l < 32; ++l) {
        const int low = b.ql[64 * n + 32 * (j % 2) + l] >> (4 * (j / 2)) & 15;
        const int high = b.qh[32 * n + l] >> (2 * j) & 3;
        codes[128 * n + 32 * j + l] = static_cast<std::uint8_t>(low | high << 4);
      }
}

// iq formats.

template <class Tag>
QUANTAL_INLINE void block_scales(const iq4_xs&, const iq4_xs::block& b, float, float* s, float*, const Tag& t) noexcept {
  const std::uint32_t high = b.scales_h[0] | static_cast<std::uint32_t>(b.scales_h[1]) << 8;
  const float d = simd::half_on(b.d, t);
  for (int g = 0; g < 8; ++g) {
    const int field = static_cast<int>((b.scales_l[g / 2] >> (4 * (g % 2)) & 15) | (high >> (2 * g) & 3) << 4);
    s[g] = d * static_cast<float>(field - 32);
  }
}
template <class Tag>
QUANTAL_INLINE void block_codes(const iq4_xs&, const iq4_xs::block& b, std::uint8_t* codes, const Tag& tag) noexcept {
  for (int g = 0; g < 8; ++g) simd::lookup_nibbles16(detail::lut4_nl_codes, b.qs + 16 * g, codes + 32 * g, tag);
}

QUANTAL_INLINE void block_codes(const iq2_xxs&, const iq2_xxs::block& b, std::uint8_t* codes,
                                const simd::base&) noexcept {
  for (int g = 0; g < 8; ++g) {
    const std::uint32_t w = b.groups[g].w.get();
    for (int t = 0; t < 4; ++t) {
      const int signs = quantal::detail::signs7(static_cast<int>(w >> (7 * t) & 127));
      const std::uint32_t entry = quantal::detail::grid_iq2_xxs_entries[b.groups[g].grid[t]];
      for (int k = 0; k < 8; ++k) {
        const int magnitude = static_cast<int>(0x2b1908u >> (8 * (entry >> (2 * k) & 3)) & 255);
        const int negative = -(signs >> k & 1);
        codes[32 * g + 8 * t + k] = static_cast<std::uint8_t>(((magnitude ^ negative) - negative) + 43);
      }
    }
  }
}

}  // namespace quantal::kernel
