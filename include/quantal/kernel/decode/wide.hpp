// Formats decoded in 512-bit registers, straight into lanes. A grid is 2-bit or 3-bit level numbers in
// registers that byte and word permutations index (no load per point), a trellis value is one product and one
// dot product with ones per 32-bit lane, nibbles are one permutation per register. Bound by the shuffle
// units: 17 to 75 cycles per 256 weights on Zen 4.
#pragma once

#include <cstddef>

#include "quantal/kernel/decode/grids.hpp"
#include "quantal/kernel/lanes.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {
namespace detail {

using wide_group = lane_group<simd::avx512_vnni, 4>;

/// A constant of 64 bytes from byte(i).
template <class Fn>
constexpr std::array<std::uint8_t, 64> bytes_of(Fn byte) {
  std::array<std::uint8_t, 64> t{};
  for (int i = 0; i < 64; ++i) t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(byte(i));
  return t;
}

/// Lane l: the 16 weights from 16 * l on.
constexpr lane_map sixteens() noexcept {
  lane_map m{4, {}};
  for (int t = 0; t < 64; ++t)
    m.word[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(t % 16 * 4 + t / 16);
  return m;
}
/// Lanes 2 * g and 2 * g + 1: the 32 weights from 32 * g on, eight to a register.
constexpr lane_map thirty_twos() noexcept {
  lane_map m{4, {}};
  for (int t = 0; t < 64; ++t)
    m.word[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(t % 16 / 2 * 8 + t / 16 * 2 + t % 2);
  return m;
}

/// v[l / 2] in lane l, of eight values.
QUANTAL_INLINE __m512 each_twice(__m256 v) noexcept {
  return _mm512_permutexvar_ps(_mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0),
                               _mm512_castps256_ps512(v));
}
QUANTAL_INLINE __m512i wide_bytes(const std::array<std::uint8_t, 64>& t) noexcept {
  return _mm512_loadu_si512(t.data());
}

// Trellises.

/// Outputs first .. first + 3 of the sequences of 16 seeds, a byte each: start + 126 + value.
template <int first>
QUANTAL_INLINE __m512i four_outputs(__m512i seeds, int start) noexcept {
  // Every sum arrives in the lowest byte, and moves up as the next one comes: from `start` there are no
  // carries.
  __m512i sum = _mm512_set1_epi8(static_cast<char>(start));
  simd::unroll<4>([&](auto j) QUANTAL_LAMBDA {
    constexpr std::uint32_t power = quantal::detail::trellis_power(first + 3 - j);
    const __m512i x = _mm512_and_si512(_mm512_mullo_epi32(seeds, _mm512_set1_epi32(static_cast<int>(power))),
                                       _mm512_set1_epi32(0x3f3f3f3f));
    if constexpr (j > 0) sum = _mm512_rol_epi32(sum, 8);
    sum = _mm512_dpbusd_epi32(sum, x, _mm512_set1_epi8(1));
  });
  return sum;
}

/// Codes of 32 seeds of eight outputs, given as 16-bit numbers in order.
QUANTAL_INLINE void trellis_codes(__m512i seeds, int start, __m512i (&codes)[4]) noexcept {
  const __m512i base = _mm512_set1_epi32(4096);
  const __m512i even = _mm512_add_epi32(_mm512_and_si512(seeds, _mm512_set1_epi32(0xffff)), base);
  const __m512i odd = _mm512_add_epi32(_mm512_srli_epi32(seeds, 16), base);
  codes[0] = four_outputs<0>(even, start);
  codes[1] = four_outputs<4>(even, start);
  codes[2] = four_outputs<0>(odd, start);
  codes[3] = four_outputs<4>(odd, start);
}

/// 13-bit seeds of iq1_kt.
QUANTAL_INLINE __m512i seeds_of(const iq1_kt::block& b) noexcept {
  alignas(64) static constexpr auto group = bytes_of([](int i) { return i / 8; });
  const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.ql));
  const __m256i high = simd::nibbles16<simd::avx512_vnni>(b.qh.bytes).part[0];
  const __m512i spread = _mm512_permutexvar_epi8(
      wide_bytes(group), _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.sh))));
  const __mmask32 top = _mm512_test_epi16_mask(spread, _mm512_set1_epi64(0x0080004000200010));
  const __m512i seeds =
      _mm512_or_si512(_mm512_cvtepu8_epi16(low), _mm512_slli_epi16(_mm512_cvtepu8_epi16(high), 8));
  return _mm512_mask_add_epi16(seeds, top, seeds, _mm512_set1_epi16(4096));
}
QUANTAL_INLINE __m512i seeds_of(const iq2_kt::block& b) noexcept { return _mm512_loadu_si512(b.ql); }
QUANTAL_INLINE __m512i seeds_of(const iq3_kt::block& b) noexcept { return _mm512_loadu_si512(b.ql); }

