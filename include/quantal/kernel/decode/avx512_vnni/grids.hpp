// Grids: level numbers of two or three bits in registers that byte and word permutations index, no load per
// point.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/blocks.hpp"
#include "quantal/kernel/decode/grids.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {

namespace avx512_vnni {

/// Bytes of the grid's entries, and the code of each level number, repeated to 64.
template <std::size_t n>
struct grid_tables {
  alignas(64) std::array<std::uint16_t, n> words;
  alignas(64) std::array<std::uint8_t, n> low, high;
  alignas(64) std::array<std::uint8_t, 64> codes;
};
template <class F, std::size_t n>
constexpr grid_tables<n> grid_tables_of(const std::uint16_t (&entries)[n]) {
  constexpr int bits = F::vector == 4 ? 3 : 2, levels = 1 << bits;
  grid_tables<n> t{};
  for (std::size_t i = 0; i < n; ++i) {
    t.words[i] = entries[i];
    t.low[i] = static_cast<std::uint8_t>(entries[i]);
    t.high[i] = static_cast<std::uint8_t>(entries[i] >> 8);
    for (int k = 0; k < F::vector; ++k)
      t.codes[entries[i] >> (bits * k) & (levels - 1)] =
          static_cast<std::uint8_t>(F::grid_value(static_cast<int>(i), k) + code_bias<F>);
  }
  for (std::size_t j = levels; j < 64; ++j) t.codes[j] = t.codes[j - levels];
  return t;
}
template <class F>
inline constexpr auto grid_of = 0;
template <>
inline constexpr auto grid_of<iq2_xxs> = grid_tables_of<iq2_xxs>(quantal::detail::grid_iq2_xxs_entries);
template <>
inline constexpr auto grid_of<iq2_xs> = grid_tables_of<iq2_xs>(quantal::detail::grid_iq2_xs_entries);
template <>
inline constexpr auto grid_of<iq3_xxs> = grid_tables_of<iq3_xxs>(quantal::detail::grid_iq3_xxs_entries);
template <>
inline constexpr auto grid_of<iq3_s> = grid_tables_of<iq3_s>(quantal::detail::grid_iq3_s_entries);

/// Entries of 32 indices, 16 bits each.
template <std::size_t n>
QUANTAL_INLINE __m512i entries_at(const std::array<std::uint16_t, n>& table, __m512i index) noexcept {
  const __m512i part = _mm512_srli_epi16(index, 6);
  __m512i r = index;  // replaced lane by lane
  simd::unroll<static_cast<int>(n / 64)>([&](auto p) QUANTAL_LAMBDA {
    const __mmask32 here = _mm512_cmpeq_epi16_mask(part, _mm512_set1_epi16(static_cast<short>(p)));
    r = _mm512_mask2_permutex2var_epi16(_mm512_load_si512(table.data() + 64 * p), r, here,
                                        _mm512_load_si512(table.data() + 64 * p + 32));
  });
  return r;
}

/// One byte of the entries of 64 indices: low eight bits, and the ninth in `high` where n is 512.
template <std::size_t n>
QUANTAL_INLINE __m512i bytes_at(const std::array<std::uint8_t, n>& table, __m512i index,
                                __mmask64 high) noexcept {
  const __mmask64 middle = _mm512_movepi8_mask(index);
  __m512i r = index;
  simd::unroll<static_cast<int>(n / 128)>([&](auto p) QUANTAL_LAMBDA {
    __mmask64 here = p % 2 ? middle : ~middle;
    if constexpr (n == 512) here = p / 2 ? here & high : here & ~high;
    r = _mm512_mask2_permutex2var_epi8(_mm512_load_si512(table.data() + 128 * p), r, here,
                                       _mm512_load_si512(table.data() + 128 * p + 64));
  });
  return r;
}

/// Bytes of seven bits with the eighth set to their parity.
QUANTAL_INLINE __m512i even_parity(__m512i x) noexcept {
  const __m512i high = _mm512_and_si512(_mm512_srli_epi16(x, 4), _mm512_set1_epi8(15));
  const __m512i odd = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0));
  const __m512i fold = _mm512_and_si512(_mm512_xor_si512(x, high), _mm512_set1_epi8(15));
  return _mm512_or_si512(x, _mm512_shuffle_epi8(odd, fold));
}

/// code, or its opposite where the mask is set; codes carry the bias.
template <class F>
QUANTAL_INLINE __m512i negated(__m512i code, __mmask64 negative) noexcept {
  return _mm512_mask_sub_epi8(code, negative, _mm512_set1_epi8(static_cast<char>(2 * code_bias<F>)), code);
}

