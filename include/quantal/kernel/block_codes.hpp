// A whole block decoded at once: codes in element order as unsigned bytes, and the scales. What every kernel
// consumes.
//
// The generic forms run on F::code / F::scale. The overloads are the same decode written over the stored
// fields, mostly as straight loops, which compilers turn into vector code for whichever arch the unit is
// built for. They end in an arch tag, so that an arch's own overload wins where there is one.
#pragma once

#include <array>
#include <cstring>

#include "quantal/format.hpp"
#include "quantal/formats.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/lookup16.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {

/// Weights per scale as kernels see it: 16, 32 or the 128 of an activation block.
template <block_format F>
inline constexpr int sub_group = F::layout.group < 32    ? F::layout.group
                                 : F::layout.group < 128 ? 32
                                                         : 128;

/// Kernels see codes as unsigned bytes, code + code_bias. Without a bias nothing has to be corrected
/// afterwards; a bias below 128 keeps the bytes within 7 bits, which int8 instructions without a u8 x s8 form
/// need.
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

namespace detail {

/// Scales and mins of q4_K and q5_K, four fields to a 32-bit operation.
template <class Block, class A>
QUANTAL_INLINE void k4_scales(const Block& b, float* scales, float* offsets,
                              const simd::on<A>& tag) noexcept {
  std::uint32_t p[3];
  std::memcpy(p, b.scales.packed, 12);
  const auto pair = [](std::uint32_t low, std::uint32_t high) {
    return low | static_cast<std::uint64_t>(high) << 32;
  };
  const std::uint64_t sc = pair(p[0] & 0x3f3f3f3fu, (p[2] & 0x0f0f0f0fu) | (p[0] >> 2 & 0x30303030u));
  const std::uint64_t mn = pair(p[1] & 0x3f3f3f3fu, (p[2] >> 4 & 0x0f0f0f0fu) | (p[1] >> 2 & 0x30303030u));
  simd::scale_bytes8<A>(simd::half_on(b.d, tag), sc, scales);
  simd::scale_bytes8<A>(-simd::half_on(b.dmin, tag), mn, offsets);
}

/// Levels of iq4_nl with the bias of kernel codes.
inline constexpr std::uint8_t lut4_nl_codes[16] = {1,   24,  45,  63,  79,  93,  106, 118,
                                                   129, 141, 153, 166, 181, 197, 217, 241};

/// The grid of iq2_xxs as eight bytes a point.
inline constexpr auto grid_iq2_xxs_bytes = [] {
  std::array<std::uint64_t, 256> t{};
  for (int i = 0; i < 256; ++i)
    for (int k = 0; k < 8; ++k)
      t[i] |= static_cast<std::uint64_t>(quantal::detail::grid_iq2_xxs(i, k)) << (8 * k);
  return t;
}();
/// Byte k is 255 where sign k of the 7-bit index is negative.
inline constexpr auto signs7_bytes = [] {
  std::array<std::uint64_t, 128> t{};
  for (int i = 0; i < 128; ++i)
    for (int k = 0; k < 8; ++k)
      if (quantal::detail::signs7(i) >> k & 1) t[i] |= std::uint64_t{255} << (8 * k);
  return t;
}();

/// 32 bytes whose nibbles are 64 codes, with the fifth bits 2c and 2c + 1 of `high`.
template <int c, class A>
QUANTAL_INLINE void nibbles64(const std::uint8_t* qs, const simd::bytes32<A>* high,
                              std::uint8_t* out) noexcept {
  const auto x = simd::bytes32<A>::load(qs);
  auto low = simd::field<0>(x, 15), top = simd::field<4>(x, 15);
  if (high) {
    low = low | simd::field<2 * c - 4>(*high, 16);
    top = top | simd::field<2 * c - 3>(*high, 16);
  }
  simd::store64<A>(out, low, top);
}

}  // namespace detail

// Legacy formats: one half scale per 32 weights.