/// |output| with the signs of iq3_kt, + 128.
QUANTAL_INLINE void sign_outputs(const iq3_kt::block& b, __m512i (&codes)[4]) noexcept {
  const __m512i signs =
      _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qh.bytes)));
  // Lane l of register r: bytes 16 * (l % 2) + 4 * r .. of the bit plane, bit l / 2.
  const __m512i bit = _mm512_set_epi64(static_cast<long long>(0x8080808080808080ull), 0x4040404040404040,
                                       0x2020202020202020, 0x1010101010101010, 0x0808080808080808,
                                       0x0404040404040404, 0x0202020202020202, 0x0101010101010101);
  simd::unroll<4>([&](auto r) QUANTAL_LAMBDA {
    const __m512i spread = _mm512_permutexvar_epi32(_mm512_set1_epi64(r + ((r + 4ll) << 32)), signs);
    const __m512i size = _mm512_abs_epi8(_mm512_sub_epi8(codes[r], _mm512_set1_epi8(126)));
    const __m512i zero = _mm512_set1_epi8(static_cast<char>(128));
    codes[r] =
        _mm512_mask_sub_epi8(_mm512_add_epi8(zero, size), _mm512_test_epi8_mask(spread, bit), zero, size);
  });
}

// Grids.

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

/// Signs of register i in the order thirty_twos: eight masks' bytes from positions at(i, g) of `signs`.
template <class Fn>
constexpr std::array<std::uint8_t, 64> sign_order(Fn at) {
  return bytes_of([&](int k) { return k < 32 ? at(k / 8, k % 8) : 0; });
}

/// Sign masks of four registers in the order thirty_twos.
struct sign_masks {
  alignas(32) std::uint64_t mask[4];
  QUANTAL_INLINE sign_masks(__m512i signs, const std::array<std::uint8_t, 64>& order) noexcept {
    const __m512i sorted = _mm512_permutexvar_epi8(wide_bytes(order), signs);
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

/// Registers in the order thirty_twos from 64 grid points of four components, 12 bits each.
template <class F>
QUANTAL_INLINE void quads(const std::uint8_t* index, std::uint64_t high, const sign_masks& signs,
                          wide_group& g) noexcept {
  const auto& t = grid_of<F>;
  const __m512i at = _mm512_loadu_si512(index);
  // Points of even sixteens to one register, of odd ones to the other.
  const auto sorted = [](__m512i x) QUANTAL_LAMBDA {
    return _mm512_shuffle_epi32(x, static_cast<_MM_PERM_ENUM>(0xd8));
  };
  const __m512i a = sorted(bytes_at(t.low, at, high)), b = sorted(bytes_at(t.high, at, high));
  const __m512i points[2] = {_mm512_unpacklo_epi8(a, b), _mm512_unpackhi_epi8(a, b)};
  const __m512i codes = wide_bytes(t.codes);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    const __m512i place = _mm512_set1_epi64(i % 2 ? 0x3936333029262320 : 0x1916131009060300);
    const __m512i level = _mm512_multishift_epi64_epi8(place, points[i / 2]);
    g.codes[i] = negated<F>(_mm512_permutexvar_epi8(level, codes), signs.mask[i]);
  });
}

/// Level numbers of register i from 32 points of eight components, 16 bits each, as codes.
template <class F, int i, bool sixteen>
QUANTAL_INLINE __m512i octet_codes(__m512i points) noexcept {
  // Quadword g holds points 4 * g .. 4 * g + 3.
  alignas(64) static constexpr auto place = bytes_of([](int k) {
    return sixteen ? 32 * (k / 4 % 2) + 16 * (i / 2) + 8 * (i % 2) + 2 * (k % 4) : 16 * i + 2 * (k % 8);
  });
  const __m512i level = _mm512_multishift_epi64_epi8(wide_bytes(place), points);
  return _mm512_permutexvar_epi8(level, wide_bytes(grid_of<F>.codes));
}

/// Byte c of every lane's two, for all four of the lane's.
template <int c>
alignas(64) inline constexpr auto byte_of_lane = bytes_of([](int k) { return k / 4 * 2 + c; });

