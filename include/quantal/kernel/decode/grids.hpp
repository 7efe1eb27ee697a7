// Decoders of the formats whose weights are points of published grids: iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s,
// iq3_xxs, iq3_s. Points are loaded by general registers (gathers are no faster), signs are applied to 32
// weights at a time.
#pragma once

#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {
namespace detail {

/// Level numbers 0, 1, 2 of eight components, two bits each, to the bytes 8, 25, 43.
QUANTAL_INLINE constexpr std::uint64_t magnitudes2(std::uint32_t entry) noexcept {
  const std::uint64_t level = simd::spread_pairs(entry), one = level & simd::repeat8(1),
                      two = level >> 1 & simd::repeat8(1);
  return simd::repeat8(8) + 17 * one + 35 * two;
}

// Points as bytes. Those of iq1_s and iq1_m are the level numbers 0, 1, 2 times 8.

template <std::size_t n, class Entry, class Fn>
constexpr std::array<std::uint64_t, n> points8(const Entry (&entries)[n], Fn fn) {
  std::array<std::uint64_t, n> t{};
  for (std::size_t i = 0; i < n; ++i) t[i] = fn(entries[i]);
  return t;
}
inline constexpr auto points_iq2_xxs =
    points8(quantal::detail::grid_iq2_xxs_entries, [](std::uint32_t e) { return magnitudes2(e); });
inline constexpr auto points_iq2_xs =
    points8(quantal::detail::grid_iq2_xs_entries, [](std::uint32_t e) { return magnitudes2(e); });
inline constexpr auto points_iq2_s =
    points8(quantal::detail::grid_iq2_s_entries, [](std::uint32_t e) { return magnitudes2(e); });
inline constexpr auto points_iq1 =
    points8(quantal::detail::grid_iq1_entries, [](std::uint32_t e) { return simd::spread_pairs(e) * 8; });

template <class F>
inline constexpr auto points4 = [] {
  std::array<std::uint32_t, F::grid_size> t{};
  for (int i = 0; i < F::grid_size; ++i)
    for (int k = 0; k < 4; ++k) t[i] |= static_cast<std::uint32_t>(F::grid_value(i, k)) << (8 * k);
  return t;
}();

/// scale = d * unit * (2 * field + 1) of eight groups; d * unit is exact.
template <class F, class A>
QUANTAL_INLINE void odd_scales8(float d, std::uint64_t fields, float* out) noexcept {
  simd::scale_bytes8<A>(d * F::scale_unit, 2 * fields + simd::repeat8(1), 0, out);
}

/// Codes of 256 weights from magnitudes(g), 32 bytes for every g, and a sign bit per weight.
template <class F, class A, class Fn>
QUANTAL_INLINE void store_signed(std::uint8_t* codes, const std::uint8_t* signs,
                                 const Fn& magnitudes) noexcept {
  for (int g = 0; g < 8; g += 2)
    simd::store64<A>(codes + 32 * g, simd::signed32<A>(magnitudes(g), signs + 4 * g, code_bias<F>),
                     simd::signed32<A>(magnitudes(g + 1), signs + 4 * g + 4, code_bias<F>));
}

/// Full sign bytes of 32 sign indices of seven bits.
template <class A>
QUANTAL_INLINE void complete_signs(std::uint8_t* signs) noexcept {
  simd::even_parity<A>(simd::bytes32<A>::load(signs)).store(signs);
}
/// Sign bytes of eight words with four indices of seven bits each.
template <class A>
QUANTAL_INLINE void signs_of_words(const std::uint32_t (&words)[8], std::uint8_t* signs) noexcept {
  std::uint32_t spread[8];
  for (int g = 0; g < 8; ++g) {
    const std::uint32_t w = words[g];
    spread[g] = (w & 0x7fu) | (w << 1 & 0x7f00u) | (w << 2 & 0x7f0000u) | (w << 3 & 0x7f000000u);
  }
  __builtin_memcpy(signs, spread, 32);
  complete_signs<A>(signs);
}

/// Top four bits of eight words, a byte each.
QUANTAL_INLINE std::uint64_t top_nibbles(const std::uint32_t (&words)[8]) noexcept {
  std::uint64_t fields = 0;
  for (int g = 0; g < 8; ++g) fields |= static_cast<std::uint64_t>(words[g] >> 28) << (8 * g);
  return fields;
}

QUANTAL_INLINE void words_of(const iq2_xxs::block& b, std::uint32_t (&words)[8]) noexcept {
  for (int g = 0; g < 8; ++g) words[g] = simd::load_word<std::uint32_t>(&b.groups[g].w);
}
QUANTAL_INLINE void words_of(const iq3_xxs::block& b, std::uint32_t (&words)[8]) noexcept {
  __builtin_memcpy(words, b.w, 32);
}

}  // namespace detail

template <class F>
concept word_signed_grid = std::same_as<F, iq2_xxs> || std::same_as<F, iq3_xxs>;

template <word_signed_grid F, class A>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  std::uint32_t words[8];
  detail::words_of(b, words);
  detail::odd_scales8<F, A>(simd::half_on(b.d, t), detail::top_nibbles(words), s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq2_xxs&, const iq2_xxs::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  std::uint32_t words[8];
  alignas(32) std::uint8_t signs[32];
  detail::words_of(b, words);
  detail::signs_of_words<A>(words, signs);
  detail::store_signed<iq2_xxs, A>(codes, signs, [&](int g) QUANTAL_LAMBDA {
    const auto& q = b.groups[g].grid;
    const auto& t = detail::points_iq2_xxs;
    return simd::bytes32<A>::words(t[q[0]], t[q[1]], t[q[2]], t[q[3]]);
  });
}

