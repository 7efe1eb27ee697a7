// Thirty-two bytes at a time, as one register or two: what block decoders are written in.
#pragma once

#include <cstdint>
#include <type_traits>

#include "quantal/simd/lane_ops.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::simd {

namespace detail {
#if XSIMD_WITH_AVX2
template <class A>
using byte_arch = std::conditional_t<std::is_same_v<A, scalar>, A, avx2>;
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
  batch part[std::size_t{parts}];

  static QUANTAL_INLINE bytes32 load(const std::uint8_t* p) noexcept {
    bytes32 r;
    unroll<parts>([&](int i) QUANTAL_LAMBDA { r.part[i] = batch::load_unaligned(p + i * lanes); });
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
  /// Sixteen bytes from each of two places.
  static QUANTAL_INLINE bytes32 load_halves(const std::uint8_t* p, const std::uint8_t* q) noexcept {
#if XSIMD_WITH_AVX2
    if constexpr (parts == 1)
      return {{_mm256_inserti128_si256(
          _mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))),
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(q)), 1)}};
#endif
    bytes32 r;
    if constexpr (parts == 2) {
      r.part[0] = batch::load_unaligned(p);
      r.part[1] = batch::load_unaligned(q);
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
    unroll<parts>([&](int i) QUANTAL_LAMBDA { r.part[i] = batch(v); });
    return r;
  }
  /// Sixteen bytes of one value, then sixteen of another.
  static QUANTAL_INLINE bytes32 halves(std::uint8_t low, std::uint8_t high) noexcept {
#if XSIMD_WITH_AVX2
    if constexpr (parts == 1)
      return {
          {_mm256_set_m128i(_mm_set1_epi8(static_cast<char>(high)), _mm_set1_epi8(static_cast<char>(low)))}};
#endif
    bytes32 r;
    if constexpr (parts == 2) {
      r.part[0] = batch(low);
      r.part[1] = batch(high);
    }
    return r;
  }
  QUANTAL_INLINE void store(std::uint8_t* p) const noexcept {
    unroll<parts>([&](int i) QUANTAL_LAMBDA { part[i].store_unaligned(p + i * lanes); });
  }

  friend QUANTAL_INLINE bytes32 operator&(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](int i) QUANTAL_LAMBDA { a.part[i] = both(a.part[i], b.part[i]); });
    return a;
  }
  friend QUANTAL_INLINE bytes32 operator|(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](int i) QUANTAL_LAMBDA { a.part[i] = either(a.part[i], b.part[i]); });
    return a;
  }
  friend QUANTAL_INLINE bytes32 operator+(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](int i) QUANTAL_LAMBDA { a.part[i] = plus(a.part[i], b.part[i]); });
    return a;
  }
  friend QUANTAL_INLINE bytes32 operator-(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](int i) QUANTAL_LAMBDA { a.part[i] = minus(a.part[i], b.part[i]); });
    return a;
  }
  friend QUANTAL_INLINE bytes32 operator^(bytes32 a, const bytes32& b) noexcept {
    unroll<parts>([&](int i) QUANTAL_LAMBDA { a.part[i] = differing(a.part[i], b.part[i]); });
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
  unroll<bytes32<A>::parts>([&](int i) QUANTAL_LAMBDA {
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
#if XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    const uint8x16_t bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040201008040201ull));
    const auto half = [&](int i) QUANTAL_LAMBDA {
      return vandq_u8(vtstq_u8(vcombine_u8(vdup_n_u8(word[i]), vdup_n_u8(word[i + 1])), bit),
                      vdupq_n_u8(value));
    };
    return {{half(0), half(2)}};
  }
#endif
  std::uint8_t out[32];
  for (int e = 0; e < 32; ++e) out[e] = (word[e / 8] >> (e % 8) & 1) ? value : 0;
  return bytes32<A>::load(out);
}

/// 64 bytes: one register under AVX-512, two bytes32 elsewhere.
template <class A, bool wide = xsimd::batch<float, A>::size == 16>
struct bytes64 {
  bytes32<A> low, high;

  static QUANTAL_INLINE bytes64 of(const bytes32<A>& low, const bytes32<A>& high) noexcept {
    return {low, high};
  }
  /// Fields of 64 bytes: (x >> right) & mask, right >= 0.
  template <int right>
  static QUANTAL_INLINE bytes64 field(const std::uint8_t* p, std::uint8_t mask) noexcept {
    return {simd::field<right>(bytes32<A>::load(p), mask),
            simd::field<right>(bytes32<A>::load(p + 32), mask)};
  }
  /// Two fields of the same 32 bytes: (x >> first) & mask, then (x >> second) & mask; negative shifts go
  /// left. The mask must clear what comes in from other bytes.
  template <int first, int second>
  static QUANTAL_INLINE bytes64 fields(const std::uint8_t* p, std::uint8_t mask) noexcept {
    const auto x = bytes32<A>::load(p);
    return {simd::field<first>(x, mask), simd::field<second>(x, mask)};
  }
  /// Byte e is `value` where bit e of the 64-bit word is set, else 0.
  static QUANTAL_INLINE bytes64 bits(const std::uint8_t* word, std::uint8_t value) noexcept {
    return {simd::bits32<A>(word, value), simd::bits32<A>(word + 4, value)};
  }
  friend QUANTAL_INLINE bytes64 operator|(const bytes64& a, const bytes64& b) noexcept {
    return {a.low | b.low, a.high | b.high};
  }
  QUANTAL_INLINE void store(std::uint8_t* out) const noexcept {
    low.store(out);
    high.store(out + 32);
  }
};

#if XSIMD_WITH_AVX512F
template <class A>
struct bytes64<A, true> {
  __m512i v;

  static QUANTAL_INLINE bytes64 of(const bytes32<A>& low, const bytes32<A>& high) noexcept {
    return {_mm512_inserti64x4(_mm512_castsi256_si512(low.part[0]), high.part[0], 1)};
  }
  template <int right>
  static QUANTAL_INLINE bytes64 field(const std::uint8_t* p, std::uint8_t mask) noexcept {
    const __m512i x = _mm512_srli_epi32(_mm512_loadu_si512(p), right);
    return {_mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(mask)))};
  }
  template <int first, int second>
  static QUANTAL_INLINE bytes64 fields(const std::uint8_t* p, std::uint8_t mask) noexcept {
    const __m512i twice = _mm512_broadcast_i64x4(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
    // Rotations shift either way.
    const __m512i by = _mm512_inserti64x4(_mm512_set1_epi32(first & 31), _mm256_set1_epi32(second & 31), 1);
    return {_mm512_and_si512(_mm512_rorv_epi32(twice, by), _mm512_set1_epi8(static_cast<char>(mask)))};
  }
  static QUANTAL_INLINE bytes64 bits(const std::uint8_t* word, std::uint8_t value) noexcept {
    std::uint64_t mask;
    __builtin_memcpy(&mask, word, 8);
#if XSIMD_WITH_AVX512BW
    return {_mm512_maskz_set1_epi8(mask, static_cast<char>(value))};
#else
    return of(simd::bits32<A>(word, value), simd::bits32<A>(word + 4, value));
#endif
  }
  friend QUANTAL_INLINE bytes64 operator|(const bytes64& a, const bytes64& b) noexcept {
    return {_mm512_or_si512(a.v, b.v)};
  }
  QUANTAL_INLINE void store(std::uint8_t* out) const noexcept { _mm512_storeu_si512(out, v); }
};
#endif