/// Registers in the order sixteens; sign byte v lies at byte v of `signs`.
template <class F>
QUANTAL_INLINE void octets(__m512i index, __m512i signs, wide_group& g) noexcept {
  const __m512i points = entries_at(grid_of<F>.words, index);
  simd::unroll<2>([&](auto c) QUANTAL_LAMBDA {
    const __m512i spread = _mm512_permutexvar_epi8(wide_bytes(byte_of_lane<c>), signs);
    simd::unroll<2>([&](auto h) QUANTAL_LAMBDA {
      const __m512i bit = _mm512_set1_epi32(static_cast<int>(h ? 0x80402010u : 0x08040201u));
      constexpr int i = 2 * c + h;
      g.codes[i] = negated<F>(octet_codes<F, i, true>(points), _mm512_test_epi8_mask(spread, bit));
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
/// What the formats of this file have in common: blocks of 256 and one integer sum.
template <class F>
struct wide_decoder {
  static constexpr int depth = 4, sums = 1;
  wide_group decoded;

  static QUANTAL_INLINE const typename F::block& block(const std::byte* row, std::int64_t first) noexcept {
    return row_blocks<F>(row)[first / slice_weights];
  }
  QUANTAL_INLINE void decode_tail(const std::byte*, float, std::int64_t, int) noexcept {}
  template <int>
  QUANTAL_INLINE const wide_group& group() const noexcept {
    return decoded;
  }
};

/// Slices of n short blocks; `D::decode_blocks` decodes n of them.
template <class F, class D>
struct short_blocks {
  static constexpr int depth = 4, sums = 1, n = slice_weights / F::layout.elements;
  wide_group decoded;

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    static_cast<D*>(this)->decode_blocks(row_blocks<F>(row) + first / F::layout.elements, row_scale);
  }
  QUANTAL_INLINE void decode_tail(const std::byte* row, float row_scale, std::int64_t first,
                                  int count) noexcept {
    typename F::block blocks[n] = {};
    std::memcpy(blocks, row_blocks<F>(row) + first / F::layout.elements,
                static_cast<std::size_t>(count / F::layout.elements * F::layout.bytes));
    static_cast<D*>(this)->decode_blocks(blocks, row_scale);
  }
  template <int>
  QUANTAL_INLINE const wide_group& group() const noexcept {
    return decoded;
  }

 protected:
  /// The halves at the start of the blocks, each for the lanes of its block.
  static QUANTAL_INLINE __m512 first_halves(__m512i low, __m512i high) noexcept {
    alignas(64) static constexpr auto index =
        bytes_of([](int k) { return k % 32 / (32 / n) * F::layout.bytes + k % 2; });
    return _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutex2var_epi8(low, wide_bytes(index), high)));
  }
};

}  // namespace detail

template <class F>
concept trellis_of_eight = std::same_as<F, iq1_kt> || std::same_as<F, iq2_kt> || std::same_as<F, iq3_kt>;

template <trellis_of_eight F>
struct lane_decoder<F, simd::avx512_vnni> : detail::wide_decoder<F> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    constexpr bool magnitudes = std::same_as<F, iq3_kt>;
    const auto& b = this->block(row, first);
    alignas(32) float s[8];
    block_scales(F{}, b, row_scale, s, nullptr, simd::on<simd::avx512_vnni>{});
    __m512i codes[4];
    detail::trellis_codes(detail::seeds_of(b), magnitudes ? 0 : 2, codes);
    if constexpr (magnitudes) detail::sign_outputs(b, codes);
    simd::unroll<4>([&](auto i) QUANTAL_LAMBDA { this->decoded.codes[i] = codes[i]; });
    this->decoded.scale = detail::each_twice(_mm256_load_ps(s));
  }
};

template <class F>
concept grid_with_words = std::same_as<F, iq2_xxs> || std::same_as<F, iq3_xxs>;

template <grid_with_words F>
struct lane_decoder<F, simd::avx512_vnni> : detail::wide_decoder<F> {
  static constexpr lane_map map = detail::thirty_twos();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = this->block(row, first);
    __m512i words;  // sign word g twice in quadword g
    if constexpr (std::same_as<F, iq2_xxs>) {
      const __m512i all = _mm512_loadu_si512(b.groups);
      words = _mm512_shuffle_epi32(all, static_cast<_MM_PERM_ENUM>(0xf5));
      const __m512i index = _mm512_shuffle_epi8(
          all,
          _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 1, -1, 2, -1, 3, -1, 8, -1, 9, -1, 10, -1, 11, -1)));
      const __m512i points = detail::entries_at(detail::grid_of<F>.words, index);
      const detail::sign_masks signs = detail::masks_of_words(words);
      simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
        this->decoded.codes[i] = detail::negated<F>(detail::octet_codes<F, i, false>(points), signs.mask[i]);
      });
    } else {
      words = _mm512_permutexvar_epi32(
          _mm512_set_epi32(7, 7, 6, 6, 5, 5, 4, 4, 3, 3, 2, 2, 1, 1, 0, 0),
          _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.w))));
      detail::quads<F>(b.qs, 0, detail::masks_of_words(words), this->decoded);
    }
    this->decoded.scale =
        detail::scales_of_words<F>(simd::half_on(b.d, simd::on<simd::avx512_vnni>{}), words);
  }
};

template <>
struct lane_decoder<iq3_s, simd::avx512_vnni> : detail::wide_decoder<iq3_s> {
  static constexpr lane_map map = detail::thirty_twos();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    alignas(64) static constexpr auto order = detail::sign_order([](int i, int g) { return 4 * g + i; });
    const auto& b = block(row, first);
    alignas(32) float s[8];
    block_scales(iq3_s{}, b, 1.0f, s, nullptr, simd::on<simd::avx512_vnni>{});
    const detail::sign_masks signs(
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.signs))), order);
    detail::quads<iq3_s>(b.qs, simd::load_word<std::uint64_t>(b.qh), signs, decoded);
    decoded.scale = detail::each_twice(_mm256_load_ps(s));
  }
};

