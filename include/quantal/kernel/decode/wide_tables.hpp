// Formats of super-blocks whose fields lie in planes of 32 bytes, with or without a table of levels, and
// nvfp4, decoded in 512-bit registers. Words of a plane are permuted so that a lane has the sixteen weights
// of one scale, and shifted by lane; scales are sixteen lanes at once.
#pragma once

#include "quantal/kernel/decode/wide.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {
namespace detail {

/// at(lane) in each of sixteen lanes.
template <class Fn>
constexpr std::array<std::uint32_t, 16> lanes_of(Fn at) {
  std::array<std::uint32_t, 16> t{};
  for (int l = 0; l < 16; ++l) t[static_cast<std::size_t>(l)] = static_cast<std::uint32_t>(at(l));
  return t;
}
QUANTAL_INLINE __m512i wide_lanes(const std::array<std::uint32_t, 16>& t) noexcept {
  return _mm512_loadu_si512(t.data());
}

/// Words of a pair plane in the order sixteens, rotated so that their field is at bit `at`.
template <int at>
QUANTAL_INLINE void pairs_of_plane(const std::uint8_t* plane, __m512i (&out)[4]) noexcept {
  alignas(64) static constexpr auto words_of_lanes = lanes_of([](int l) { return l / 8 * 8 + l % 2 * 4; });
  alignas(64) static constexpr auto fields_of_lanes =
      lanes_of([](int l) { return (l % 8 / 2 * 2 - at) & 31; });
  const __m512i bytes = _mm512_loadu_si512(plane), first = wide_lanes(words_of_lanes),
                by = wide_lanes(fields_of_lanes);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    const __m512i words = _mm512_permutexvar_epi32(_mm512_add_epi32(first, _mm512_set1_epi32(i)), bytes);
    out[i] = _mm512_rorv_epi32(words, by);
  });
}
/// The fields alone.
QUANTAL_INLINE void pair_codes_of_plane(const std::uint8_t* plane, wide_group& g) noexcept {
  __m512i words[4];
  pairs_of_plane<0>(plane, words);
  simd::unroll<4>([&](auto i)
                      QUANTAL_LAMBDA { g.codes[i] = _mm512_and_si512(words[i], _mm512_set1_epi8(3)); });
}

/// Codes of the n levels, repeated: a byte permutation then ignores the upper bits of its indices.
template <block_format F, int n>
alignas(64) inline constexpr auto wide_levels = bytes_of([](int k) {
  return level_codes<F, n>[static_cast<std::size_t>(k % n)];
});

/// Indices to levels, and `step` more in the lanes that use the second table.
template <block_format F, int n>
QUANTAL_INLINE void apply_levels(__mmask16 second, int step, wide_group& g) noexcept {
  const __m512i add = _mm512_maskz_set1_epi32(second, step * 0x01010101);
  const __m512i levels = wide_bytes(wide_levels<F, n>);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    g.codes[i] = _mm512_add_epi8(_mm512_permutexvar_epi8(g.codes[i], levels), add);
  });
}

/// Levels of a pair plane; `second`: lanes of the other table.
template <block_format F>
QUANTAL_INLINE void plane_levels(const std::uint8_t* plane, __mmask16 second, int step,
                                 wide_group& g) noexcept {
  __m512i words[4];
  pairs_of_plane<0>(plane, words);
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA { g.codes[i] = words[i]; });
  apply_levels<F, 4>(second, step, g);
}

// Scales: d times integers, a lane each.

