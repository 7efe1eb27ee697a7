// Formats with tables of levels whose indices are no bits of the block.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/blocks.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {

namespace avx512_vnni {

/// Byte l / 2 of eight in lane l.
QUANTAL_INLINE __m512i bytes_twice(std::uint64_t bytes) noexcept {
  const __m128i x = _mm_cvtsi64_si128(static_cast<long long>(bytes));
  return _mm512_cvtepu8_epi32(_mm_unpacklo_epi8(x, x));
}
/// The field of `bits` bits at shift(l) in lane l.
template <int bits, class Fn>
QUANTAL_INLINE __m512i field_lanes(std::uint32_t word, Fn) noexcept {
  alignas(64) static constexpr auto by = lanes_of(Fn{});
  return _mm512_and_si512(_mm512_srlv_epi32(_mm512_set1_epi32(static_cast<int>(word)), load(by)),
                          _mm512_set1_epi32((1 << bits) - 1));
}
}  // namespace avx512_vnni

/// Words of which three bits differ from their neighbours; the fourth is a bit of the scale.
template <avx512_vnni::arch A>
struct lane_decoder<iq4_kss, A> : avx512_vnni::slice_decoder<iq4_kss, A, lane_decoder<iq4_kss, A>> {
  /// A group of 32 is 16 bytes of nibbles.
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::lane_order{.distance = 4, .fields = 2}>;

  QUANTAL_INLINE void decode_blocks(const iq4_kss::block* blocks, float row_scale) noexcept {
    const auto& b = *blocks;
    const __m512i one = _mm512_set1_epi16(1);
    __m512i words[2] = {_mm512_loadu_si512(b.words), _mm512_loadu_si512(b.words + 32)};
    const std::uint64_t scales = _mm512_test_epi16_mask(words[0], one) |
                                 static_cast<std::uint64_t>(_mm512_test_epi16_mask(words[1], one)) << 32;
    simd::unroll<2>([&](auto h) QUANTAL_LAMBDA {
      words[h] = _mm512_andnot_si512(one, words[h]);
      words[h] = _mm512_xor_si512(words[h], _mm512_srli_epi16(words[h], 1));
    });
    // The lowest bit of a scale selects the table, the others are an odd number.
    const __m512i v = avx512_vnni::bytes_twice(scales), lowest = _mm512_set1_epi32(1);
    this->decoded.scale = avx512_vnni::times(
        row_scale, _mm512_sub_epi32(_mm512_andnot_si512(lowest, v), _mm512_set1_epi32(127)));
    const __m512i step = _mm512_maskz_set1_epi32(_mm512_test_epi32_mask(v, lowest), 0x04040404);
    const __m512i levels = avx512_vnni::load(nibble_levels);
    const __m512i even = _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    simd::unroll<2>([&](auto j) QUANTAL_LAMBDA {
      const __m512i both =
          _mm512_permutex2var_epi32(words[0], _mm512_add_epi32(even, _mm512_set1_epi32(j)), words[1]);
      const auto code = [&](__m512i index) QUANTAL_LAMBDA {
        return _mm512_add_epi8(_mm512_permutexvar_epi8(index, levels), step);
      };
      this->decoded.codes[j] = code(both);
      this->decoded.codes[2 + j] = code(_mm512_srli_epi32(both, 4));
    });
  }

 private:
  alignas(64) static constexpr auto nibble_levels = avx512_vnni::bytes_of([](int k) {
    return level_codes<iq4_kss, 16>[static_cast<std::size_t>(k % 16)];
  });
};

/// Pairs of weights: two integer sums.
template <avx512_vnni::arch A>
struct lane_decoder<iq2_kl, A> {
  static constexpr int depth = 2, sums = 2;
  /// Lane 4 * m + d of register 2 * u + h: word 4 * h + d of group 2 * m + u.
  static constexpr lane_map map = [] {
    lane_map m{depth, {}};
    for (int t = 0; t < 64; ++t)
      m.word[static_cast<std::size_t>(t)] =
          static_cast<std::uint8_t>((t % 16 / 4 * 2 + t / 32) * 8 + t / 16 % 2 * 4 + t % 4);
    return m;
  }();
  lane_group<A, depth> decoded[sums];

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = row_blocks<iq2_kl>(row)[first / slice_weights];
    const __m512i both = _mm512_loadu_si512(b.qs), mask = _mm512_set1_epi8(15);
    const __m512i high = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b.qh)));
    const __m512i first_codes = avx512_vnni::load(pairs_of<0>), second_codes = avx512_vnni::load(pairs_of<1>);
    const __m512 scale = scales(b, row_scale);
    simd::unroll<sums>([&](auto u) QUANTAL_LAMBDA {
      const __m512i bit = _mm512_inserti64x4(_mm512_set1_epi8(static_cast<char>(1 << u)),
                                             _mm256_set1_epi8(static_cast<char>(16 << u)), 1);
      const __m512i upper = _mm512_mask_blend_epi64(0xcc, bit, _mm512_slli_epi16(bit, 2));
      __m512i index = _mm512_and_si512(u ? _mm512_srli_epi16(both, 4) : both, mask);
      index = _mm512_mask_add_epi8(index, _mm512_test_epi8_mask(high, upper), index, _mm512_set1_epi8(16));
      const __m512i x = _mm512_permutexvar_epi8(index, first_codes);
      const __m512i y = _mm512_permutexvar_epi8(index, second_codes);
      this->decoded[u].codes[0] = _mm512_unpacklo_epi8(x, y);
      this->decoded[u].codes[1] = _mm512_unpackhi_epi8(x, y);
      this->decoded[u].scale = _mm512_permutexvar_ps(
          _mm512_add_epi32(_mm512_set1_epi32(u),
                           _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0)),
          scale);
    });
  }
  template <int unit>
  QUANTAL_INLINE const lane_group<A, depth>& group() const noexcept {
    return this->decoded[unit];
  }

 private:
  template <int k>
  alignas(64) static constexpr auto pairs_of = avx512_vnni::bytes_of([](int i) {
    return iq2_kl::grid_value(i % 32, k) + code_bias<iq2_kl>;
  });

  /// Of group l in lane l < 8.
  static QUANTAL_INLINE __m512 scales(const iq2_kl::block& b, float row_scale) noexcept {
    const __m512i low = avx512_vnni::field_lanes<4>(simd::load_word<std::uint32_t>(b.scales_l.bytes),
                                                    [](int l) { return l % 4 * 8 + l / 4 % 2 * 4; });
    const __m512i high = avx512_vnni::field_lanes<2>(b.scales_h.get(), [](int l) { return l * 2; });
    const __m512i v = _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
    return avx512_vnni::times(row_scale, _mm512_sub_epi32(v, _mm512_set1_epi32(32)));
  }
};

}  // namespace quantal::kernel

#endif