namespace detail {

/// Points of eight bytes with the bias of their codes.
template <class F, std::size_t n>
constexpr std::array<std::uint64_t, n> biased_points(std::array<std::uint64_t, n> t) {
  for (std::uint64_t& v : t) v += simd::repeat8(code_bias<F>);
  return t;
}
template <class F>
inline constexpr auto grid_points = points_iq1;  // iq1: the shift adds 0 or 2
template <>
inline constexpr auto grid_points<iq2_s> = biased_points<iq2_s>(points_iq2_s);

/// Registers 2 * c and 2 * c + 1 in the order sixteens, from points 2 * l + c.
template <class F, int c>
QUANTAL_INLINE void points_of_sixteens(const std::uint16_t* index, __m512i (&halves)[2]) noexcept {
  const auto& t = grid_points<F>;
  const __m512 x = _mm512_castsi512_ps(paired_points<0, c>(t, index)),
               y = _mm512_castsi512_ps(paired_points<1, c>(t, index));
  halves[0] = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0x88));
  halves[1] = _mm512_castps_si512(_mm512_shuffle_ps(x, y, 0xdd));
}

/// Registers in the order sixteens; sign byte v lies at byte v of `signs`.
template <class F>
QUANTAL_INLINE void signed_points(__m512i index, __m512i signs, wide_group& g) noexcept {
  alignas(64) std::uint16_t at[32];
  _mm512_store_si512(at, index);
  simd::unroll<2>([&](auto c) QUANTAL_LAMBDA {
    __m512i halves[2];
    points_of_sixteens<F, c>(at, halves);
    const __m512i spread = _mm512_permutexvar_epi8(wide_bytes(byte_of_lane<c>), signs);
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

}  // namespace detail

template <>
struct lane_decoder<iq2_xs, simd::avx512_vnni> : detail::wide_decoder<iq2_xs> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    const __m512i all = _mm512_loadu_si512(b.qs);
    const __m256i signs = _mm512_cvtepi16_epi8(_mm512_srli_epi16(all, 9));
    detail::octets<iq2_xs>(_mm512_and_si512(all, _mm512_set1_epi16(511)),
                           detail::even_parity(_mm512_castsi256_si512(signs)), decoded);
    decoded.scale = detail::odd_scale_lanes<iq2_xs>(simd::half_on(b.d, simd::on<simd::avx512_vnni>{}),
                                                    detail::nibble_lanes(b.scales.bytes));
  }
};

template <>
struct lane_decoder<iq2_s, simd::avx512_vnni> : detail::wide_decoder<iq2_s> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    // Byte g of qh as the upper byte of words 4 * g .., shifted so that two bits are left above the low byte.
    alignas(64) static constexpr auto group = detail::bytes_of([](int k) { return k / 8; });
    const auto& b = block(row, first);
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qs)));
    const __m512i spread = _mm512_permutexvar_epi8(
        detail::wide_bytes(group),
        _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.qh))));
    const __m512i high = _mm512_and_si512(_mm512_srlv_epi16(spread, _mm512_set1_epi64(0x0006000400020000)),
                                          _mm512_set1_epi16(3));
    detail::signed_points<iq2_s>(
        _mm512_or_si512(low, _mm512_slli_epi16(high, 8)),
        _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.signs))), decoded);
    decoded.scale = detail::odd_scale_lanes<iq2_s>(simd::half_on(b.d, simd::on<simd::avx512_vnni>{}),
                                                   detail::nibble_lanes(b.scales.bytes));
  }
};

template <>
struct lane_decoder<iq1_s, simd::avx512_vnni> : detail::wide_decoder<iq1_s> {
  static constexpr lane_map map = detail::thirty_twos();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    alignas(64) static constexpr auto words = detail::bytes_of([](int k) { return k / 8 * 2 + k % 2; });
    const auto& b = block(row, first);
    const __m128i fields = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b.qh));
    const __m512i spread = _mm512_permutexvar_epi8(detail::wide_bytes(words), _mm512_castsi128_si512(fields));
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qs)));
    const __m512i high =
        _mm512_slli_epi16(_mm512_srlv_epi16(spread, _mm512_set1_epi64(0x0009000600030000)), 8);
    alignas(64) std::uint16_t at[32];
    _mm512_store_si512(at, _mm512_ternarylogic_epi32(low, high, _mm512_set1_epi16(0x700), 0xf8));
    const __m512i shift = _mm512_mask_set1_epi64(_mm512_set1_epi8(2), _mm_movepi16_mask(fields), 0);
    simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
      decoded.codes[i] = _mm512_add_epi8(detail::eight_points<i, 4>(detail::grid_points<iq1_s>, at), shift);
    });
    decoded.scale =
        detail::odd_scale_lanes<iq1_s>(simd::half_on(b.d, simd::on<simd::avx512_vnni>{}),
                                       _mm512_and_si512(_mm512_srli_epi32(spread, 28), _mm512_set1_epi32(7)));
  }
};