template <class F>
concept half_scaled = std::same_as<F, q8_0> || std::same_as<F, q4_0> || std::same_as<F, q5_0> ||
    std::same_as<F, q6_0> || std::same_as<F, iq4_nl> || std::same_as<F, q4_1> || std::same_as<F, q5_1>;

template <half_scaled F, class A>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& b, float, float* scales, float* offsets,
                                 const simd::on<A>& tag) noexcept {
  scales[0] = simd::half_on(b.d, tag);
  if constexpr (F::layout.has_offset) offsets[0] = simd::half_on(b.m, tag);
}

template <class A>
QUANTAL_INLINE void block_codes(const q8_0&, const q8_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto x = simd::bytes32<A>::load(reinterpret_cast<const std::uint8_t*>(b.qs));
  (x ^ simd::bytes32<A>::all(128)).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q4_0&, const q4_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::nibbles16<A>(b.qs).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q4_1&, const q4_1::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::nibbles16<A>(b.qs).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_0&, const q5_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  (simd::nibbles16<A>(b.qs) | simd::bits32<A>(b.qh, 16)).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_1&, const q5_1::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  (simd::nibbles16<A>(b.qs) | simd::bits32<A>(b.qh, 16)).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q6_0&, const q6_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  // Weights 8h .. 8h + 7 have their upper bits at 4 * (h % 2) + 2 * (h / 2) of the eight bytes.
  std::uint64_t high;
  std::memcpy(&high, b.qh, 8);
  const auto part = [&](int shift) { return (high >> shift & 0x0303030303030303u) << 4; };
  (simd::nibbles16<A>(b.qs) | simd::bytes32<A>::words(part(0), part(4), part(2), part(6))).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_nl&, const iq4_nl::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::lookup16<A>(detail::lut4_nl_codes, simd::nibbles16<A>(b.qs)).store(codes);
}

// K formats: sub-scales under a half super-scale.

template <class A>
QUANTAL_INLINE void block_scales(const q4_K&, const q4_K::block& b, float, float* s, float* o,
                                 const simd::on<A>& t) noexcept {
  detail::k4_scales(b, s, o, t);
}
template <class A>
QUANTAL_INLINE void block_scales(const q5_K&, const q5_K::block& b, float, float* s, float* o,
                                 const simd::on<A>& t) noexcept {
  detail::k4_scales(b, s, o, t);
}
template <class A>
QUANTAL_INLINE void block_scales(const q6_K&, const q6_K::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t);
  for (int g = 0; g < 16; ++g) s[g] = d * static_cast<float>(b.scales[g]);
}
template <class A>
QUANTAL_INLINE void block_scales(const q2_K&, const q2_K::block& b, float, float* s, float* o,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t), m = -simd::half_on(b.dmin, t);
  std::uint64_t p[2];
  std::memcpy(p, b.scales, 16);
  for (int h = 0; h < 2; ++h) {
    simd::scale_bytes8<A>(d, p[h] & 0x0f0f0f0f0f0f0f0fu, s + 8 * h);
    simd::scale_bytes8<A>(m, p[h] >> 4 & 0x0f0f0f0f0f0f0f0fu, o + 8 * h);
  }
}
template <class A>
QUANTAL_INLINE void block_scales(const q3_K&, const q3_K::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  std::uint64_t low;
  std::uint32_t high;
  std::memcpy(&low, b.scales, 8);
  std::memcpy(&high, b.scales + 8, 4);
  const float d = simd::half_on(b.d, t);
  for (int h = 0; h < 2; ++h) {
    const std::uint64_t top = static_cast<std::uint64_t>(high >> (4 * h) & 0x03030303u) |
                              static_cast<std::uint64_t>(high >> (4 * h + 2) & 0x03030303u) << 32;
    const std::uint64_t fields = (low >> (4 * h) & 0x0f0f0f0f0f0f0f0fu) | top << 4;
    for (int g = 0; g < 8; ++g)
      s[8 * h + g] = d * static_cast<float>(static_cast<int>(fields >> (8 * g) & 255) - 32);
  }
}

