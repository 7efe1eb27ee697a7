// Ternary, binary and two-bit formats without tables of levels, decoded in 512-bit registers: 64 bytes of
// four two-bit fields each, whose field r makes register r. Where neighbouring weights share a byte,
// activations are arranged weight by weight to meet them.
#pragma once

#include "quantal/kernel/decode/wide.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel {
namespace detail {

/// The weight of byte k of register r, by position.
template <class Fn>
constexpr std::array<std::uint8_t, slice_weights> weights_of(Fn weight) {
  std::array<std::uint8_t, slice_weights> t{};
  for (int r = 0; r < 4; ++r)
    for (int k = 0; k < 64; ++k)
      t[static_cast<std::size_t>(64 * r + k)] = static_cast<std::uint8_t>(weight(r, k));
  return t;
}

/// Register r from field r of every byte.
QUANTAL_INLINE void two_bit_fields(__m512i bytes, wide_group& g) noexcept {
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
template <class Four, class Fifth>
QUANTAL_INLINE void trit_registers(__m512i trits, const Four& four, const Fifth& fifth,
                                   const std::array<std::uint8_t, 64>& ends, __mmask64 mask,
                                   wide_group& g) noexcept {
  const __m512i digits = bytes_at(fifth, trits, 0);
  const __m512i packed = _mm512_dpbusd_epi32(_mm512_setzero_si512(), digits, _mm512_set1_epi32(0x40100401));
  two_bit_fields(_mm512_mask_permutexvar_epi8(bytes_at(four, trits, 0), mask, wide_bytes(ends), packed), g);
}

}  // namespace detail

template <>
struct lane_decoder<iq2_bn, simd::avx512_vnni>
    : detail::short_blocks<iq2_bn, lane_decoder<iq2_bn, simd::avx512_vnni>> {
  /// Block l / 4, sixteen weights to a register.
  static constexpr lane_map map = [] {
    lane_map m{4, {}};
    for (int t = 0; t < 64; ++t)
      m.word[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(t % 16 / 4 * 16 + t / 16 * 4 + t % 4);
    return m;
  }();
  QUANTAL_INLINE void decode_blocks(const iq2_bn::block* b, float row_scale) noexcept {
    detail::two_bit_fields(_mm512_loadu_si512(b), decoded);
    decoded.scale = xsimd::batch<float, simd::avx512_vnni>(row_scale);
  }
};

template <>
struct lane_decoder<tq2_0, simd::avx512_vnni> : detail::wide_decoder<tq2_0> {
  /// Half of the block l / 8, 32 weights to a register.
  static constexpr lane_map map = [] {
    lane_map m{4, {}};
    for (int t = 0; t < 64; ++t)
      m.word[static_cast<std::size_t>(t)] = static_cast<std::uint8_t>(t % 16 / 8 * 32 + t / 16 * 8 + t % 8);
    return m;
  }();
  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    const auto& b = block(row, first);
    detail::two_bit_fields(_mm512_loadu_si512(b.qs.bytes), decoded);
    decoded.scale = xsimd::batch<float, simd::avx512_vnni>(simd::half_on(b.d, simd::on<simd::avx512_vnni>{}));
  }
};

template <>
struct lane_decoder<q2_0, simd::avx512_vnni>
    : detail::short_blocks<q2_0, lane_decoder<q2_0, simd::avx512_vnni>> {
  static constexpr auto weight = detail::weights_of([](int r, int k) { return 4 * k + r; });
  static constexpr lane_map map{4, {}, &weight};

  QUANTAL_INLINE void decode_blocks(const q2_0::block* b, float) noexcept {
    // The second register begins eight bytes after the first.
    alignas(64) static constexpr auto place = detail::bytes_of([](int k) {
      const int at = k / 16 * 18 + 2 + k % 16;
      return at < 64 ? at : at - 8 + 64;
    });
    const auto* const bytes = reinterpret_cast<const char*>(b);
    const __m512i low = _mm512_loadu_si512(bytes), high = _mm512_loadu_si512(bytes + 8);
    detail::two_bit_fields(_mm512_permutex2var_epi8(low, detail::wide_bytes(place), high), decoded);
    decoded.scale = first_halves(low, high);
  }
};

template <>
struct lane_decoder<q1_0, simd::avx512_vnni>
    : detail::short_blocks<q1_0, lane_decoder<q1_0, simd::avx512_vnni>> {
  /// Bits 0 .. 3 of byte k / 2 of the 32 in lanes of one kind, bits 4 .. 7 in the others.
  static constexpr auto weight =
      detail::weights_of([](int r, int k) { return k / 8 * 32 + k % 4 * 8 + k / 4 % 2 * 4 + r; });
  static constexpr lane_map map{4, {}, &weight};

  QUANTAL_INLINE void decode_blocks(const q1_0::block* b, float) noexcept {
    alignas(64) static constexpr auto place =
        detail::bytes_of([](int k) { return k / 32 * 18 + 2 + k % 32 / 8 * 4 + k % 4; });
    const __m512i both = _mm512_maskz_loadu_epi8((std::uint64_t{1} << 36) - 1, b);
    const __m512i bits = _mm512_srlv_epi32(_mm512_permutexvar_epi8(detail::wide_bytes(place), both),
                                           _mm512_set1_epi64(4ll << 32));
    simd::unroll<4>([&](auto r) QUANTAL_LAMBDA {
      const __m512i up = r == 0 ? _mm512_add_epi8(bits, bits) : _mm512_srli_epi16(bits, r - (r > 0));
      decoded.codes[r] = _mm512_and_si512(up, _mm512_set1_epi8(2));
    });
    decoded.scale = first_halves(both, both);
  }
};

template <>
struct lane_decoder<iq1_bn, simd::avx512_vnni>
    : detail::short_blocks<iq1_bn, lane_decoder<iq1_bn, simd::avx512_vnni>> {
  /// Byte k < 48: digits 4 .. 1 of ql[k % 12] of block k / 12. Then for every two blocks six bytes of digits
  /// 0, and their `extra`.
  static constexpr auto weight = detail::weights_of([](int r, int k) {
    const auto digit = [](int byte, int i) { return byte / 12 * 64 + byte % 12 / 3 * 16 + byte % 3 * 5 + i; };
    if (k < 48) return digit(k, r);
    const int half = (k - 48) / 8, at = k % 8;
    return at < 6 ? digit(4 * (6 * half + at) + r, 4) : 64 * (2 * half + at - 6) + 16 * r + 15;
  });
  static constexpr lane_map map{4, {}, &weight};

  QUANTAL_INLINE void decode_blocks(const iq1_bn::block* b, float row_scale) noexcept {
    alignas(64) static constexpr auto place = detail::bytes_of([](int k) {
      if (k < 48) return k / 12 * 13 + k % 12;
      return k % 8 < 6 ? 63 : 13 * ((k - 48) / 8 * 2 + k % 8 - 6) + 12;
    });
    alignas(64) static constexpr auto ends =
        detail::bytes_of([](int k) { return k < 48 ? 0 : 4 * ((k - 48) / 8 * 6 + k % 8); });
    constexpr __mmask64 packed = std::uint64_t{0x3f3f} << 48;
    const __m512i blocks = _mm512_maskz_loadu_epi8((std::uint64_t{1} << 52) - 1, b);
    detail::trit_registers(_mm512_permutexvar_epi8(detail::wide_bytes(place), blocks),
                           detail::trit_fields<4, 3, 2, 1>, detail::trit_fields<0>, ends, packed, decoded);
    decoded.scale = xsimd::batch<float, simd::avx512_vnni>(row_scale);
  }
};

template <>
struct lane_decoder<tq1_0, simd::avx512_vnni> : detail::wide_decoder<tq1_0> {
  /// Byte k: digits 0 .. 3 of the block's byte k, then of twelve bytes the digits 4 of the first 48.
  static constexpr auto weight = detail::weights_of([](int r, int k) {
    if (k < 32) return 32 * r + k;
    if (k < 48) return 160 + 16 * r + k - 32;
    if (k < 52) return 240 + 4 * r + k - 48;
    const int byte = 4 * (k - 52) + r;
    return byte < 32 ? 128 + byte : 224 + byte - 32;
  });
  static constexpr lane_map map{4, {}, &weight};

  QUANTAL_INLINE void decode(const std::byte* row, float, std::int64_t first) noexcept {
    alignas(64) static constexpr auto ends =
        detail::bytes_of([](int k) { return k < 52 ? 0 : 4 * (k - 52); });
    constexpr __mmask64 packed = std::uint64_t{0xfff} << 52;
    const auto& b = block(row, first);
    const __m512i trits = _mm512_maskz_loadu_epi8((std::uint64_t{1} << 52) - 1, &b);
    detail::trit_registers(trits, detail::trit_fields<0, 1, 2, 3>, detail::trit_fields<4>, ends, packed,
                           decoded);
    decoded.scale = xsimd::batch<float, simd::avx512_vnni>(simd::half_on(b.d, simd::on<simd::avx512_vnni>{}));
  }
};

}  // namespace quantal::kernel

#endif