template <>
struct lane_decoder<iq1_m, simd::avx512_vnni> : detail::wide_decoder<iq1_m> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    const __m512i bytes = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.qh.bytes)));
    const __m512i nibbles =
        _mm512_or_si512(bytes, _mm512_slli_epi32(bytes, 12));  // a word each, below others
    const __m512i low = _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.qs)));
    alignas(64) std::uint16_t at[32];
    _mm512_store_si512(
        at, _mm512_ternarylogic_epi32(low, _mm512_slli_epi16(nibbles, 8), _mm512_set1_epi16(0x700), 0xf8));
    simd::unroll<2>([&](auto c) QUANTAL_LAMBDA {
      __m512i halves[2];
      detail::points_of_sixteens<iq1_m, c>(at, halves);
      const __mmask16 up = _mm512_testn_epi32_mask(nibbles, _mm512_set1_epi32(c ? 0x80000 : 8));
      const __m512i shift = _mm512_maskz_set1_epi32(up, 0x02020202);
      simd::unroll<2>([&](auto h)
                          QUANTAL_LAMBDA { decoded.codes[2 * c + h] = _mm512_add_epi8(halves[h], shift); });
    });
    decoded.scale = scales(b);
  }

 private:
  static QUANTAL_INLINE __m512 scales(const iq1_m::block& b) noexcept {
    alignas(64) static constexpr auto words = detail::bytes_of([](int k) { return k / 16 * 2 + k % 2; });
    const auto packed = simd::load_word<std::uint64_t>(b.sc);
    quantal::detail::half_bits d;
    d.raw.set(static_cast<std::uint16_t>((packed >> 12 & 15) | (packed >> 24 & 0xf0) |
                                         (packed >> 36 & 0xf00) | (packed >> 48 & 0xf000)));
    const __m512i spread = _mm512_permutexvar_epi8(
        detail::wide_bytes(words), _mm512_castsi128_si512(_mm_cvtsi64_si128(static_cast<long long>(packed))));
    const __m512i by = _mm512_broadcast_i32x4(_mm_setr_epi32(0, 3, 6, 9));
    const __m512i field = _mm512_and_si512(_mm512_srlv_epi32(spread, by), _mm512_set1_epi32(7));
    return detail::odd_scale_lanes<iq1_m>(simd::half_on(d, simd::on<simd::avx512_vnni>{}), field);
  }
};

namespace detail {

/// Bytes of eight blocks of `size` bytes: at most 192 in three registers, or 256 in four, a pair for every
/// four blocks. The last of them may overlap the one before.
template <int size>
struct eight_blocks {
  static constexpr bool pairs = 8 * size > 192;
  __m512i v[pairs ? 4 : 3];

  explicit QUANTAL_INLINE eight_blocks(const void* p) noexcept {
    const auto* const bytes = static_cast<const char*>(p);
    v[0] = _mm512_loadu_si512(bytes);
    v[1] = _mm512_loadu_si512(bytes + (pairs ? 4 * size - 64 : 64));
    v[2] = _mm512_loadu_si512(bytes + (pairs ? 4 * size : 8 * size - 64));
    if constexpr (pairs) v[3] = _mm512_loadu_si512(bytes + 8 * size - 64);
  }
  /// Bytes at positions T, a block_positions.
  template <class T>
  QUANTAL_INLINE __m512i bytes() const noexcept {
    if constexpr (pairs) {
      const __m512i first = _mm512_mask2_permutex2var_epi8(v[0], wide_bytes(T::index), ~T::mask, v[1]);
      return _mm512_mask2_permutex2var_epi8(v[2], first, T::mask, v[3]);
    } else {
      const __m512i first = _mm512_permutex2var_epi8(v[0], wide_bytes(T::index), v[1]);
      return _mm512_mask_permutexvar_epi8(first, T::mask, wide_bytes(T::index), v[2]);
    }
  }
};

/// Positions Fn{}(k) in eight blocks as eight_blocks wants them.
template <int size, class Fn>
struct block_positions {
  static constexpr int split = eight_blocks<size>::pairs ? 4 * size : 128;
  alignas(64) static constexpr auto index = bytes_of([](int k) {
    const int at = Fn{}(k);
    if constexpr (!eight_blocks<size>::pairs) return at < 128 ? at : at - (8 * size - 64);
    const int within = at % (4 * size);
    return within < 64 ? within : within - (4 * size - 64) + 64;
  });
  static constexpr std::uint64_t mask = [] {
    std::uint64_t m = 0;
    for (int k = 0; k < 64; ++k)
      if (Fn{}(k) >= split) m |= std::uint64_t{1} << k;
    return m;
  }();
};

/// Byte k of lane k / 4: bytes of lane 2 * b + h are those at offset + 8 * h .. of block b.
template <int size, int offset>
struct quarter_at {
  constexpr int operator()(int k) const { return k / 8 * size + offset + k / 4 % 2 * 8 + k % 4; }
};
/// The byte at offset + h of block b, for all four of lane 2 * b + h.
template <int size, int offset>
struct byte_at {
  constexpr int operator()(int k) const { return k / 8 * size + offset + k / 4 % 2; }
};
/// The first byte of block b in lanes 2 * b and 2 * b + 1.
template <int size>
struct first_byte_of_pair {
  constexpr int operator()(int k) const { return k / 8 * size; }
};
/// The bytes at offset .. offset + 7 of block b.
template <int size, int offset>
struct eight_at {
  constexpr int operator()(int k) const { return k / 8 * size + offset + k % 8; }
};
/// The half at `offset` of block b, for lanes 2 * b and 2 * b + 1 of a 256-bit register.
template <int size, int offset>
struct half_at {
  constexpr int operator()(int k) const { return k % 32 / 4 * size + offset + k % 2; }
};

/// Powers of two 2^(byte - 128) in 32-bit lanes. The two smallest are subnormal.
QUANTAL_INLINE __m512 powers_of_two(__m512i bytes) noexcept {
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(bytes, _mm512_set1_epi32(1)), 23);
  return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(
      normal, _mm512_cmplt_epu32_mask(bytes, _mm512_set1_epi32(2)), _mm512_set1_epi32(0x00200000), bytes));
}

}  // namespace detail