/// Signs of register i in order_of_32: eight masks' bytes from positions at(i, g) of `signs`.
template <class Fn>
constexpr std::array<std::uint8_t, 64> sign_order(Fn at) {
  return bytes_of([&](int k) { return k < 32 ? at(k / 8, k % 8) : 0; });
}

/// Sign masks of four registers in order_of_32.
struct sign_masks {
  alignas(32) std::uint64_t mask[4];
  QUANTAL_INLINE sign_masks(__m512i signs, const std::array<std::uint8_t, 64>& order) noexcept {
    const __m512i sorted = _mm512_permutexvar_epi8(load(order), signs);
    _mm256_store_si256(reinterpret_cast<__m256i*>(mask), _mm512_castsi512_si256(sorted));
  }
};
/// Sign words with four indices of seven bits: word g twice in quadword g, to sign masks.
QUANTAL_INLINE sign_masks masks_of_words(__m512i words) noexcept {
  alignas(64) static constexpr auto order = sign_order([](int i, int g) { return 8 * g + i; });
  const __m512i index = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x150e0700150e0700), words);
  return {even_parity(_mm512_and_si512(index, _mm512_set1_epi8(127))), order};
}
/// Scales d * unit * (2 * field + 1) of sign words with their field on top.
template <class F>
QUANTAL_INLINE __m512 scales_of_words(float d, __m512i words) noexcept {
  const __m512 field = _mm512_cvtepi32_ps(_mm512_srli_epi32(words, 28));
  const float unit = d * F::scale_unit;  // exact, and so is twice that: one rounding in all
  return _mm512_fmadd_ps(field, _mm512_set1_ps(2 * unit), _mm512_set1_ps(unit));
}

/// Registers in order_of_32 from 64 grid points of four components, 12 bits each.
template <class F, arch A>
QUANTAL_INLINE void points_of_4(const std::uint8_t* index, std::uint64_t high, const sign_masks& signs,
                                lane_registers<A>& g) noexcept {
  const auto& t = grid_of<F>;
  const __m512i at = _mm512_loadu_si512(index);
  // Points of even runs of 16 weights to one register, of odd ones to the other.
  const auto sorted = [](__m512i x) QUANTAL_LAMBDA {
    return _mm512_shuffle_epi32(x, static_cast<_MM_PERM_ENUM>(0xd8));
  };
  const __m512i a = sorted(bytes_at(t.low, at, high)), b = sorted(bytes_at(t.high, at, high));
  const __m512i points[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
  const __m512i codes = load(t.codes);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    const __m512i place = _mm512_set1_epi64(i % 2 ? 0x3936333029262320 : 0x1916131009060300);
    const __m512i level = _mm512_multishift_epi64_epi8(place, points[i / 2]);
    g.codes[i] = negated<F>(_mm512_permutexvar_epi8(level, codes), signs.mask[i]);
  });
}

/// Level numbers of register i from 32 points of eight components, 16 bits each, as codes.
template <class F, int i, bool sixteen>
QUANTAL_INLINE __m512i codes_of_8(__m512i points) noexcept {
  // Quadword g holds points 4 * g .. 4 * g + 3.
  alignas(64) static constexpr auto place = bytes_of([](int k) {
    return sixteen ? 32 * (k / 4 % 2) + 16 * (i / 2) + 8 * (i % 2) + 2 * (k % 4) : 16 * i + 2 * (k % 8);
  });
  const __m512i level = _mm512_multishift_epi64_epi8(load(place), points);
  return _mm512_permutexvar_epi8(level, load(grid_of<F>.codes));
}

/// Byte c of every lane's two, for all four of the lane's.
template <int c>
alignas(64) inline constexpr auto byte_of_lane = bytes_of([](int k) { return k / 4 * 2 + c; });

/// Registers in order_of_16; sign byte v lies at byte v of `signs`.
template <class F, arch A>
QUANTAL_INLINE void points_of_8(__m512i index, __m512i signs, lane_registers<A>& g) noexcept {
  const __m512i points = entries_at(grid_of<F>.words, index);
  simd::unroll<2>([&](auto c) QUANTAL_LAMBDA {
    const __m512i spread = _mm512_permutexvar_epi8(load(byte_of_lane<c>), signs);
    simd::unroll<2>([&](auto h) QUANTAL_LAMBDA {
      const __m512i bit = _mm512_set1_epi32(static_cast<int>(h ? 0x80402010u : 0x08040201u));
      constexpr int i = 2 * c + h;
      g.codes[i] = negated<F>(codes_of_8<F, i, true>(points), _mm512_test_epi8_mask(spread, bit));
    });
  });
}

