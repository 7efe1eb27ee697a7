// Decoders of the formats whose indices select levels of a small table: iq4_xs, iqN_k, iqN_ks, iq4_kss,
// iq2_kl, FP4.
#pragma once

#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/lookup.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {
namespace detail {

template <int g>
using group = std::integral_constant<int, g>;

// Indices of weights 32 * g .. 32 * g + 31 of a block.

template <class A, int g>
QUANTAL_INLINE simd::bytes32<A> pairs32(const std::uint8_t* plane, group<g>) noexcept {
  return simd::field<2 * (g % 4)>(simd::bytes32<A>::load(plane + 32 * (g / 4)), 3);
}
template <class A, int g>
QUANTAL_INLINE simd::bytes32<A> nibbles32(const quantal::detail::nibble_runs<64>& q, group<g>) noexcept {
  return simd::field<4 * (g % 2)>(simd::bytes32<A>::load(q.runs[g / 2].bytes), 15);
}
template <class A, int g>
QUANTAL_INLINE simd::bytes32<A> nibbles32(const quantal::detail::nibble_runs<32>& q, group<g>) noexcept {
  return simd::nibbles16<A>(q.runs[g].bytes);
}
/// Bit g of every byte as bit `at`.
template <class A, int at, int g>
QUANTAL_INLINE simd::bytes32<A> bit32(const std::uint8_t* plane, group<g>) noexcept {
  return simd::field<g - at>(simd::bytes32<A>::load(plane), 1 << at);
}

/// Codes of a block of 256 from codes32(group<g>) for every g.
template <class A, class Fn>
QUANTAL_INLINE void store_groups(std::uint8_t* codes, const Fn& codes32) noexcept {
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    simd::store64<A>(codes + 64 * c, codes32(group<2 * c>{}), codes32(group<2 * c + 1>{}));
  });
}

/// `step` for every group whose bit of `tables` is set: what the second table adds.
struct table_steps {
  std::uint8_t add[16];
  QUANTAL_INLINE table_steps(std::uint32_t tables, std::uint8_t step) noexcept {
    const std::uint64_t v[2] = {simd::spread_bits(tables) * step, simd::spread_bits(tables >> 8) * step};
    __builtin_memcpy(add, v, 16);
  }
  /// Of the two 16-groups of weights 32 * g ..
  template <class A>
  QUANTAL_INLINE simd::bytes32<A> halves(int g) const noexcept {
    return simd::bytes32<A>::halves(add[2 * g], add[2 * g + 1]);
  }
};

/// (scale - bias) of 16 groups, low nibbles in order and upper two bits packed in four bytes (scales6x16).
template <class A>
QUANTAL_INLINE void scales6x16(float d, const quantal::detail::scales6x16& s, float* out) noexcept {
  const auto low = simd::load_word<std::uint64_t>(s.low.bytes);
  const auto high = simd::load_word<std::uint32_t>(s.high);
  for (int h = 0; h < 2; ++h)
    simd::scale_bytes8<A>(d,
                          simd::spread_nibbles(static_cast<std::uint32_t>(low >> (32 * h))) |
                              simd::spread_pairs(high >> (16 * h)) << 4,
                          32, out + 8 * h);
}

/// Scale bytes of iq4_ks and its kin: odd values 2 * (byte >> 1) - 127; the lowest bits select tables.
template <class A>
QUANTAL_INLINE void odd_scales(float row_scale, std::uint64_t bytes, float* out) noexcept {
  simd::scale_bytes8<A>(row_scale, bytes & simd::repeat8(0xfe), 127, out);
}

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_scales(const iq4_xs&, const iq4_xs::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const std::uint64_t fields = simd::spread_nibbles(simd::load_word<std::uint32_t>(b.scales_l)) |
                               simd::spread_pairs(simd::load_word<std::uint16_t>(b.scales_h)) << 4;
  simd::scale_bytes8<A>(simd::half_on(b.d, t), fields, 32, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_xs&, const iq4_xs::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    return simd::lookup16<A>(level_codes<iq4_nl, 16>.data(), simd::nibbles16<A>(b.qs + 16 * g));
  });
}

// iqN_k: two tables, chosen per 16 weights.