template <class F>
concept nibbles_of_32 = nibble_blocks<F> || std::same_as<F, q6_0> || std::same_as<F, mxfp4>;

/// Eight blocks of nibbles: lanes 2 * b and 2 * b + 1 are block b's, whose low and high nibbles share a
/// scale.
template <nibbles_of_32 F>
struct lane_decoder<F, simd::avx512_vnni> {
  static constexpr int depth = 4, sums = 1, size = F::layout.bytes;
  /// Register 2 * high + j.
  static constexpr lane_map map = [] {
    lane_map m{depth, {}};
    for (int t = 0; t < 64; ++t) {
      const int lane = t % 16, reg = t / 16;
      m.word[static_cast<std::size_t>(t)] =
          static_cast<std::uint8_t>(lane / 2 * 8 + reg / 2 * 4 + lane % 2 * 2 + reg % 2);
    }
    return m;
  }();
  detail::wide_group decoded;

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    decode_at(row_blocks<F>(row) + first / F::layout.elements);
  }
  QUANTAL_INLINE void decode_tail(const std::byte* row, float, std::int64_t first, int count) noexcept {
    typename F::block blocks[8] = {};
    std::memcpy(blocks, row_blocks<F>(row) + first / F::layout.elements,
                static_cast<std::size_t>(count / F::layout.elements * size));
    decode_at(blocks);
  }
  template <int>
  QUANTAL_INLINE const detail::wide_group& group() const noexcept {
    return decoded;
  }

 private:
  using block = typename F::block;

  template <int offset>
  static QUANTAL_INLINE __m512 halves(const detail::eight_blocks<size>& b) noexcept {
    using at = detail::block_positions<size, detail::half_at<size, offset>>;
    return _mm512_cvtph_ps(_mm512_castsi512_si256(b.template bytes<at>()));
  }
  QUANTAL_INLINE void decode_at(const block* blocks) noexcept {
    const detail::eight_blocks<size> b(blocks);
    simd::unroll<2>([&](auto j) QUANTAL_LAMBDA {
      using at = detail::block_positions<size, detail::quarter_at<size, offsetof(block, qs) + 4 * j>>;
      const __m512i both = b.template bytes<at>(), mask = _mm512_set1_epi8(15);
      decoded.codes[j] = _mm512_and_si512(both, mask);
      decoded.codes[2 + j] = _mm512_and_si512(_mm512_srli_epi16(both, 4), mask);
    });
    if constexpr (requires { F::level(0); }) {
      const auto* table = reinterpret_cast<const __m128i*>(level_codes<F, 16>.data());
      const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128(table));
      simd::unroll<4>(
          [&](auto i) QUANTAL_LAMBDA { decoded.codes[i] = _mm512_shuffle_epi8(levels, decoded.codes[i]); });
    }
    if constexpr (std::same_as<F, q6_0>)
      add_upper_pairs(b);
    else if constexpr (requires { blocks->qh; })
      add_fifth_bits(b);
    if constexpr (std::same_as<F, mxfp4>) {
      using at = detail::block_positions<size, detail::first_byte_of_pair<size>>;
      decoded.scale = detail::powers_of_two(_mm512_and_si512(b.template bytes<at>(), _mm512_set1_epi32(255)));
    } else {
      decoded.scale = halves<offsetof(block, d)>(b);
    }
    if constexpr (F::layout.has_offset) decoded.offset = halves<offsetof(block, m)>(b);
  }
  /// Weight e of q6_0 has its upper bits in byte e % 8, at 4 * (e % 16 / 8) + 2 * (e / 16).
  QUANTAL_INLINE void add_upper_pairs(const detail::eight_blocks<size>& b) noexcept {
    using at = detail::block_positions<size, detail::eight_at<size, offsetof(block, qh)>>;
    const __m512i bytes = b.template bytes<at>(), mask = _mm512_set1_epi8(48);
    const __m512i by[2] = {_mm512_set1_epi64(4), _mm512_set1_epi64(2 + (30ll << 32))};
    const __m512i part[2] = {_mm512_shuffle_epi32(bytes, static_cast<_MM_PERM_ENUM>(0xa0)),
                             _mm512_shuffle_epi32(bytes, static_cast<_MM_PERM_ENUM>(0xf5))};
    simd::unroll<2, 2>([&](auto high, auto j) QUANTAL_LAMBDA {
      const __m512i upper = _mm512_and_si512(_mm512_rolv_epi32(part[j], by[high]), mask);
      decoded.codes[2 * high + j] = _mm512_or_si512(decoded.codes[2 * high + j], upper);
    });
  }
  QUANTAL_INLINE void add_fifth_bits(const detail::eight_blocks<size>& b) noexcept {
    simd::unroll<2>([&](auto high) QUANTAL_LAMBDA {
      using at = detail::block_positions<size, detail::byte_at<size, offsetof(block, qh) + 2 * high>>;
      const __m512i bits = b.template bytes<at>();
      simd::unroll<2>([&](auto j) QUANTAL_LAMBDA {
        const __mmask64 set =
            _mm512_test_epi8_mask(bits, _mm512_set1_epi32(static_cast<int>(j ? 0x80402010u : 0x08040201u)));
        simd::u8<simd::avx512_vnni>& code = decoded.codes[2 * high + j];
        code = _mm512_mask_add_epi8(code, set, code, _mm512_set1_epi8(16));
      });
    });
  }
};