/// 64 bytes a[0], b[0], a[1], b[1], ...
template <class A>
QUANTAL_INLINE void store_interleaved(std::uint8_t* out, const bytes32<A>& a, const bytes32<A>& b) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const __m256i low = _mm256_unpacklo_epi8(a.part[0], b.part[0]),
                  high = _mm256_unpackhi_epi8(a.part[0], b.part[0]);
    store64<A>(out, bytes32<A>{{_mm256_permute2x128_si256(low, high, 0x20)}},
               bytes32<A>{{_mm256_permute2x128_si256(low, high, 0x31)}});
    return;
  }
#endif
  if constexpr (bytes32<A>::parts == 2) {
    unroll<2>([&](int i) QUANTAL_LAMBDA {
      xsimd::zip_lo(a.part[i], b.part[i]).store_unaligned(out + 32 * i);
      xsimd::zip_hi(a.part[i], b.part[i]).store_unaligned(out + 32 * i + 16);
    });
  }
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

/// bias + m, or bias - m where the bit of the 32-bit word is set; magnitudes m are at most the bias.
template <class A>
QUANTAL_INLINE bytes32<A> signed32(const bytes32<A>& m, const std::uint8_t* word,
                                   std::uint8_t bias) noexcept {
#if XSIMD_WITH_AVX512BW && defined(__AVX512VL__)
  if constexpr (bytes32<A>::parts == 1) {
    std::uint32_t mask;
    __builtin_memcpy(&mask, word, 4);
    const __m256i zero = _mm256_set1_epi8(static_cast<char>(bias));
    return {{_mm256_mask_sub_epi8(_mm256_add_epi8(zero, m.part[0]), mask, zero, m.part[0])}};
  }
#endif
  const auto negative = bits32<A>(word, 255);
  return (m ^ negative) - negative + bytes32<A>::all(bias);
}

/// Bytes of seven bits with the eighth set to their parity.
template <class A>
QUANTAL_INLINE bytes32<A> even_parity(const bytes32<A>& x) noexcept {
  auto p = x ^ field<4>(x, 15);
  p = p ^ field<2>(p, 3);
  p = p ^ field<1>(p, 1);
  return x | field<-7>(p, 128);
}

/// Fields of 16 bytes: (x >> low) & mask, then (x >> high) & mask.
template <int low, int high, class A>
QUANTAL_INLINE bytes32<A> fields16(const bytes32<A>& twice, std::uint8_t mask) noexcept {
  const auto m = bytes32<A>::all(mask);
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1)
    return bytes32<A>{{_mm256_srlv_epi64(twice.part[0], _mm256_set_epi64x(high, high, low, low))}} & m;