/// Eight points of eight bytes each, at index[first + step * q]: where a grid takes more than a few
/// registers, loads do better than permutations.
template <int first, int step, std::size_t n>
QUANTAL_INLINE __m512i eight_points(const std::array<std::uint64_t, n>& points,
                                    const std::uint16_t* index) noexcept {
  const auto at = [&](int q) QUANTAL_LAMBDA {
    return reinterpret_cast<const double*>(points.data() + index[first + step * q]);
  };
  const auto four = [&](int q) QUANTAL_LAMBDA {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadh_pd(_mm_load_sd(at(q)), at(q + 1))),
                                _mm_loadh_pd(_mm_load_sd(at(q + 2)), at(q + 3)), 1);
  };
  return _mm512_castpd_si512(_mm512_insertf64x4(_mm512_castpd256_pd512(four(0)), four(4), 1));
}
/// Points 4 * m + c and 4 * m + 2 + c of eight for every 128 bits m: index[8 * m + 4 * y + 2 * (q % 2) + c].
template <int y, int c, std::size_t n>
QUANTAL_INLINE __m512i paired_points(const std::array<std::uint64_t, n>& points,
                                     const std::uint16_t* index) noexcept {
  const auto at = [&](int m, int q) QUANTAL_LAMBDA {
    return reinterpret_cast<const double*>(points.data() + index[8 * m + 4 * y + 2 * q + c]);
  };
  const auto four = [&](int m) QUANTAL_LAMBDA {
    return _mm256_insertf128_pd(_mm256_castpd128_pd256(_mm_loadh_pd(_mm_load_sd(at(m, 0)), at(m, 1))),
                                _mm_loadh_pd(_mm_load_sd(at(m + 1, 0)), at(m + 1, 1)), 1);
  };
  return _mm512_castpd_si512(_mm512_insertf64x4(_mm512_castpd256_pd512(four(0)), four(2), 1));
}
}  // namespace avx512_vnni

template <class F>
concept grid_with_words = block_format<F> &&(std::same_as<F, iq2_xxs> || std::same_as<F, iq3_xxs>);

template <grid_with_words F, avx512_vnni::arch A>
struct lane_decoder<F, A> : avx512_vnni::slice_decoder<F, A, lane_decoder<F, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_32>;

  QUANTAL_INLINE void decode_blocks(const typename F::block* blocks, float) noexcept {
    const auto& b = *blocks;
    __m512i words;  // sign word g twice in quadword g
    if constexpr (std::same_as<F, iq2_xxs>) {
      const __m512i all = _mm512_loadu_si512(b.groups);
      words = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0xf5));
      const __m512i index = _mm512_shuffle_epi8(
          all,
          _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1)));
      const __m512i points = avx512_vnni::entries_at(avx512_vnni::grid_of<F>.words, index);
      const avx512_vnni::sign_masks signs = avx512_vnni::masks_of_words(words);
      simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
        this->decoded.codes[i] =
            avx512_vnni::negated<F>(avx512_vnni::codes_of_8<F, i, false>(points), signs.mask[i]);
      });
    } else {
      words = _mm512_permutexvar_epi32(
          _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0),
          _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.w))));
      avx512_vnni::points_of_4<F>(b.qs, 0, avx512_vnni::masks_of_words(words), this->decoded);
    }
    this->decoded.scale = avx512_vnni::scales_of_words<F>(avx512_vnni::half_of(b.d), words);
  }
};

template <avx512_vnni::arch A>
struct lane_decoder<iq3_s, A> : avx512_vnni::slice_decoder<iq3_s, A, lane_decoder<iq3_s, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_32>;

  QUANTAL_INLINE void decode_blocks(const iq3_s::block* blocks, float) noexcept {
    alignas(64) static constexpr auto order = avx512_vnni::sign_order([](int i, int g) { return 4 * g + i; });
    const auto& b = *blocks;
    alignas(32) float s[8];
    block_scales(iq3_s{}, b, 1.0f, s, nullptr, simd::on<A>{});
    const avx512_vnni::sign_masks signs(
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.signs))), order);
    avx512_vnni::points_of_4<iq3_s>(b.qs, simd::load_word<std::uint64_t>(b.qh), signs, this->decoded);
    this->decoded.scale = avx512_vnni::each_twice(_mm256_load_ps(s));
  }
};

