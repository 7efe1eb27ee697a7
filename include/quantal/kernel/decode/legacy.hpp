// Blocks of 32 weights with 16 bytes of nibbles, eight at a time.
#pragma once

#include <cstddef>
#include <cstring>

#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {

/// Formats of 32-weight blocks with 16 bytes of nibbles, decoded a slice of eight blocks at a time where the
/// arch permutes bytes freely.
template <class F>
concept nibble_blocks = std::same_as<F, q4_0> || std::same_as<F, q4_1> || std::same_as<F, q5_0> ||
    std::same_as<F, q5_1> || std::same_as<F, iq4_nl>;

#if QUANTAL_WITH_AVX512_VNNI
namespace detail {

/// Where the nibbles of two neighbouring blocks go: 16 bytes twice, then those of the next block twice.
template <int bytes, int qs>
alignas(64) inline constexpr auto two_blocks = [] {
  std::array<std::uint8_t, 64> t{};
  for (int i = 0; i < 64; ++i) t[i] = static_cast<std::uint8_t>(i / 32 * bytes + qs + i % 16);
  return t;
}();
/// Bit positions in a quadword: low nibbles for 16 bytes, high nibbles for 16, and again.
alignas(64) inline constexpr auto nibble_places = [] {
  std::array<std::uint8_t, 64> t{};
  for (int i = 0; i < 64; ++i) t[i] = static_cast<std::uint8_t>(i % 8 * 8 + (i / 16 % 2) * 4);
  return t;
}();

/// The halves at `at` in each of eight blocks, two to a register.
template <int bytes>
QUANTAL_INLINE void eight_halves(const __m512i (&pairs)[4], int at, float* out) noexcept {
  constexpr short next = bytes / 2;
  const short w = static_cast<short>(at / 2);
  // Indices 32 and up select from the second operand.
  const __m512i low = _mm512_castsi128_si512(_mm_set_epi16(0, 0, 0, 0, w + next + 32, w + 32, w + next, w));
  const __m512i high = _mm512_castsi128_si512(_mm_set_epi16(w + next + 32, w + 32, w + next, w, 0, 0, 0, 0));
  const __m128i a = _mm512_castsi512_si128(_mm512_permutex2var_epi16(pairs[0], low, pairs[1]));
  const __m128i b = _mm512_castsi512_si128(_mm512_permutex2var_epi16(pairs[2], high, pairs[3]));
  _mm256_storeu_ps(out, _mm256_cvtph_ps(_mm_blend_epi16(a, b, 0xf0)));
}

}  // namespace detail

/// Codes, scales and offsets of eight blocks.
template <nibble_blocks F>
QUANTAL_INLINE void slice_codes(const F&, const typename F::block* b, std::uint8_t* codes, float* scales,
                                float* offsets, const simd::on<simd::avx512_vnni>&) noexcept {
  constexpr int bytes = F::layout.bytes;
  const __m512i place = _mm512_load_si512(detail::two_blocks<bytes, offsetof(typename F::block, qs)>.data());
  const __m512i shift = _mm512_load_si512(detail::nibble_places.data());
  __m512i pairs[4];
  simd::unroll<4>([&](auto j) QUANTAL_LAMBDA {
    pairs[j] = _mm512_maskz_loadu_epi8((1ull << (2 * bytes)) - 1, b + 2 * j);
    const __m512i spread = _mm512_permutexvar_epi8(place, pairs[j]);
    __m512i code = _mm512_and_si512(_mm512_multishift_epi64_epi8(shift, spread), _mm512_set1_epi8(15));
    if constexpr (std::same_as<F, iq4_nl>) {
      const auto* table = reinterpret_cast<const __m128i*>(level_codes<iq4_nl, 16>.data());
      code = _mm512_shuffle_epi8(_mm512_broadcast_i32x4(_mm_loadu_si128(table)), code);
    }
    if constexpr (requires { b->qh; }) {
      const std::uint64_t high = simd::load_word<std::uint32_t>(b[2 * j].qh) |
                                 static_cast<std::uint64_t>(simd::load_word<std::uint32_t>(b[2 * j + 1].qh))
                                     << 32;
      code = _mm512_mask_add_epi8(code, high, code, _mm512_set1_epi8(16));
    }
    _mm512_store_si512(codes + 64 * j, code);
  });
  detail::eight_halves<bytes>(pairs, offsetof(typename F::block, d), scales);
  if constexpr (F::layout.has_offset)
    detail::eight_halves<bytes>(pairs, offsetof(typename F::block, m), offsets);
}
#endif

}  // namespace quantal::kernel