#endif
  bytes32<A> r;
  if constexpr (bytes32<A>::parts == 2) {
    r.part[0] = field<low>(twice, mask).part[0];
    r.part[1] = field<high>(twice, mask).part[1];
  }
  return r & m;
}

/// 0 .. 255 to floor(3x / 256): the leading ternary digit of a fraction.
template <class A>
QUANTAL_INLINE bytes32<A> leading_trit(const bytes32<A>& x) noexcept {
  bytes32<A> r;
  using batch = typename bytes32<A>::batch;
  unroll<bytes32<A>::parts>([&](int i) QUANTAL_LAMBDA {
    r.part[i] =
        plus(one_from(x.part[i], batch(std::uint8_t{86})), one_from(x.part[i], batch(std::uint8_t{171})));
  });
  return r;
}

/// out[i] = factor * (bytes[i] - bias) for 8 bytes.
template <class A>
QUANTAL_INLINE void scale_bytes8(float factor, std::uint64_t bytes, int bias, float* out) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<long long>(bytes)));
    const __m256i value = _mm256_sub_epi32(wide, _mm256_set1_epi32(bias));
    _mm256_storeu_ps(out, _mm256_mul_ps(_mm256_set1_ps(factor), _mm256_cvtepi32_ps(value)));
    return;
  }
#endif
  for (int i = 0; i < 8; ++i)
    out[i] = factor * static_cast<float>(static_cast<int>(bytes >> (8 * i) & 255) - bias);
}

// Eight small fields to eight bytes, in general registers; the lowest field to the lowest byte.

QUANTAL_INLINE constexpr std::uint64_t spread_bits(std::uint32_t byte) noexcept {
  const std::uint64_t picked = (byte & 255) * 0x0101010101010101ull & 0x8040201008040201ull;
  return (picked + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull;
}
QUANTAL_INLINE constexpr std::uint64_t spread_pairs(std::uint32_t word) noexcept {
  std::uint64_t x = word & 0xffff;
  x = (x | x << 24) & 0x000000ff000000ffull;
  x = (x | x << 12) & 0x000f000f000f000full;
  return (x | x << 6) & 0x0303030303030303ull;
}
QUANTAL_INLINE constexpr std::uint64_t spread_nibbles(std::uint32_t word) noexcept {
  std::uint64_t x = word;
  x = (x | x << 16) & 0x0000ffff0000ffffull;
  x = (x | x << 8) & 0x00ff00ff00ff00ffull;
  return (x | x << 4) & 0x0f0f0f0f0f0f0f0full;
}
/// Low nibbles of four bytes, then their high nibbles.
QUANTAL_INLINE constexpr std::uint64_t split_nibbles(std::uint32_t word) noexcept {
  return (word & 0x0f0f0f0fu) | static_cast<std::uint64_t>(word >> 4 & 0x0f0f0f0fu) << 32;
}
/// x >> by, or x << -by.
template <class U>
QUANTAL_INLINE constexpr U shift_right(U x, int by) noexcept {
  return by >= 0 ? x >> by : x << -by;
}
/// The same value in eight bytes.
QUANTAL_INLINE constexpr std::uint64_t repeat8(std::uint8_t v) noexcept { return v * 0x0101010101010101ull; }

/// Little-endian word at any address.
template <class U>
QUANTAL_INLINE U load_word(const void* p) noexcept {
  U v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

/// The 32 two-bit fields of eight bytes, a byte each.
template <class A>
QUANTAL_INLINE bytes32<A> pairs32(const std::uint8_t* p) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (bytes32<A>::parts == 1) {
    const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
    const __m256i nibbles =
        _mm256_and_si256(_mm256_or_si256(wide, _mm256_slli_epi32(wide, 12)), _mm256_set1_epi32(0x000f000f));
    return {{_mm256_and_si256(_mm256_or_si256(nibbles, _mm256_slli_epi32(nibbles, 6)),
                              _mm256_set1_epi32(0x03030303))}};
  }
#endif
#if XSIMD_WITH_NEON64
  if constexpr (std::is_base_of_v<xsimd::neon64, A>) {
    const uint8x16_t both = vcombine_u8(vld1_u8(p), vdup_n_u8(0));
    const uint8x16_t place =
        vcombine_u8(vcreate_u8(0x0101010100000000ull), vcreate_u8(0x0303030302020202ull));
    const int8x16_t by = vreinterpretq_s8_u32(vdupq_n_u32(0xfafcfe00u));  // 0, -2, -4, -6
    const auto half = [&](std::uint8_t first) QUANTAL_LAMBDA {
      return vandq_u8(vshlq_u8(vqtbl1q_u8(both, vaddq_u8(place, vdupq_n_u8(first))), by), vdupq_n_u8(3));
    };
    return {{half(0), half(4)}};
  }
#endif
  const auto eight = [&](int i) QUANTAL_LAMBDA { return spread_pairs(load_word<std::uint16_t>(p + 2 * i)); };
  return bytes32<A>::words(eight(0), eight(1), eight(2), eight(3));
}

}  // namespace quantal::simd