template <class A>
QUANTAL_INLINE void block_codes(const q4_K&, const q4_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<4>([&](auto c)
                      QUANTAL_LAMBDA { detail::nibbles64<c, A>(b.qs + 32 * c, nullptr, codes + 64 * c); });
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_K&, const q5_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto high = simd::bytes32<A>::load(b.qh);
  simd::unroll<4>([&](auto c)
                      QUANTAL_LAMBDA { detail::nibbles64<c, A>(b.qs + 32 * c, &high, codes + 64 * c); });
}
template <class A>
QUANTAL_INLINE void block_codes(const q2_K&, const q2_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(b.qs + 32 * n);
    simd::store64<A>(codes + 128 * n, simd::field<0>(x, 3), simd::field<2>(x, 3));
    simd::store64<A>(codes + 128 * n + 64, simd::field<4>(x, 3), simd::field<6>(x, 3));
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q3_K&, const q3_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto high = simd::bytes32<A>::load(b.hmask);
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(b.qs + 32 * n);
    const auto part = [&](auto j) QUANTAL_LAMBDA {
      return simd::field<2 * decltype(j)::value>(x, 3) |
             simd::field<4 * decltype(n)::value + decltype(j)::value - 2>(high, 4);
    };
    using std::integral_constant;
    simd::store64<A>(codes + 128 * n, part(integral_constant<int, 0>{}), part(integral_constant<int, 1>{}));
    simd::store64<A>(codes + 128 * n + 64, part(integral_constant<int, 2>{}),
                     part(integral_constant<int, 3>{}));
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q6_K&, const q6_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(b.ql + 64 * n), y = simd::bytes32<A>::load(b.ql + 64 * n + 32);
    const auto h = simd::bytes32<A>::load(b.qh + 32 * n);
    simd::store64<A>(codes + 128 * n, simd::field<0>(x, 15) | simd::field<-4>(h, 48),
                     simd::field<0>(y, 15) | simd::field<-2>(h, 48));
    simd::store64<A>(codes + 128 * n + 64, simd::field<4>(x, 15) | simd::field<0>(h, 48),
                     simd::field<4>(y, 15) | simd::field<2>(h, 48));
  });
}

// iq formats.

template <class A>
QUANTAL_INLINE void block_scales(const iq4_xs&, const iq4_xs::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const std::uint32_t high = b.scales_h[0] | static_cast<std::uint32_t>(b.scales_h[1]) << 8;
  const float d = simd::half_on(b.d, t);
  for (int g = 0; g < 8; ++g) {
    const int field =
        static_cast<int>((b.scales_l[g / 2] >> (4 * (g % 2)) & 15) | (high >> (2 * g) & 3) << 4);
    s[g] = d * static_cast<float>(field - 32);
  }
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_xs&, const iq4_xs::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    simd::store64<A>(codes + 64 * c,
                     simd::lookup16<A>(detail::lut4_nl_codes, simd::nibbles16<A>(b.qs + 32 * c)),
                     simd::lookup16<A>(detail::lut4_nl_codes, simd::nibbles16<A>(b.qs + 32 * c + 16)));
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq2_xxs&, const iq2_xxs::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t);
  for (int g = 0; g < 8; ++g) s[g] = d * (0.5f + static_cast<float>(b.groups[g].w.get() >> 28)) * 0.25f;
}
template <class A>
QUANTAL_INLINE void block_codes(const iq2_xxs&, const iq2_xxs::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  for (int g = 0; g < 8; ++g) {
    const std::uint32_t w = b.groups[g].w.get();
    std::uint64_t code[4];
    for (int t = 0; t < 4; ++t) {
      // No byte borrows or carries: magnitudes are at most the bias.
      const std::uint64_t magnitude = detail::grid_iq2_xxs_bytes[b.groups[g].grid[t]];
      const std::uint64_t negative = detail::signs7_bytes[w >> (7 * t) & 127];
      code[t] = (magnitude & ~negative) + (43 * 0x0101010101010101ull - (magnitude & negative));
    }
    simd::bytes32<A>::words(code[0], code[1], code[2], code[3]).store(codes + 32 * g);
  }
}

}  // namespace quantal::kernel