QUANTAL_INLINE __m512 times(float d, __m512i v) noexcept {
  return _mm512_mul_ps(_mm512_set1_ps(d), _mm512_cvtepi32_ps(v));
}
QUANTAL_INLINE float half_of(const quantal::detail::half_bits& h) noexcept {
  return simd::half_on(h, simd::on<simd::avx512_vnni>{});
}
/// Byte l / 2 of eight in lane l.
QUANTAL_INLINE __m512i bytes_twice(std::uint64_t bytes) noexcept {
  const __m128i x = _mm_cvtsi64_si128(static_cast<long long>(bytes));
  return _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(x, x));
}
/// The field of `bits` bits at shift(l) in lane l.
template <int bits, class Fn>
QUANTAL_INLINE __m512i field_lanes(std::uint32_t word, Fn) noexcept {
  alignas(64) static constexpr auto by = lanes_of(Fn{});
  return _mm512_and_si512(_mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int>(word)), wide_lanes(by)),
                          _mm512_set1_epi32((1 << bits) - 1));
}
/// Lanes 2 * g and 2 * g + 1 where bit first + g is set.
template <int first>
QUANTAL_INLINE __mmask16 twice_where(std::uint32_t bits) noexcept {
  alignas(64) static constexpr auto bit = lanes_of([](int l) { return 1 << (first + l / 2); });
  return _mm512_test_epi32_mask(_mm512_set1_epi32(static_cast<int>(bits)), wide_lanes(bit));
}
/// Scales of iq4_ks and its kin; tables where the lowest bit is set.
QUANTAL_INLINE __mmask16 odd_scales_twice(float d, std::uint64_t bytes, __m512& scale) noexcept {
  const __m512i v = bytes_twice(bytes), one = _mm512_set1_epi32(1);
  scale = times(d, _mm512_sub_epi32(_mm512_andnot_si512(one, v), _mm512_set1_epi32(127)));
  return _mm512_test_epi32_mask(v, one);
}
/// Six-bit scales, biased by 32.
QUANTAL_INLINE __m512 scales6(float d, const quantal::detail::scales6x16& s) noexcept {
  const __m512i high = field_lanes<2>(simd::load_word<std::uint32_t>(s.high), [](int l) { return 2 * l; });
  const __m512i v = _mm512_or_si512(nibble_lanes(s.low.bytes), _mm512_slli_epi32(high, 4));
  return times(d, _mm512_sub_epi32(v, _mm512_set1_epi32(32)));
}
/// Five-bit scales of groups of 32, biased by 16: a nibble, and the upper bit in `upper`.
QUANTAL_INLINE __m512 scales5(float d, __m512i nibbles, __mmask16 upper) noexcept {
  const __m512i v = _mm512_sub_epi32(nibbles, _mm512_set1_epi32(16));
  return times(d, _mm512_mask_add_epi32(v, upper, v, _mm512_set1_epi32(16)));
}

}  // namespace detail

template <>
struct lane_decoder<q2_K, simd::avx512_vnni> : detail::wide_decoder<q2_K> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    detail::pair_codes_of_plane(b.qs, decoded);
    const __m512i v = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales)));
    decoded.scale = detail::times(detail::half_of(b.d), _mm512_and_si512(v, _mm512_set1_epi32(15)));
    decoded.offset = detail::times(-detail::half_of(b.dmin), _mm512_srli_epi32(v, 4));
  }
};

template <>
struct lane_decoder<q3_K, simd::avx512_vnni> : detail::wide_decoder<q3_K> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    detail::pair_codes_of_plane(b.qs, decoded);
    detail::add_plane<4>(b.hmask, decoded);
    const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.scales));
    const __m512i low =
        _mm512_cvtepu8_epi32(_mm_and_si128(_mm_unpacklo_epi64(x, _mm_srli_epi16(x, 4)), _mm_set1_epi8(15)));
    const __m512i high = detail::field_lanes<2>(simd::load_word<std::uint32_t>(b.scales + 8),
                                                [](int l) { return l % 4 * 8 + l / 4 * 2; });
    const __m512i v = _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
    decoded.scale = detail::times(detail::half_of(b.d), _mm512_sub_epi32(v, _mm512_set1_epi32(32)));
  }
};

template <>
struct lane_decoder<iq2_k, simd::avx512_vnni> : detail::wide_decoder<iq2_k> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    detail::plane_levels<iq2_k>(b.qs.bytes, b.extra.get(), 5, decoded);
    const __m512i v = detail::nibble_lanes(b.scales.bytes);
    decoded.scale = detail::times(detail::half_of(b.d), _mm512_sub_epi32(v, _mm512_set1_epi32(8)));
  }
};

template <>
struct lane_decoder<iq2_ks, simd::avx512_vnni> : detail::wide_decoder<iq2_ks> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    const unsigned extra = b.extra.get();
    detail::plane_levels<iq2_ks>(b.qs.bytes, detail::twice_where<0>(extra), 5, decoded);
    const __m512i v = detail::field_lanes<4>(simd::load_word<std::uint32_t>(b.scales.bytes),
                                             [](int l) { return l / 2 * 4; });
    decoded.scale = detail::scales5(row_scale, v, detail::twice_where<8>(extra));
  }
};

template <>
struct lane_decoder<iq3_k, simd::avx512_vnni> : detail::wide_decoder<iq3_k> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    detail::pair_codes_of_plane(b.qs.bytes, decoded);
    detail::add_plane<4>(b.qh.bytes, decoded);
    detail::apply_levels<iq3_k, 8>(b.extra.get(), 4, decoded);
    const __m512i n = detail::nibble_lanes(b.scales_l.bytes);
    const __m512i size = _mm512_add_epi32(_mm512_add_epi32(n, n), _mm512_set1_epi32(1));
    decoded.scale = detail::times(
        detail::half_of(b.d), _mm512_mask_sub_epi32(size, b.scales_h.get(), _mm512_setzero_si512(), size));
  }
};

