// Codes of the grid formats: an entry of packed magnitudes from a table, signs applied to four bytes at a
// time.
#pragma once

#include <bit>

#include "quantal/cuda/fragments/bits.hpp"
#include "quantal/format/iq1_m.hpp"
#include "quantal/format/iq1_s.hpp"
#include "quantal/format/iq2_s.hpp"
#include "quantal/format/iq2_xs.hpp"
#include "quantal/format/iq2_xxs.hpp"
#include "quantal/format/iq3_s.hpp"
#include "quantal/format/iq3_xxs.hpp"

namespace quantal::cuda {
namespace detail {

/// The components of the entries of a grid as bytes, `Vector` each, four to a word: what decoders look up.
template <int Entries, int Vector>
struct grid_words {
  std::uint32_t words[Entries * Vector / 4];

  /// component(index, k) of every entry.
  template <class Component>
  static constexpr grid_words of(Component component) noexcept {
    grid_words g{};
    for (int i = 0; i < Entries; ++i)
      for (int k = 0; k < Vector; ++k)
        g.words[(i * Vector + k) / 4] |= static_cast<std::uint32_t>(component(i, k)) << (8 * (k % 4));
    return g;
  }
};

QUANTAL_TABLE auto iq2_xxs_words =
    grid_words<256, 8>::of([](int i, int k) { return quantal::detail::grid_iq2_xxs(i, k); });
QUANTAL_TABLE auto iq2_xs_words =
    grid_words<512, 8>::of([](int i, int k) { return quantal::detail::grid_iq2_xs(i, k); });
QUANTAL_TABLE auto iq2_s_words =
    grid_words<1024, 8>::of([](int i, int k) { return quantal::detail::grid_iq2_s(i, k); });
QUANTAL_TABLE auto iq3_xxs_words =
    grid_words<256, 4>::of([](int i, int k) { return quantal::detail::grid_iq3_xxs(i, k); });
QUANTAL_TABLE auto iq3_s_words =
    grid_words<512, 4>::of([](int i, int k) { return quantal::detail::grid_iq3_s(i, k); });
/// 8 * (component + 1): the shift and the bias of 9 are what is left to add.
QUANTAL_TABLE auto iq1_words =
    grid_words<2048, 8>::of([](int i, int k) { return 8 * (quantal::detail::grid_iq1(i, k) + 1); });

/// Bytes centre + m where the byte of `negative` is 0, centre - m where it is 1; m <= centre.
QUANTAL_HD std::uint32_t apply_signs(std::uint32_t m, std::uint32_t negative, std::uint32_t centre) noexcept {
  // No byte of the result leaves its range, so the word may be computed as one number.
  return m + centre * 0x01010101u - 2 * (m & negative * 255u);
}

/// Codes from magnitudes and a sign byte.
template <int Bias>
QUANTAL_HD fragment_codes signed_codes(std::uint32_t low, std::uint32_t high, std::uint32_t signs) noexcept {
  return {apply_signs(low, spread_bits<0>(signs & 15), Bias),
          apply_signs(high, spread_bits<0>(signs >> 4 & 15), Bias)};
}

/// Sign byte of a 7-bit sign index: the eighth sign makes their number even.
QUANTAL_HD std::uint32_t even_signs(std::uint32_t index) noexcept {
#if defined(__CUDA_ARCH__)
  return index | (static_cast<std::uint32_t>(__popc(index)) & 1u) << 7;
#else
  return index | (static_cast<std::uint32_t>(std::popcount(index)) & 1u) << 7;
#endif
}

}  // namespace detail

template <>
struct fragment_reader<iq2_xxs> : code_reader<iq2_xxs> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t entry = 2 * bytes.u8(2 + 8 * C + t);
    const std::uint32_t signs = detail::even_signs(bytes.template u32<6 + 8 * C>() >> 7 * t & 127u);
    return detail::signed_codes<bias>(detail::iq2_xxs_words.words[entry],
                                      detail::iq2_xxs_words.words[entry + 1], signs);
  }
};

template <>
struct fragment_reader<iq2_xs> : code_reader<iq2_xs> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t q = bytes.template u16<2 + 8 * C>(2 * t), entry = 2 * (q & 511u);
    return detail::signed_codes<bias>(detail::iq2_xs_words.words[entry],
                                      detail::iq2_xs_words.words[entry + 1], detail::even_signs(q >> 9));
  }
};

template <>
struct fragment_reader<iq2_s> : code_reader<iq2_s> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t entry = 2 * (bytes.u8(2 + 4 * C + t) | (bytes.u8(66 + C) >> 2 * t & 3u) << 8);
    return detail::signed_codes<bias>(detail::iq2_s_words.words[entry], detail::iq2_s_words.words[entry + 1],
                                      bytes.u8(34 + 4 * C + t));
  }
};

template <>
struct fragment_reader<iq3_xxs> : code_reader<iq3_xxs> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t q = bytes.template u16<2 + 8 * C>(2 * t);
    const std::uint32_t signs = detail::even_signs(bytes.template u32<66 + 4 * C>() >> 7 * t & 127u);
    return detail::signed_codes<bias>(detail::iq3_xxs_words.words[q & 255u],
                                      detail::iq3_xxs_words.words[q >> 8], signs);
  }
};

template <>
struct fragment_reader<iq3_s> : code_reader<iq3_s> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t q = bytes.template u16<2 + 8 * C>(2 * t), h = bytes.u8(66 + C) >> 2 * t;
    return detail::signed_codes<bias>(detail::iq3_s_words.words[(q & 255u) | (h & 1u) << 8],
                                      detail::iq3_s_words.words[q >> 8 | (h & 2u) << 7],
                                      bytes.u8(74 + 4 * C + t));
  }
};

template <>
struct fragment_reader<iq1_s> : code_reader<iq1_s> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t h = bytes.template u16<34 + 2 * C>();
    const std::uint32_t entry = 2 * (bytes.u8(2 + 4 * C + t) | (h >> 3 * t & 7u) << 8);
    const std::uint32_t shift = h & 0x8000u ? 0u : 0x02020202u;
    return {detail::iq1_words.words[entry] + shift, detail::iq1_words.words[entry + 1] + shift};
  }
};

template <>
struct fragment_reader<iq1_m> : code_reader<iq1_m> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t h = bytes.u8(32 + 2 * C + t / 2) >> 4 * (t % 2);
    const std::uint32_t entry = 2 * (bytes.u8(4 * C + t) | (h & 7u) << 8);
    const std::uint32_t shift = h & 8u ? 0u : 0x02020202u;
    return {detail::iq1_words.words[entry] + shift, detail::iq1_words.words[entry + 1] + shift};
  }
};

}  // namespace quantal::cuda
