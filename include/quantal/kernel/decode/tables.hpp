// Decoders of the formats whose indices select levels, where planes do not tell how: iq4_kss, whose words differ from their
// neighbours, iq2_kl, whose indices select pairs, and the scales of nvfp4.
#pragma once

#include "quantal/kernel/decode/planes.hpp"
#include "quantal/kernel/decode/scales.hpp"

namespace quantal::kernel {

namespace detail {

/// Scale byte of group g of iq4_kss: the lowest bits of its eight words.
QUANTAL_INLINE std::uint64_t kss_scale(const iq4_kss::block& b, int g) noexcept {
  // Bit 16 * i times 2^(48 - 15 * i) is bit 48 + i; no other pair of bits lands in 48 .. 51.
  constexpr std::uint64_t gather = 1ull << 48 | 1ull << 33 | 1ull << 18 | 1ull << 3,
                          lowest = 0x0001000100010001ull;
  const auto* words = reinterpret_cast<const std::uint8_t*>(b.words) + 16 * g;
  const std::uint64_t low = (simd::load_word<std::uint64_t>(words) & lowest) * gather >> 48 & 15;
  const std::uint64_t high = (simd::load_word<std::uint64_t>(words + 8) & lowest) * gather >> 48 & 15;
  return low | high << 4;
}

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_scales(const iq4_kss&, const iq4_kss::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  std::uint64_t bytes = 0;
  for (int g = 0; g < 8; ++g) bytes |= detail::kss_scale(b, g) << (8 * g);
  // Odd values 2 * (byte >> 1) - 127; the lowest bits select tables.
  simd::scale_bytes8<A>(row_scale, bytes & simd::repeat8(0xfe), 127, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_kss&, const iq4_kss::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  alignas(64) std::uint16_t words[64];
  for (int m = 0; m < 64; ++m) {
    const unsigned w = simd::load_word<std::uint16_t>(b.words + m) & 0xfffeu;
    words[m] = static_cast<std::uint16_t>(w ^ w >> 1);
  }
  const auto* nibbles = reinterpret_cast<const std::uint8_t*>(words);
  const auto group = [&](auto g) QUANTAL_LAMBDA {
    const std::uint8_t step = b.words[8 * g].bytes[0] << 2 & 4;
    return simd::lookup16<A>(level_codes<iq4_kss, 16>.data(), simd::nibbles16<A>(nibbles + 16 * g)) +
           simd::bytes32<A>::all(step);
  };
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    simd::store64<A>(codes + 64 * c, group(std::integral_constant<int, 2 * c>{}),
                     group(std::integral_constant<int, 2 * c + 1>{}));
  });
}

namespace detail {

/// Codes of the first or second weight of the pairs of iq2_kl.
template <int k>
inline constexpr auto pair_codes = [] {
  std::array<std::uint8_t, 32> t{};
  for (int i = 0; i < 32; ++i)
    t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(iq2_kl::grid_value(i, k) + code_bias<iq2_kl>);
  return t;
}();

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_codes(const iq2_kl&, const iq2_kl::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto high = simd::bytes32<A>::load_twice(b.qh);
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    // Sixteen pairs of group 2c, then sixteen of group 2c + 1.
    auto index = simd::nibbles16<A>(b.qs[c].bytes);
    if constexpr (2 * c >= 4)
      index = index | simd::fields16<2 * c - 4, 2 * c - 3>(high, 16);
    else
      index = index | simd::field<-4>(simd::fields16<2 * c, 2 * c + 1>(high, 1), 16);
    simd::store_interleaved<A>(codes + 64 * c, simd::lookup32<A>(detail::pair_codes<0>.data(), index),
                               simd::lookup32<A>(detail::pair_codes<1>.data(), index));
  });
}

namespace detail {

inline constexpr auto nvfp4_scales = [] {
  std::array<float, 256> t{};
  for (int i = 0; i < 256; ++i) t[static_cast<std::size_t>(i)] = nvfp4::scale_value(i);
  return t;
}();

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_scales(const nvfp4&, const nvfp4::block& b, float, float* s, float*,
                                 const simd::on<A>&) noexcept {
  for (int g = 0; g < 4; ++g) s[g] = detail::nvfp4_scales[b.sc[g]];
}

}  // namespace quantal::kernel
