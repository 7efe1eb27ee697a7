// Formats of ternary digits: 64 bytes of four two-bit fields each, whose field r makes register r.
// Neighbouring weights share a byte; activations are arranged weight by weight to meet them.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/grids.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {

namespace avx512_vnni {

/// The weight of byte k of register r, by position.
template <class Fn>
constexpr std::array<std::uint8_t, slice_weights> weights_at(Fn weight) {
  std::array<std::uint8_t, slice_weights> t{};
  for (int r = 0; r < 4; ++r)
    for (int k = 0; k < 64; ++k)
      t[static_cast<std::size_t>(64 * r + k)] = static_cast<std::uint8_t>(weight(r, k));
  return t;
}

/// Register r from field r of every byte.
template <arch A>
QUANTAL_INLINE void two_bit_fields(__m512i bytes, lane_registers<A>& g) noexcept {
  simd::unroll<4>([&](auto r) QUANTAL_LAMBDA {
    g.codes[r] = _mm512_and_si512(_mm512_srli_epi16(bytes, 2 * r), _mm512_set1_epi8(3));
  });
}

/// Two-bit fields of trit bytes: digits P..., the first in the lowest bits.
template <int... P>
alignas(64) inline constexpr auto trit_fields = [] {
  std::array<std::uint8_t, 256> t{};
  for (std::size_t i = 0; i < 256; ++i) {
    const quantal::detail::trit_byte b{static_cast<std::uint8_t>(i)};
    int at = -2;
    ((t[i] |= static_cast<std::uint8_t>(b.get(P) << (at += 2))), ...);
  }
  return t;
}();

/// Four digits of every byte as fields, and the fifth of byte 4 * d + r of the first 48 as field r of byte
/// `ends[k] = 4 * d`, for bytes k of the mask.
template <arch A, class Four, class Fifth>
QUANTAL_INLINE void trit_registers(__m512i trits, const Four& four, const Fifth& fifth,
                                   const std::array<std::uint8_t, 64>& ends, __mmask64 mask,
                                   lane_registers<A>& g) noexcept {
  const __m512i digits = bytes_at(fifth, trits, 0);
  const __m512i packed = _mm512_dpbusd_epi32(_mm512_setzero_si512(), digits, _mm512_set1_epi32(0x40100401));
  two_bit_fields(_mm512_mask_permutexvar_epi8(bytes_at(four, trits, 0), mask, load(ends), packed), g);
}

}  // namespace avx512_vnni

template <avx512_vnni::arch A>
struct lane_decoder<iq1_bn, A> : avx512_vnni::slice_decoder<iq1_bn, A, lane_decoder<iq1_bn, A>> {
  /// Byte k < 48: digits 4 .. 1 of ql[k % 12] of block k / 12. Then for every two blocks six bytes of digits
  /// 0, and their `extra`.
  static constexpr auto weight = avx512_vnni::weights_at([](int r, int k) {
    const auto digit = [](int byte, int i) { return byte / 12 * 64 + byte % 12 / 3 * 16 + byte % 3 * 5 + i; };
    if (k < 48) return digit(k, r);
    const int half = (k - 48) / 8, at = k % 8;
    return at < 6 ? digit(4 * (6 * half + at) + r, 4) : 64 * (2 * half + at - 6) + 16 * r + 15;
  });
  static constexpr lane_map map{4, {}, &weight};

  QUANTAL_INLINE void decode_blocks(const iq1_bn::block* b, float row_scale) noexcept {
    alignas(64) static constexpr auto place = avx512_vnni::bytes_of([](int k) {
      if (k < 48) return k / 12 * 13 + k % 12;
      return k % 8 < 6 ? 63 : 13 * ((k - 48) / 8 * 2 + k % 8 - 6) + 12;
    });
    alignas(64) static constexpr auto ends =
        avx512_vnni::bytes_of([](int k) { return k < 48 ? 0 : 4 * ((k - 48) / 8 * 6 + k % 8); });
    constexpr __mmask64 packed = std::uint64_t{0x3f3f} << 48;
    const __m512i blocks = _mm512_maskz_loadu_epi8((std::uint64_t{1} << 52) - 1, b);
    avx512_vnni::trit_registers(_mm512_permutexvar_epi8(avx512_vnni::load(place), blocks),
                                avx512_vnni::trit_fields<4, 3, 2, 1>, avx512_vnni::trit_fields<0>, ends,
                                packed, this->decoded);
    this->decoded.scale = xsimd::batch<float, A>(row_scale);
  }
};

template <avx512_vnni::arch A>
struct lane_decoder<tq1_0, A> : avx512_vnni::slice_decoder<tq1_0, A, lane_decoder<tq1_0, A>> {
  /// Byte k: digits 0 .. 3 of the block's byte k, then of twelve bytes the digits 4 of the first 48.
  static constexpr auto weight = avx512_vnni::weights_at([](int r, int k) {
    if (k < 32) return 32 * r + k;
    if (k < 48) return 160 + 16 * r + k - 32;
    if (k < 52) return 240 + 4 * r + k - 48;
    const int byte = 4 * (k - 52) + r;
    return byte < 32 ? 128 + byte : 224 + byte - 32;
  });
  static constexpr lane_map map{4, {}, &weight};

  QUANTAL_INLINE void decode_blocks(const tq1_0::block* blocks, float) noexcept {
    alignas(64) static constexpr auto ends =
        avx512_vnni::bytes_of([](int k) { return k < 52 ? 0 : 4 * (k - 52); });
    constexpr __mmask64 packed = std::uint64_t{0xfff} << 52;
    const auto& b = *blocks;
    const __m512i trits = _mm512_maskz_loadu_epi8((std::uint64_t{1} << 52) - 1, &b);
    avx512_vnni::trit_registers(trits, avx512_vnni::trit_fields<0, 1, 2, 3>, avx512_vnni::trit_fields<4>,
                                ends, packed, this->decoded);
    this->decoded.scale = xsimd::batch<float, A>(avx512_vnni::half_of(b.d));
  }
};

}  // namespace quantal::kernel

#endif