/// Groups of 32 as 16 bytes of nibbles: the same order, two permutations of words.
template <>
struct lane_decoder<iq4_xs, simd::avx512_vnni> : detail::wide_decoder<iq4_xs> {
  static constexpr lane_map map = lane_decoder<q4_0, simd::avx512_vnni>::map;

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    alignas(32) float s[8];
    block_scales(iq4_xs{}, b, 1.0f, s, nullptr, simd::on<simd::avx512_vnni>{});
    const __m512i low = _mm512_loadu_si512(b.qs), high = _mm512_loadu_si512(b.qs + 64);
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const auto* table = reinterpret_cast<const __m128i*>(level_codes<iq4_nl, 16>.data());
    const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128(table)), mask = _mm512_set1_epi8(15);
    simd::unroll<2>([&](auto j) QUANTAL_LAMBDA {
      const __m512i both = _mm512_permutex2var_epi32(low, _mm512_add_epi32(even, _mm512_set1_epi32(j)), high);
      decoded.codes[j] = _mm512_shuffle_epi8(levels, _mm512_and_si512(both, mask));
      decoded.codes[2 + j] = _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(both, 4), mask));
    });
    decoded.scale = detail::each_twice(_mm256_load_ps(s));
  }
};

namespace detail {

/// Nibbles stored as low and high halves of every `run` weights, 32 or 64, in the order sixteens: every word
/// goes to a lane that takes its low nibbles and to one that takes the high ones.
template <int run>
QUANTAL_INLINE void nibbles_of_runs(__m512i low, __m512i high, wide_group& g) noexcept {
  const __m512i first = run == 64
                            ? _mm512_set_epi32(28, 24, 28, 24, 20, 16, 20, 16, 12, 8, 12, 8, 4, 0, 4, 0)
                            : _mm512_set_epi32(28, 28, 24, 24, 20, 20, 16, 16, 12, 12, 8, 8, 4, 4, 0, 0);
  const __m512i by = run == 64 ? _mm512_set_epi32(4, 4, 0, 0, 4, 4, 0, 0, 4, 4, 0, 0, 4, 4, 0, 0)
                               : _mm512_set1_epi64(4ll << 32);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    const __m512i words = _mm512_permutex2var_epi32(low, _mm512_add_epi32(first, _mm512_set1_epi32(i)), high);
    g.codes[i] = _mm512_and_si512(_mm512_srlv_epi32(words, by), _mm512_set1_epi8(15));
  });
}
template <int run>
QUANTAL_INLINE void nibbles_of_runs(const void* p, wide_group& g) noexcept {
  const auto* const bytes = static_cast<const char*>(p);
  nibbles_of_runs<run>(_mm512_loadu_si512(bytes), _mm512_loadu_si512(bytes + 64), g);
}
/// Adds `value` where bit g of the byte plane is set, for weights of group g of 32.
template <int value>
QUANTAL_INLINE void add_plane(const std::uint8_t* plane, wide_group& g) noexcept {
  const __m512i bytes = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(plane)));
  const __m512i bit = _mm512_set_epi64(static_cast<long long>(0x8080808080808080ull), 0x4040404040404040,
                                       0x2020202020202020, 0x1010101010101010, 0x0808080808080808,
                                       0x0404040404040404, 0x0202020202020202, 0x0101010101010101);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    const __m512i spread = _mm512_permutexvar_epi32(_mm512_set1_epi64(i + ((i + 4ll) << 32)), bytes);
    g.codes[i] = _mm512_mask_add_epi8(g.codes[i], _mm512_test_epi8_mask(spread, bit), g.codes[i],
                                      _mm512_set1_epi8(value));
  });
}

}  // namespace detail

template <class F>
concept nibble_run_k = std::same_as<F, q4_K> || std::same_as<F, q5_K>;