namespace avx512_vnni {

/// Points of eight bytes with the bias of their codes.
template <class F, std::size_t n>
constexpr std::array<std::uint64_t, n> biased_points(std::array<std::uint64_t, n> t) {
  for (std::uint64_t& v : t) v += simd::repeat8(code_bias<F>);
  return t;
}
template <class F>
inline constexpr auto grid_points = kernel::detail::points_iq1;  // iq1: the shift adds 0 or 2
template <>
inline constexpr auto grid_points<iq2_s> = biased_points<iq2_s>(kernel::detail::points_iq2_s);

/// Registers 2 * c and 2 * c + 1 in order_of_16, from points 2 * l + c.
template <class F, int c>
QUANTAL_INLINE void points_in_16s(const std::uint16_t* index, __m512i (&halves)[2]) noexcept {
  const auto& t = grid_points<F>;
  const __m512 x = _mm512_castsi512_ps(paired_points<0, c>(t, index)),
               y = _mm512_castsi512_ps(paired_points<1, c>(t, index));
  halves[0] = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88));
  halves[1] = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd));
}

/// Registers in order_of_16; sign byte v lies at byte v of `signs`.
template <class F, arch A>
QUANTAL_INLINE void signed_points(__m512i index, __m512i signs, lane_registers<A>& g) noexcept {
  alignas(64) std::uint16_t at[32];
  _mm512_store_si512(at, index);
  simd::unroll<2>([&](auto c) QUANTAL_LAMBDA {
    __m512i halves[2];
    points_in_16s<F, c>(at, halves);
    const __m512i spread = _mm512_permutexvar_epi8(load(byte_of_lane<c>), signs);
    simd::unroll<2>([&](auto h) QUANTAL_LAMBDA {
      const __m512i bit = _mm512_set1_epi32(static_cast<int>(h ? 0x80402010u : 0x08040201u));
      g.codes[2 * c + h] = negated<F>(halves[h], _mm512_test_epi8_mask(spread, bit));
    });
  });
}

/// d * unit * (2 * field + 1), exact but for one rounding.
template <class F>
QUANTAL_INLINE __m512 odd_scale_lanes(float d, __m512i field) noexcept {
  const float unit = d * F::scale_unit;
  return _mm512_fmadd_ps(_mm512_cvtepi32_ps(field), _mm512_set1_ps(2 * unit), _mm512_set1_ps(unit));
}
/// Sixteen nibbles in order, a lane each.
QUANTAL_INLINE __m512i nibble_lanes(const std::uint8_t* bytes) noexcept {
  const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes));
  const __m128i both = _mm_unpacklo_epi8(x, _mm_srli_epi16(x, 4));
  return _mm512_cvtepu8_epi32(_mm_and_si128(both, _mm_set1_epi8(15)));
}

}  // namespace avx512_vnni

template <avx512_vnni::arch A>
struct lane_decoder<iq2_xs, A> : avx512_vnni::slice_decoder<iq2_xs, A, lane_decoder<iq2_xs, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_16>;

  QUANTAL_INLINE void decode_blocks(const iq2_xs::block* blocks, float) noexcept {
    const auto& b = *blocks;
    const __m512i all = _mm512_loadu_si512(b.qs);
    const __m256i signs = _mm512_cvtepi16_epi8(_mm512_srli_epi16(all, 9));
    avx512_vnni::points_of_8<iq2_xs>(_mm512_and_si512(all, _mm512_set1_epi16(511)),
                                     avx512_vnni::even_parity(_mm512_castsi256_si512(signs)), this->decoded);
    this->decoded.scale = avx512_vnni::odd_scale_lanes<iq2_xs>(avx512_vnni::half_of(b.d),
                                                               avx512_vnni::nibble_lanes(b.scales.bytes));
  }
};

template <avx512_vnni::arch A>
struct lane_decoder<iq2_s, A> : avx512_vnni::slice_decoder<iq2_s, A, lane_decoder<iq2_s, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_16>;

  QUANTAL_INLINE void decode_blocks(const iq2_s::block* blocks, float) noexcept {
    // Byte g of qh as the upper byte of words 4 * g .., shifted so that two bits are left above the low byte.
    alignas(64) static constexpr auto group = avx512_vnni::bytes_of([](int k) { return k / 8; });
    const auto& b = *blocks;
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qs)));
    const __m512i spread = _mm512_permutexvar_epi8(
        avx512_vnni::load(group),
        _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.qh))));
    const __m512i high = _mm512_and_si512(_mm512_srlv_epi16(spread, _mm512_set1_epi64(0x0006000400020000)),
                                          _mm512_set1_epi16(3));
    avx512_vnni::signed_points<iq2_s>(
        _mm512_or_si512(low, _mm512_slli_epi16(high, 8)),
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.signs))), this->decoded);
    this->decoded.scale = avx512_vnni::odd_scale_lanes<iq2_s>(avx512_vnni::half_of(b.d),
                                                              avx512_vnni::nibble_lanes(b.scales.bytes));
  }
};