namespace detail {

/// Four points of four components each, as two words.
template <class F, class Index>
QUANTAL_INLINE std::uint64_t two_points(const Index& index, int v) noexcept {
  return points4<F>[index(v)] | static_cast<std::uint64_t>(points4<F>[index(v + 1)]) << 32;
}
template <class F, class A, class Index>
QUANTAL_INLINE simd::bytes32<A> eight_points(const Index& index, int v) noexcept {
  return simd::bytes32<A>::words(two_points<F>(index, v), two_points<F>(index, v + 2),
                                 two_points<F>(index, v + 4), two_points<F>(index, v + 6));
}

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_codes(const iq3_xxs&, const iq3_xxs::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  std::uint32_t words[8];
  alignas(32) std::uint8_t signs[32];
  detail::words_of(b, words);
  detail::signs_of_words<A>(words, signs);
  const auto index = [&](int v) QUANTAL_LAMBDA { return std::size_t{b.qs[v]}; };
  detail::store_signed<iq3_xxs, A>(
      codes, signs, [&](int g) QUANTAL_LAMBDA { return detail::eight_points<iq3_xxs, A>(index, 8 * g); });
}

template <class A>
QUANTAL_INLINE void block_codes(const iq3_s&, const iq3_s::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  detail::store_signed<iq3_s, A>(codes, b.signs, [&](int g) QUANTAL_LAMBDA {
    const unsigned high = b.qh[g];
    const auto index = [&](int v)
                           QUANTAL_LAMBDA { return b.qs[8 * g + v] | (std::size_t{high} << (8 - v) & 256); };
    return detail::eight_points<iq3_s, A>(index, 0);
  });
}

template <class A>
QUANTAL_INLINE void block_codes(const iq2_xs&, const iq2_xs::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  alignas(32) std::uint8_t signs[32];
  for (int v = 0; v < 32; ++v)
    signs[v] = static_cast<std::uint8_t>(simd::load_word<std::uint16_t>(b.qs + v) >> 9);
  detail::complete_signs<A>(signs);
  const auto point = [&](int v) QUANTAL_LAMBDA {
    return detail::points_iq2_xs[simd::load_word<std::uint16_t>(b.qs + v) & 511u];
  };
  detail::store_signed<iq2_xs, A>(codes, signs, [&](int g) QUANTAL_LAMBDA {
    return simd::bytes32<A>::words(point(4 * g), point(4 * g + 1), point(4 * g + 2), point(4 * g + 3));
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const iq2_s&, const iq2_s::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  detail::store_signed<iq2_s, A>(codes, b.signs, [&](int g) QUANTAL_LAMBDA {
    const std::size_t high = b.qh[g];
    const auto point = [&](int t) QUANTAL_LAMBDA {
      return detail::points_iq2_s[b.qs[4 * g + t] | (high << (8 - 2 * t) & 768)];
    };
    return simd::bytes32<A>::words(point(0), point(1), point(2), point(3));
  });
}

// iq1: code + 9 = 8 * level number + 1 + shift.

template <class A>
QUANTAL_INLINE void block_scales(const iq1_s&, const iq1_s::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  std::uint64_t fields = 0;
  for (int g = 0; g < 8; ++g) fields |= static_cast<std::uint64_t>(b.qh[g].bytes[1] >> 4 & 7) << (8 * g);
  detail::odd_scales8<iq1_s, A>(simd::half_on(b.d, t), fields, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq1_s&, const iq1_s::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto group = [&](int g) QUANTAL_LAMBDA {
    const std::size_t high = simd::load_word<std::uint16_t>(b.qh + g);
    const auto point = [&](int t) QUANTAL_LAMBDA {
      return detail::points_iq1[b.qs[4 * g + t] | (high << 8 >> (3 * t) & 1792)];
    };
    return simd::bytes32<A>::words(point(0), point(1), point(2), point(3)) +
           simd::bytes32<A>::all(high >> 15 ? 0 : 2);
  };
  for (int g = 0; g < 8; g += 2) simd::store64<A>(codes + 32 * g, group(g), group(g + 1));
}

template <class A>
QUANTAL_INLINE void block_scales(const iq1_m&, const iq1_m::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  std::uint64_t words;
  __builtin_memcpy(&words, b.sc, 8);
  quantal::detail::half_bits d;
  d.raw.set(static_cast<std::uint16_t>((words >> 12 & 15) | (words >> 24 & 0xf0) | (words >> 36 & 0xf00) |
                                       (words >> 48 & 0xf000)));
  const auto fields = [](std::uint64_t w) QUANTAL_LAMBDA {
    return (w & 7) | (w << 5 & 0x700) | (w << 10 & 0x70000) | (w << 15 & 0x7000000);
  };
  for (int h = 0; h < 2; ++h)
    detail::odd_scales8<iq1_m, A>(
        simd::half_on(d, t), fields(words >> (32 * h)) | fields(words >> (32 * h + 16)) << 32, s + 8 * h);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq1_m&, const iq1_m::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto group = [&](int g) QUANTAL_LAMBDA {
    const std::size_t high = simd::load_word<std::uint16_t>(b.qh.bytes + 2 * g);
    const auto point = [&](int t) QUANTAL_LAMBDA {
      const std::size_t nibble = high >> (4 * t) & 15;
      return detail::points_iq1[b.qs[4 * g + t] | (nibble & 7) << 8] + simd::repeat8(nibble & 8 ? 0 : 2);
    };
    return simd::bytes32<A>::words(point(0), point(1), point(2), point(3));
  };
  for (int g = 0; g < 8; g += 2) simd::store64<A>(codes + 32 * g, group(g), group(g + 1));
}

}  // namespace quantal::kernel
