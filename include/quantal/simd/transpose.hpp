// Sixteen rows of 32-bit values to columns: what turns decoded rows into a panel with one row per lane.
#pragma once

#include <cstdint>

#include "quantal/simd/arch.hpp"

namespace quantal::simd {

/// out[16 * place(c) + r] = in[r * in_stride + c] for 16 rows and `cols` columns. `in` and `out` are 64-byte
/// aligned, in_stride is a multiple of 16, and rows may be read up to the next multiple of 16 columns.
template <class A, class Place>
QUANTAL_INLINE void transpose16_on(const std::uint32_t* in, int in_stride, int cols, std::uint32_t* out,
                                   Place place, const base&) noexcept {
  for (int c = 0; c < cols; ++c)
    for (int r = 0; r < 16; ++r) out[16 * place(c) + r] = in[r * in_stride + c];
}

#if XSIMD_WITH_AVX2
/// 8 x 8 tiles.
template <class A, class Place>
QUANTAL_INLINE void transpose16_on(const std::uint32_t* in, int in_stride, int cols, std::uint32_t* out,
                                   Place place, const xsimd::avx2&) noexcept {
  int c = 0;
  for (; c + 8 <= cols; c += 8)
    for (int half = 0; half < 16; half += 8) {
      __m256i a[8], b[8];
      for (int r = 0; r < 8; ++r)
        a[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + (half + r) * in_stride + c));
      for (int r = 0; r < 8; r += 2) {
        b[r] = _mm256_unpacklo_epi32(a[r], a[r + 1]);
        b[r + 1] = _mm256_unpackhi_epi32(a[r], a[r + 1]);
      }
      for (int q = 0; q < 8; q += 4)
        for (int r = 0; r < 2; ++r) {
          a[q + 2 * r] = _mm256_unpacklo_epi64(b[q + r], b[q + r + 2]);
          a[q + 2 * r + 1] = _mm256_unpackhi_epi64(b[q + r], b[q + r + 2]);
        }
      for (int r = 0; r < 4; ++r) {
        b[r] = _mm256_permute2x128_si256(a[r], a[r + 4], 0x20);
        b[r + 4] = _mm256_permute2x128_si256(a[r], a[r + 4], 0x31);
      }
      for (int r = 0; r < 8; ++r)
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + 16 * place(c + r) + half), b[r]);
    }
  for (; c < cols; ++c)
    for (int r = 0; r < 16; ++r) out[16 * place(c) + r] = in[r * in_stride + c];
}
#endif

#if XSIMD_WITH_AVX512F
/// 16 x 16 tiles in registers.
template <class A, class Place>
QUANTAL_INLINE void transpose16_on(const std::uint32_t* in, int in_stride, int cols, std::uint32_t* out,
                                   Place place, const xsimd::avx512f&) noexcept {
  for (int c = 0; c < cols; c += 16) {
    __m512i a[16], b[16];
    for (int r = 0; r < 16; ++r) a[r] = _mm512_load_si512(in + r * in_stride + c);
    for (int r = 0; r < 16; r += 2) {
      b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
      b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
    }
    for (int q = 0; q < 16; q += 4)
      for (int r = 0; r < 2; ++r) {
        a[q + 2 * r] = _mm512_unpacklo_epi64(b[q + r], b[q + r + 2]);
        a[q + 2 * r + 1] = _mm512_unpackhi_epi64(b[q + r], b[q + r + 2]);
      }
    // a[4q + j] holds column j of rows 4q .. 4q + 3 in each 128-bit lane (lane l: column 4l + j).
    for (int j = 0; j < 4; ++j) {
      b[j] = _mm512_shuffle_i32x4(a[j], a[4 + j], 0x88);
      b[4 + j] = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0x88);
      b[8 + j] = _mm512_shuffle_i32x4(a[j], a[4 + j], 0xdd);
      b[12 + j] = _mm512_shuffle_i32x4(a[8 + j], a[12 + j], 0xdd);
    }
    for (int j = 0; j < 4; ++j) {
      a[j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0x88);
      a[8 + j] = _mm512_shuffle_i32x4(b[j], b[4 + j], 0xdd);
      a[4 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0x88);
      a[12 + j] = _mm512_shuffle_i32x4(b[8 + j], b[12 + j], 0xdd);
    }
    for (int r = 0; r < 16 && c + r < cols; ++r) _mm512_store_si512(out + 16 * place(c + r), a[r]);
  }
}
#endif

template <class A, class Place>
QUANTAL_INLINE void transpose16(const std::uint32_t* in, int in_stride, int cols, std::uint32_t* out,
                                Place place) noexcept {
  transpose16_on<A>(in, in_stride, cols, out, place, on<A>{});
}
/// Columns in their order. A function of its own: its callers are many, and the call is nothing beside its work.
template <class A>
void transpose16(const std::uint32_t* in, int in_stride, int cols, std::uint32_t* out) noexcept {
  transpose16<A>(in, in_stride, cols, out, [](int c) QUANTAL_LAMBDA { return c; });
}

}  // namespace quantal::simd