template <avx512_vnni::arch A>
struct lane_decoder<iq1_s, A> : avx512_vnni::slice_decoder<iq1_s, A, lane_decoder<iq1_s, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_32>;

  QUANTAL_INLINE void decode_blocks(const iq1_s::block* blocks, float) noexcept {
    alignas(64) static constexpr auto words = avx512_vnni::bytes_of([](int k) { return k / 8 * 2 + k % 2; });
    const auto& b = *blocks;
    const __m128i fields = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.qh));
    const __m512i spread = _mm512_permutexvar_epi8(avx512_vnni::load(words), _mm512_castsi128_si512(fields));
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qs)));
    const __m512i high =
        _mm512_slli_epi16(_mm512_srlv_epi16(spread, _mm512_set1_epi64(0x0009000600030000)), 8);
    alignas(64) std::uint16_t at[32];
    _mm512_store_si512(at, _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi16(0x700), 0xf8));
    const __m512i shift = _mm512_mask_set1_epi64(_mm512_set1_epi8(2), _mm_movepi16_mask(fields), 0);
    simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
      this->decoded.codes[i] =
          _mm512_add_epi8(avx512_vnni::eight_points<i, 4>(avx512_vnni::grid_points<iq1_s>, at), shift);
    });
    this->decoded.scale = avx512_vnni::odd_scale_lanes<iq1_s>(
        avx512_vnni::half_of(b.d), _mm512_and_si512(_mm512_srli_epi32(spread, 28), _mm512_set1_epi32(7)));
  }
};

template <avx512_vnni::arch A>
struct lane_decoder<iq1_m, A> : avx512_vnni::slice_decoder<iq1_m, A, lane_decoder<iq1_m, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_16>;

  QUANTAL_INLINE void decode_blocks(const iq1_m::block* blocks, float) noexcept {
    const auto& b = *blocks;
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.qh.bytes)));
    const __m512i nibbles =
        _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));  // a word each, below others
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qs)));
    alignas(64) std::uint16_t at[32];
    _mm512_store_si512(
        at, _mm512_ternarylogic_epi32(low, _mm512_slli_epi16(nibbles, 8), _mm512_set1_epi16(0x700), 0xf8));
    simd::unroll<2>([&](auto c) QUANTAL_LAMBDA {
      __m512i halves[2];
      avx512_vnni::points_in_16s<iq1_m, c>(at, halves);
      const __mmask16 up = _mm512_testn_epi32_mask(nibbles, _mm512_set1_epi32(c ? 0x80000 : 8));
      const __m512i shift = _mm512_maskz_set1_epi32(up, 0x02020202);
      simd::unroll<2>(
          [&](auto h) QUANTAL_LAMBDA { this->decoded.codes[2 * c + h] = _mm512_add_epi8(halves[h], shift); });
    });
    this->decoded.scale = scales(b);
  }

 private:
  static QUANTAL_INLINE __m512 scales(const iq1_m::block& b) noexcept {
    alignas(64) static constexpr auto words = avx512_vnni::bytes_of([](int k) { return k / 16 * 2 + k % 2; });
    const auto packed = simd::load_word<std::uint64_t>(b.sc);
    quantal::detail::half_bits d;
    d.raw.set(static_cast<std::uint16_t>((packed >> 12 & 15) | (packed >> 24 & 0xf0) |
                                         (packed >> 36 & 0xf00) | (packed >> 48 & 0xf000)));
    const __m512i spread = _mm512_permutexvar_epi8(
        avx512_vnni::load(words), _mm512_castsi128_si512(_mm_cvtsi64_si128(static_cast<long long>(packed))));
    const __m512i by = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 3, 6, 9));
    const __m512i field = _mm512_and_si512(_mm512_srlv_epi32(spread, by), _mm512_set1_epi32(7));
    return avx512_vnni::odd_scale_lanes<iq1_m>(avx512_vnni::half_of(d), field);
  }
};

}  // namespace quantal::kernel

#endif