template <>
struct lane_decoder<iq3_ks, simd::avx512_vnni> : detail::wide_decoder<iq3_ks> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    const unsigned extra = b.extra.get();
    detail::pair_codes_of_plane(b.qs.bytes, decoded);
    detail::add_plane<4>(b.qh.bytes, decoded);
    detail::apply_levels<iq3_ks, 8>(detail::twice_where<8>(extra), 4, decoded);
    const __m512i v = detail::field_lanes<4>(simd::load_word<std::uint32_t>(b.scales.bytes),
                                             [](int l) { return l / 2 % 4 * 8 + l / 8 * 4; });
    decoded.scale = detail::scales5(row_scale, v, detail::twice_where<0>(extra));
  }
};

template <>
struct lane_decoder<iq5_k, simd::avx512_vnni> : detail::wide_decoder<iq5_k> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    detail::nibbles_of_runs<64>(&b.qs, decoded);
    detail::add_plane<16>(b.qh.bytes, decoded);
    detail::apply_levels<iq5_k, 32>(b.extra.get(), 2, decoded);
    decoded.scale = detail::scales6(detail::half_of(b.d), b.scales);
  }
};

template <>
struct lane_decoder<iq5_ks, simd::avx512_vnni> : detail::wide_decoder<iq5_ks> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    __m512 scale;
    const __mmask16 second =
        detail::odd_scales_twice(row_scale, simd::load_word<std::uint64_t>(b.scales), scale);
    decoded.scale = scale;
    detail::nibbles_of_runs<64>(&b.qs, decoded);
    detail::add_plane<16>(b.qh.bytes, decoded);
    detail::apply_levels<iq5_ks, 32>(second, 2, decoded);
  }
};

template <>
struct lane_decoder<iq6_k, simd::avx512_vnni> : detail::wide_decoder<iq6_k> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    __m512i high[4];
    detail::pairs_of_plane<4>(b.qh.bytes, high);
    detail::nibbles_of_runs<64>(&b.qs, decoded);
    simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {  // the upper bits above the mask of the nibbles
      decoded.codes[i] = _mm512_ternarylogic_epi32(decoded.codes[i], high[i], _mm512_set1_epi8(15), 0xe4);
    });
    detail::apply_levels<iq6_k, 64>(b.extra.get(), 1, decoded);
    decoded.scale =
        detail::times(detail::half_of(b.d),
                      _mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.scales))));
  }
};

/// Words of which three bits differ from their neighbours; the fourth is a bit of the scale.
template <>
struct lane_decoder<iq4_kss, simd::avx512_vnni> : detail::wide_decoder<iq4_kss> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    const __m512i one = _mm512_set1_epi16(1);
    __m512i words[2] = {_mm512_loadu_si512(b.words), _mm512_loadu_si512(b.words + 32)};
    const std::uint64_t scales = _mm512_test_epi16_mask(words[0], one) |
                                 static_cast<std::uint64_t>(_mm512_test_epi16_mask(words[1], one)) << 32;
    simd::unroll<2>([&](auto h) QUANTAL_LAMBDA {
      words[h] = _mm512_andnot_si512(one, words[h]);
      words[h] = _mm512_xor_si512(words[h], _mm512_srli_epi16(words[h], 1));
    });
    detail::nibbles_of_runs<32>(words[0], words[1], decoded);
    __m512 scale;
    const __mmask16 second = detail::odd_scales_twice(row_scale, scales, scale);
    decoded.scale = scale;
    detail::apply_levels<iq4_kss, 16>(second, 4, decoded);
  }
};

