// Decoders of the trellis formats: every lane multiplies its group's seed by its own power of the generator's
// constant, so that eight weights need no chain (formats.md section 2.6).
#pragma once

#include "quantal/format/detail/trellis.hpp"
#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/dot4.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {
namespace detail {

/// Powers of lanes 0 .. 15 where `per` consecutive lanes belong to a seed.
template <int per>
alignas(64) inline constexpr auto lane_powers = [] {
  std::array<std::uint32_t, 16> t{};
  for (int i = 0; i < 16; ++i) t[i] = quantal::detail::trellis_power(i % per);
  return t;
}();

/// Seeds of the lanes from lane `first` on.
template <class A, int per>
QUANTAL_INLINE simd::i32<A> lane_seeds(const std::uint32_t* seeds, int first) noexcept {
  [[maybe_unused]] const auto seed = [&](int i)
                                         QUANTAL_LAMBDA { return static_cast<int>(seeds[first / per + i]); };
#if XSIMD_WITH_AVX512F
  if constexpr (simd::i32<A>::size == 16 && per == 8)
    return simd::i32<A>(_mm512_inserti64x4(_mm512_set1_epi32(seed(0)), _mm256_set1_epi32(seed(1)), 1));
  if constexpr (simd::i32<A>::size == 16 && per == 4)
    return simd::i32<A>(_mm512_permutexvar_epi32(
        _mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
        _mm512_castsi128_si512(_mm_loadu_si128(reinterpret_cast<const __m128i*>(seeds + first / per)))));
#endif
#if XSIMD_WITH_AVX2
  if constexpr (simd::i32<A>::size == 8 && per == 4)
    return simd::i32<A>(_mm256_set_m128i(_mm_set1_epi32(seed(1)), _mm_set1_epi32(seed(0))));
#endif
  return simd::i32<A>(seed(0));
}

/// 256 values + 128, `per` from each seed; the magnitudes instead where `magnitude`.
template <class A, int per, bool magnitude>
QUANTAL_INLINE void trellis_bytes(const std::uint32_t* seeds, std::uint8_t* out) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>) {
    for (int e = 0; e < 256; ++e) {
      const int t = quantal::detail::trellis(seeds[e / per], e % per);
      out[e] = static_cast<std::uint8_t>(magnitude ? (t < 0 ? -t : t) : t + 128);
    }
  } else {
    using batch = simd::i32<A>;
    constexpr int lanes = static_cast<int>(batch::size);
    const simd::s8<A> ones(std::int8_t{1});
    const batch mask(0x3f3f3f3f);
    alignas(64) std::int32_t scratch[batch::size];
    for (int e = 0; e < 256; e += lanes) {
      const auto power =
          batch::load_aligned(reinterpret_cast<const std::int32_t*>(&lane_powers<per>[e % 16]));
      const batch x = lane_seeds<A, per>(seeds, e) * power & mask;
      batch sum = simd::dot4_narrow_on<A>(batch(magnitude ? -126 : 2), simd::bits_as<std::uint8_t>(x), ones,
                                          simd::on<A>{});
      if constexpr (magnitude) sum = xsimd::abs(sum);
      simd::store_low_bytes<A>(sum, scratch, reinterpret_cast<std::int8_t*>(out) + e);
    }
  }
}

/// row_scale * lut4_nl of eight indices.
template <class A>
QUANTAL_INLINE void level_scales8(float row_scale, std::uint64_t indices, float* out) noexcept {
#if XSIMD_WITH_AVX2
  if constexpr (simd::bytes32<A>::parts == 1) {
    const __m128i table = _mm_loadu_si128(reinterpret_cast<const __m128i*>(level_codes<iq4_nl, 16>.data()));
    const __m128i index = _mm_cvtsi64_si128(static_cast<long long>(indices & simd::repeat8(15)));
    return simd::scale_bytes8<A>(
        row_scale, static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_shuffle_epi8(table, index))), 128, out);
  }
#endif
  std::uint64_t levels = 0;
  for (int g = 0; g < 8; ++g)
    levels |= static_cast<std::uint64_t>(level_codes<iq4_nl, 16>[indices >> (8 * g) & 15]) << (8 * g);
  simd::scale_bytes8<A>(row_scale, levels, 128, out);
}

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_scales(const iq1_kt&, const iq1_kt::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  detail::level_scales8<A>(row_scale, simd::load_word<std::uint64_t>(b.sh), s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq1_kt&, const iq1_kt::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  alignas(64) std::uint32_t seeds[32];
  for (int g = 0; g < 8; ++g)
    for (int t = 0; t < 4; ++t) {
      const int v = 4 * g + t;
      const unsigned high = b.qh.bytes[v % 16] >> (v / 16 * 4) & 15u;
      seeds[v] = 4096u + b.ql[v] + (high << 8) + ((b.sh[g] >> (4 + t) & 1u) << 12);
    }
  detail::trellis_bytes<A, 8, false>(seeds, codes);
}

template <class A>
QUANTAL_INLINE void block_scales(const iq2_kt&, const iq2_kt::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  detail::level_scales8<A>(row_scale, simd::split_nibbles(simd::load_word<std::uint32_t>(b.scales.bytes)), s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq2_kt&, const iq2_kt::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  alignas(64) std::uint32_t seeds[32];
  for (int v = 0; v < 32; ++v) seeds[v] = 4096u + simd::load_word<std::uint16_t>(b.ql + v);
  detail::trellis_bytes<A, 8, false>(seeds, codes);
}

template <class A>
QUANTAL_INLINE void block_codes(const iq3_kt&, const iq3_kt::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  alignas(64) std::uint32_t seeds[32];
  for (int v = 0; v < 32; ++v) seeds[v] = 4096u + simd::load_word<std::uint16_t>(b.ql + v);
  alignas(64) std::uint8_t sizes[256];
  detail::trellis_bytes<A, 8, true>(seeds, sizes);
  const auto signs = simd::bytes32<A>::load(b.qh.bytes);
  simd::unroll<8>([&](auto g) QUANTAL_LAMBDA {
    const auto negative = simd::bytes32<A>::all(0) - simd::field<g>(signs, 1);
    const auto size = simd::bytes32<A>::load(sizes + 32 * g);
    ((size ^ negative) - negative + simd::bytes32<A>::all(128)).store(codes + 32 * g);
  });
}

template <class A>
QUANTAL_INLINE void block_scales(const iq4_kt&, const iq4_kt::block& b, float row_scale, float* s, float*,
                                 const simd::on<A>&) noexcept {
  std::uint64_t fields = 0;
  for (int g = 0; g < 8; ++g) fields |= static_cast<std::uint64_t>(b.sh[g].bytes[0] >> 1) << (8 * g);
  simd::scale_bytes8<A>(row_scale, fields, 64, s);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_kt&, const iq4_kt::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  alignas(64) std::uint32_t seeds[64];
  for (int g = 0; g < 8; ++g) {
    const auto word = simd::load_word<std::uint32_t>(b.sh + g);
    for (int t = 0; t < 8; ++t) {
      const int v = 8 * g + t;
      const unsigned high = b.qh.bytes[v % 32] >> (v / 32 * 4) & 15u;
      seeds[v] = 4096u + b.ql[v] + (high << 8) + ((word >> (8 + 3 * t) & 7u) << 12) + ((word & 1u) << 15);
    }
  }
  detail::trellis_bytes<A, 4, false>(seeds, codes);
}

}  // namespace quantal::kernel
