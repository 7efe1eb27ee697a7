// Trellises: a value is one product and one dot product with ones per 32-bit lane.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/blocks.hpp"
#include "quantal/kernel/decode/trellis.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {

namespace avx512_vnni {

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
      load(group), _mm512_castsi128_si512(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(b.sh))));
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

}  // namespace avx512_vnni

template <class F>
concept trellis_of_eight = block_format<F> &&
    (std::same_as<F, iq1_kt> || std::same_as<F, iq2_kt> || std::same_as<F, iq3_kt>);

template <trellis_of_eight F, avx512_vnni::arch A>
struct lane_decoder<F, A> : avx512_vnni::slice_decoder<F, A, lane_decoder<F, A>> {
  static constexpr lane_map map = avx512_vnni::map_of<avx512_vnni::order_of_16>;

  QUANTAL_INLINE void decode_blocks(const typename F::block* blocks, float row_scale) noexcept {
    constexpr bool magnitudes = std::same_as<F, iq3_kt>;
    const auto& b = *blocks;
    alignas(32) float s[8];
    block_scales(F{}, b, row_scale, s, nullptr, simd::on<A>{});
    __m512i codes[4];
    avx512_vnni::trellis_codes(avx512_vnni::seeds_of(b), magnitudes ? 0 : 2, codes);
    if constexpr (magnitudes) avx512_vnni::sign_outputs(b, codes);
    simd::unroll<4>([&](auto i) QUANTAL_LAMBDA { this->decoded.codes[i] = codes[i]; });
    this->decoded.scale = avx512_vnni::each_twice(_mm256_load_ps(s));
  }
};

/// Seeds of four outputs: one word of codes each, two integer sums.
template <avx512_vnni::arch A>
struct lane_decoder<iq4_kt, A> {
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
  lane_group<A, depth> decoded[sums];

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    const auto& b = row_blocks<iq4_kt>(row)[first / slice_weights];
    alignas(32) float s[8];
    block_scales(iq4_kt{}, b, row_scale, s, nullptr, simd::on<A>{});
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
      this->decoded[u].codes[0] = avx512_vnni::four_outputs<0>(
          _mm512_add_epi32(_mm512_and_si512(seeds[u], _mm512_set1_epi32(0xffff)), base), 2);
      this->decoded[u].codes[1] =
          avx512_vnni::four_outputs<0>(_mm512_add_epi32(_mm512_srli_epi32(seeds[u], 16), base), 2);
      this->decoded[u].scale = _mm512_permutexvar_ps(
          _mm512_add_epi32(_mm512_set1_epi32(u),
                           _mm512_set_epi32(6, 6, 6, 6, 4, 4, 4, 4, 2, 2, 2, 2, 0, 0, 0, 0)),
          _mm512_castps256_ps512(_mm256_load_ps(s)));
    });
  }
  template <int unit>
  QUANTAL_INLINE const lane_group<A, depth>& group() const noexcept {
    return this->decoded[unit];
  }
};

}  // namespace quantal::kernel

#endif