/// Pairs of weights: two integer sums.
template <>
struct lane_decoder<iq2_kl, simd::avx512_vnni> {
  static constexpr int depth = 2, sums = 2;
  /// Lane 4 * m + d of register 2 * u + h: word 4 * h + d of group 2 * m + u.
  static constexpr lane_map map = [] {
    lane_map m{depth, {}};
    for (int t = 0; t < 64; ++t)
      m.word[static_cast<std::size_t>(t)] =
          static_cast<std::uint8_t>((t % 16 / 4 * 2 + t / 32) * 8 + t / 16 % 2 * 4 + t % 4);
    return m;
  }();
  lane_group<simd::avx512_vnni, depth> decoded[sums];

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = row_blocks<iq2_kl>(row)[first / slice_weights];
    const __m512i both = _mm512_loadu_si512(b.qs), mask = _mm512_set1_epi8(15);
    const __m512i high = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.qh)));
    const __m512i first_codes = detail::wide_bytes(pairs_of<0>),
                  second_codes = detail::wide_bytes(pairs_of<1>);
    const __m512 scale = scales(b, row_scale);
    simd::unroll<sums>([&](auto u) QUANTAL_LAMBDA {
      const __m512i bit = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << u)),
                                             _mm256_set1_epi8(static_cast<char>(16 << u)), 1);
      const __m512i upper = _mm512_mask_blend_epi64(0xcc, bit, _mm512_slli_epi16(bit, 2));
      __m512i index = _mm512_and_si512(u ? _mm512_srli_epi16(both, 4) : both, mask);
      index = _mm512_mask_add_epi8(index, _mm512_test_epi8_mask(high, upper), index, _mm512_set1_epi8(16));
      const __m512i x = _mm512_permutexvar_epi8(index, first_codes);
      const __m512i y = _mm512_permutexvar_epi8(index, second_codes);
      decoded[u].codes[0] = _mm512_unpacklo_epi8(x, y);
      decoded[u].codes[1] = _mm512_unpackhi_epi8(x, y);
      decoded[u].scale = _mm512_permutexvar_ps(
          _mm512_add_epi32(_mm512_set1_epi32(u),
                           _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0)),
          scale);
    });
  }
  QUANTAL_INLINE void decode_tail(const std::byte*, float, std::int64_t, int) noexcept {}
  template <int unit>
  QUANTAL_INLINE const lane_group<simd::avx512_vnni, depth>& group() const noexcept {
    return decoded[unit];
  }

 private:
  template <int k>
  alignas(64) static constexpr auto pairs_of = detail::bytes_of([](int i) {
    return detail::pair_codes<k>[static_cast<std::size_t>(i % 32)];
  });

  /// Of group l in lane l < 8.
  static QUANTAL_INLINE __m512 scales(const iq2_kl::block& b, float row_scale) noexcept {
    const __m512i low = detail::field_lanes<4>(simd::load_word<std::uint32_t>(b.scales_l.bytes),
                                               [](int l) { return l % 4 * 8 + l / 4 % 2 * 4; });
    const __m512i high = detail::field_lanes<2>(b.scales_h.get(), [](int l) { return l * 2; });
    const __m512i v = _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
    return detail::times(row_scale, _mm512_sub_epi32(v, _mm512_set1_epi32(32)));
  }
};

template <>
struct lane_decoder<nvfp4, simd::avx512_vnni>
    : detail::short_blocks<nvfp4, lane_decoder<nvfp4, simd::avx512_vnni>> {
  static constexpr lane_map map = detail::sixteens();

  QUANTAL_INLINE void decode_blocks(const nvfp4::block* blocks, float) noexcept {
    constexpr int size = 18;  // four blocks of 36 bytes as eight
    const detail::eight_blocks<size> b(blocks);
    const __m512i mask = _mm512_set1_epi8(15);
    const auto* table = reinterpret_cast<const __m128i*>(level_codes<nvfp4, 16>.data());
    const __m512i levels = _mm512_broadcast_i32x4(_mm_loadu_si128(table));
    simd::unroll<2>([&](auto j) QUANTAL_LAMBDA {
      const __m512i both = b.template bytes<detail::block_positions<size, words_at<j>>>();
      decoded.codes[j] = _mm512_shuffle_epi8(levels, _mm512_and_si512(both, mask));
      decoded.codes[2 + j] = _mm512_shuffle_epi8(levels, _mm512_and_si512(_mm512_srli_epi16(both, 4), mask));
    });
    decoded.scale =
        scales(_mm512_castsi512_si256(b.template bytes<detail::block_positions<size, scales_at>>()));
  }

 private:
  /// Word j of group l in lane l.
  template <int j>
  struct words_at {
    constexpr int operator()(int k) const { return k / 16 * 36 + 4 + k % 16 / 4 * 8 + 4 * j + k % 4; }
  };
  /// The scale of group l in 16-bit lane l, twice.
  struct scales_at {
    constexpr int operator()(int k) const { return k % 32 / 8 * 36 + k % 8 / 2; }
  };
  /// Half of UE4M3 is a binary16 with a smaller exponent; 0x7f stands for zero.
  static QUANTAL_INLINE __m512 scales(__m256i codes) noexcept {
    const __m256i code = _mm256_and_si256(codes, _mm256_set1_epi16(255));
    const __m256i half = _mm256_and_si256(_mm256_slli_epi16(code, 7), _mm256_set1_epi16(0x3f80));
    const __mmask16 number = _mm256_cmpneq_epi16_mask(code, _mm256_set1_epi16(0x7f));
    return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_maskz_mov_epi16(number, half)), _mm512_set1_ps(128.0f));
  }
};

}  // namespace quantal::kernel

#endif