template <class A>
QUANTAL_INLINE void block_scales(const iq2_k&, const iq2_k::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t);
  for (int h = 0; h < 2; ++h)
    simd::scale_bytes8<A>(d, simd::spread_nibbles(simd::load_word<std::uint32_t>(b.scales.bytes + 4 * h)), 8,
                          s + 8 * h);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq2_k&, const iq2_k::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get(), 5);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    return simd::lookup16<A>(level_codes<iq2_k, 4>.data(), detail::pairs32<A>(b.qs.bytes, g)) +
           steps.halves<A>(g);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq3_k&, const iq3_k::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t);
  for (int h = 0; h < 2; ++h) {
    const std::uint64_t size =
        2 * simd::spread_nibbles(simd::load_word<std::uint32_t>(b.scales_l.bytes + 4 * h)) + simd::repeat8(1);
    const std::uint64_t negative = simd::spread_bits(b.scales_h.get() >> (8 * h)) * 255;
    simd::scale_bytes8<A>(d, (size & ~negative) + (simd::repeat8(32) - (size & negative)), 32, s + 8 * h);
  }
}
template <class A>
QUANTAL_INLINE void block_codes(const iq3_k&, const iq3_k::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get(), 4);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const auto index = detail::pairs32<A>(b.qs.bytes, g) | detail::bit32<A, 2>(b.qh.bytes, g);
    return simd::lookup16<A>(level_codes<iq3_k, 8>.data(), index) + steps.halves<A>(g);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq4_k&, const iq4_k::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  detail::scales6x16<A>(simd::half_on(b.d, t), b.scales, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_k&, const iq4_k::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get(), 4);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    return simd::lookup16<A>(level_codes<iq4_k, 16>.data(), detail::nibbles32<A>(b.qs, g)) +
           steps.halves<A>(g);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq5_k&, const iq5_k::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  detail::scales6x16<A>(simd::half_on(b.d, t), b.scales, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq5_k&, const iq5_k::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get(), 2);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const auto index = detail::nibbles32<A>(b.qs, g) | detail::bit32<A, 4>(b.qh.bytes, g);
    return simd::lookup32<A>(level_codes<iq5_k, 32>.data(), index) + steps.halves<A>(g);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq6_k&, const iq6_k::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  simd::scale_signed16<A>(simd::half_on(b.d, t), b.scales, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq6_k&, const iq6_k::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get(), 1);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const auto high = simd::field<2 * (g % 4) - 4>(simd::bytes32<A>::load(b.qh.bytes + 32 * (g / 4)), 48);
    return simd::lookup64<A>(level_codes<iq6_k, 64>.data(), detail::nibbles32<A>(b.qs, g) | high) +
           steps.halves<A>(g);
  });
}

// Row-scaled kin: tables chosen per 32 weights.

template <class A>
QUANTAL_INLINE void block_scales(const iq2_ks&, const iq2_ks::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  const std::uint64_t fields = simd::spread_nibbles(simd::load_word<std::uint32_t>(b.scales.bytes)) |
                               simd::spread_bits(b.extra.get() >> 8) << 4;
  simd::scale_bytes8<A>(row_scale, fields, 16, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq2_ks&, const iq2_ks::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get(), 5);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    return simd::lookup16<A>(level_codes<iq2_ks, 4>.data(), detail::pairs32<A>(b.qs.bytes, g)) +
           simd::bytes32<A>::all(steps.add[g]);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq3_ks&, const iq3_ks::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  const std::uint64_t fields = simd::split_nibbles(simd::load_word<std::uint32_t>(b.scales.bytes)) |
                               simd::spread_bits(b.extra.get()) << 4;
  simd::scale_bytes8<A>(row_scale, fields, 16, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq3_ks&, const iq3_ks::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const detail::table_steps steps(b.extra.get() >> 8, 4);
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const auto index = detail::pairs32<A>(b.qs.bytes, g) | detail::bit32<A, 2>(b.qh.bytes, g);
    return simd::lookup16<A>(level_codes<iq3_ks, 8>.data(), index) + simd::bytes32<A>::all(steps.add[g]);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq4_ks&, const iq4_ks::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  detail::odd_scales<A>(row_scale, simd::load_word<std::uint64_t>(b.scales), s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_ks&, const iq4_ks::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const std::uint8_t step = b.scales[g].byte << 2 & 4;
    return simd::lookup16<A>(level_codes<iq4_ks, 16>.data(), detail::nibbles32<A>(b.qs, g)) +
           simd::bytes32<A>::all(step);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq5_ks&, const iq5_ks::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  detail::odd_scales<A>(row_scale, simd::load_word<std::uint64_t>(b.scales), s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq5_ks&, const iq5_ks::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const std::uint8_t step = b.scales[g].byte << 1 & 2;
    const auto index = detail::nibbles32<A>(b.qs, g) | detail::bit32<A, 4>(b.qh.bytes, g);
    return simd::lookup32<A>(level_codes<iq5_ks, 32>.data(), index) + simd::bytes32<A>::all(step);
  });
}

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
  detail::odd_scales<A>(row_scale, bytes, s);
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
  detail::store_groups<A>(codes, [&](auto g) QUANTAL_LAMBDA {
    const std::uint8_t step = b.words[8 * g].bytes[0] << 2 & 4;
    return simd::lookup16<A>(level_codes<iq4_kss, 16>.data(), simd::nibbles16<A>(nibbles + 16 * g)) +
           simd::bytes32<A>::all(step);
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
QUANTAL_INLINE void block_scales(const iq2_kl&, const iq2_kl::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  const std::uint64_t fields = simd::split_nibbles(simd::load_word<std::uint32_t>(b.scales_l.bytes)) |
                               simd::spread_pairs(b.scales_h.get()) << 4;
  simd::scale_bytes8<A>(row_scale, fields, 32, s);
}
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

// FP4.

template <class A>
QUANTAL_INLINE void block_codes(const mxfp4&, const mxfp4::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::lookup16<A>(level_codes<mxfp4, 16>.data(), simd::nibbles16<A>(b.qs.bytes)).store(codes);
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
template <class A>
QUANTAL_INLINE void block_codes(const nvfp4&, const nvfp4::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  constexpr std::uint64_t low = simd::repeat8(15);
  const auto half = [&](int h) QUANTAL_LAMBDA {
    const auto x = simd::load_word<std::uint64_t>(b.qs[2 * h].bytes);
    const auto y = simd::load_word<std::uint64_t>(b.qs[2 * h + 1].bytes);
    const auto index = simd::bytes32<A>::words(x & low, x >> 4 & low, y & low, y >> 4 & low);
    return simd::lookup16<A>(level_codes<nvfp4, 16>.data(), index);
  };
  simd::store64<A>(codes, half(0), half(1));
}

}  // namespace quantal::kernel
