// Thirty-two bytes at a time, as one register or two: what block decoders are written in.
#pragma once

#include <cstdint>
#include <type_traits>

#include "quantal/simd/arch.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::simd {

namespace detail {
#if XSIMD_WITH_AVX2
template <class A>
using byte_arch = std::conditional_t<std::is_same_v<A, scalar>, A, xsimd::avx2>;
#else
template <class A>
using byte_arch = A;
#endif
}  // namespace detail

/// 32 unsigned bytes on arch A: a 256-bit register on x86 with AVX2 (also under AVX-512, where a block's
/// fields are no wider), two 128-bit ones elsewhere.
template <class A>
struct bytes32 {
  using batch = xsimd::batch<std::uint8_t, detail::byte_arch<A>>;
  static constexpr int lanes = static_cast<int>(batch::size), parts = 32 / lanes;
  batch part[parts];

  static QUANTAL_INLINE bytes32 load(const std::uint8_t* p) noexcept {
    bytes32 r;
    unroll<parts>([&](auto i) QUANTAL_LAMBDA { r.part[i] = batch::load_unaligned(p + i * lanes); });
    return r;
  }
  /// The same 16 bytes twice.
  static QUANTAL_INLINE bytes32 load_twice(const std::uint8_t* p) noexcept {
#if XSIMD_WITH_AVX2
    if constexpr (parts == 1)
      return {{_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))}};
#endif
    bytes32 r;
    if constexpr (parts == 2) {
      r.part[0] = batch::load_unaligned(p);
      r.part[1] = r.part[0];
    }
    return r;
  }
  /// Four little-endian words.
  static QUANTAL_INLINE bytes32 words(std::uint64_t a, std::uint64_t b, std::uint64_t c,
                                      std::uint64_t d) noexcept {
#if XSIMD_WITH_AVX2
    using word = long long;
    if constexpr (parts == 1)
      return {{_mm256_set_epi64x(static_cast<word>(d), static_cast<word>(c), static_cast<word>(b),
                                 static_cast<word>(a))}};
#endif
    const std::uint64_t w[4] = {a, b, c, d};
    std::uint8_t bytes[32];
    __builtin_memcpy(bytes, w, 32);
    return load(bytes);
  }
  static QUANTAL_INLINE bytes32 all(std::uint8_t v) noexcept {
    bytes32 r;
    unroll<parts>([&](auto i) QUANTAL_LAMBDA { r.part[i] = batch(v); });
    return r;
  }
  QUANTAL_INLINE void store(std::uint8_t* p) const noexcept {
    unroll<parts>([&](auto i) QUANTAL_LAMBDA { part[i].store_unaligned(p + i * lanes); });
  }

  friend QUANTAL_INLINE bytes32 operator&(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](auto i) QUANTAL_LAMBDA { a.part[i] = a.part[i] & b.part[i]; });
    return a;
  }
  friend QUANTAL_INLINE bytes32 operator|(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](auto i) QUANTAL_LAMBDA { a.part[i] = a.part[i] | b.part[i]; });
    return a;
  }
  friend QUANTAL_INLINE bytes32 operator^(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](auto i) QUANTAL_LAMBDA { a.part[i] = a.part[i] ^ b.part[i]; });
    return a;
  }
};

/// (x >> right) & mask, or (x << -right) & mask. The shift may run across bytes: the mask must clear what
/// comes in.
template <int right, class A>
QUANTAL_INLINE bytes32<A> field(const bytes32<A>& x, std::uint8_t mask) noexcept {
  bytes32<A> r;
  const auto m = bytes32<A>::all(mask);
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    if constexpr (right >= 0)
      r.part[0] = _mm256_srli_epi16(x.part[0], right);
    else
      r.part[0] = _mm256_slli_epi16(x.part[0], -right);
    return r & m;
  }
#endif
  unroll<bytes32<A>::parts>([&](auto i) QUANTAL_LAMBDA {
    if constexpr (right > 0)
      r.part[i] = x.part[i] >> right;
    else if constexpr (right < 0)
      r.part[i] = x.part[i] << -right;
    else
      r.part[i] = x.part[i];
  });
  return r & m;
}

/// 64 bytes in one store where the arch has one, so that a load of all of them can be forwarded.
template <class A>
QUANTAL_INLINE void store64(std::uint8_t* out, const bytes32<A>& a, const bytes32<A>& b) noexcept {
#if XSIMD_WITH_AVX512F
  if constexpr (bytes32<A>::parts == 1) {
    _mm512_storeu_si512(out, _mm512_inserti64x4(_mm512_castsi256_si512(a.part[0]), b.part[0], 1));
    return;
  }
#endif
  a.store(out);
  b.store(out + 32);
}

/// Low nibbles of 16 bytes, then their high nibbles.
template <class A>
QUANTAL_INLINE bytes32<A> nibbles16(const std::uint8_t* p) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(x), _mm_srli_epi16(x, 4), 1);
    return {{_mm256_and_si256(both, _mm256_set1_epi8(15))}};
  }
#endif
  bytes32<A> r = bytes32<A>::load_twice(p);
  if constexpr (bytes32<A>::parts == 2) {
    r.part[0] = r.part[0] & typename bytes32<A>::batch(std::uint8_t{15});
    r.part[1] = r.part[1] >> 4;
  }
  return r;
}

/// Byte e is `value` where bit e of the 32-bit word is set, else 0.
template <class A>
QUANTAL_INLINE bytes32<A> bits32(const std::uint8_t* word, std::uint8_t value) noexcept {
#if XSIMD_WITH_AVX512BW && defined(__AVX512VL__)
  if constexpr (bytes32<A>::parts == 1) {
    std::uint32_t mask;
    __builtin_memcpy(&mask, word, 4);
    return {{_mm256_maskz_set1_epi8(mask, static_cast<char>(value))}};
  }
#endif
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    int w;
    __builtin_memcpy(&w, word, 4);
    const __m256i spread = _mm256_shuffle_epi8(
        _mm256_set1_epi32(w), _mm256_setr_epi8(0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2,
                                               2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3));
    const __m256i bit = _mm256_set1_epi64x(static_cast<long long>(0x8040201008040201ull));
    return {{_mm256_and_si256(_mm256_cmpeq_epi8(_mm256_and_si256(spread, bit), bit),
                              _mm256_set1_epi8(static_cast<char>(value)))}};
  }
#endif
  std::uint8_t out[32];
  for (int e = 0; e < 32; ++e) out[e] = (word[e / 8] >> (e % 8) & 1) ? value : 0;
  return bytes32<A>::load(out);
}

/// out[i] = factor * bytes[i] for 8 bytes.
template <class A>
QUANTAL_INLINE void scale_bytes8(float factor, std::uint64_t bytes, float* out) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_set1_ps(factor), _mm256_cvtepi32_ps(wide)));
    return;
  }
#endif
  for (int i = 0; i < 8; ++i) out[i] = factor * static_cast<float>(bytes >> (8 * i) & 255);
}

}  // namespace quantal::simd