template <nibble_run_k F>
struct lane_decoder<F, simd::avx512_vnni> : detail::wide_decoder<F> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = this->block(row, first);
    alignas(32) float s[8], o[8];
    block_scales(F{}, b, 1.0f, s, o, simd::on<simd::avx512_vnni>{});
    detail::nibbles_of_runs<64>(b.qs, this->decoded);
    if constexpr (std::same_as<F, q5_K>) detail::add_plane<16>(b.qh, this->decoded);
    this->decoded.scale = detail::each_twice(_mm256_load_ps(s));
    this->decoded.offset = detail::each_twice(_mm256_load_ps(o));
  }
};

template <class F>
concept nibble_run_levels = std::same_as<F, iq4_k> || std::same_as<F, iq4_ks>;

/// The second table adds four to every level of the first.
template <nibble_run_levels F>
struct lane_decoder<F, simd::avx512_vnni> : detail::wide_decoder<F> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = this->block(row, first);
    alignas(64) float s[16];
    block_scales(F{}, b, row_scale, s, nullptr, simd::on<simd::avx512_vnni>{});
    detail::nibbles_of_runs<32>(&b.qs, this->decoded);
    __mmask16 second;  // by lane
    if constexpr (std::same_as<F, iq4_k>) {
      second = b.extra.get();
      this->decoded.scale =
          _mm512_insertf32x8(_mm512_castps256_ps512(_mm256_load_ps(s)), _mm256_load_ps(s + 8), 1);
    } else {
      const __m512i bytes = _mm512_cvtepu8_epi32(
          _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.scales)),
                            _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.scales))));
      second = _mm512_test_epi32_mask(bytes, _mm512_set1_epi32(1));
      this->decoded.scale = detail::each_twice(_mm256_load_ps(s));
    }
    const auto* table = reinterpret_cast<const __m128i*>(level_codes<F, 16>.data());
    const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128(table));
    const __m512i step = _mm512_maskz_set1_epi32(second, 0x04040404);
    simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
      this->decoded.codes[i] = _mm512_add_epi8(_mm512_shuffle_epi8(levels, this->decoded.codes[i]), step);
    });
  }
};

/// Seeds of four outputs: one word of codes each, two integer sums.
template <>
struct lane_decoder<iq4_kt, simd::avx512_vnni> {
  static constexpr int depth = 2, sums = 2;
  /// Lane 4 * m + d of register 2 * u + h: seed 16 * m + 8 * u + 2 * d + h.
  static constexpr lane_map map = [] {
    lane_map m{depth, {}};
    for (int t = 0; t < 64; ++t) {
      const int lane = t % 16, reg = t / 16;
      m.word[static_cast<std::size_t>(t)] =
          static_cast<std::uint8_t>(lane / 4 * 16 + reg / 2 * 8 + lane % 4 * 2 + reg % 2);
    }
    return m;
  }();
  lane_group<simd::avx512_vnni, depth> decoded[sums];

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = row_blocks<iq4_kt>(row)[first / slice_weights];
    alignas(32) float s[8];
    block_scales(iq4_kt{}, b, row_scale, s, nullptr, simd::on<simd::avx512_vnni>{});
    // Upper bytes of the 64 seeds: four bits of qh, three of the group's word, its lowest bit.
    const __m512i words = _mm512_cvtepu32_epi64(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b.sh)));
    const __m512i fields = _mm512_and_si512(
        _mm512_multishift_epi64_epi8(_mm512_set1_epi64(0x191613100d0a0704), words), _mm512_set1_epi8(0x70));
    const __m512i top = _mm512_maskz_set1_epi64(_mm512_test_epi64_mask(words, _mm512_set1_epi64(1)),
                                                static_cast<long long>(0x8080808080808080ull));
    const auto nibbles = simd::bytes64<simd::avx512_vnni>::fields<0, 4>(b.qh.bytes, 15);
    const __m512i high = _mm512_ternarylogic_epi32(nibbles.v, fields, top, 0xfe);
    const __m512i low = _mm512_loadu_si512(b.ql);
    const __m512i seeds[sums] = {_mm512_unpacklo_epi8(low, high), _mm512_unpackhi_epi8(low, high)};
    simd::unroll<sums>([&](auto u) QUANTAL_LAMBDA {
      const __m512i base = _mm512_set1_epi32(4096);
      decoded[u].codes[0] = detail::four_outputs<0>(
          _mm512_add_epi32(_mm512_and_si512(seeds[u], _mm512_set1_epi32(0xffff)), base), 2);
      decoded[u].codes[1] =
          detail::four_outputs<0>(_mm512_add_epi32(_mm512_srli_epi32(seeds[u], 16), base), 2);
      decoded[u].scale = _mm512_permutexvar_ps(
          _mm512_add_epi32(_mm512_set1_epi32(u),
                           _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0)),
          _mm512_castps256_ps512(_mm256_load_ps(s)));
    });
  }
  QUANTAL_INLINE void decode_tail(const std::byte*, float, std::int64_t, int) noexcept {}
  template <int unit>
  QUANTAL_INLINE const lane_group<simd::avx512_vnni, depth>& group() const noexcept {
    return decoded[unit];
  }
};

}  // namespace quantal::kernel

#endif
