// Weighted distances of a target from sixteen codes at a time: what the searches of grids and trellises spend
// their time on. Integers throughout, so that the same code wins on every arch.
//
// Components are bytes; a difference is taken in 1/256 of their unit, saturated at half the range of a byte,
// multiplied by the square root of its weight with rounding, and squared. Distances are good to about a
// thousandth of the distances that matter.
#pragma once

#include <array>
#include <cmath>
#include <cstdint>
#include <utility>

#include "quantal/format/detail/half.hpp"
#include "quantal/quantize/lanes.hpp"
#include "quantal/simd/arch.hpp"

namespace quantal::quantize {

/// Codes in a tile.
inline constexpr int tile_codes = 16;

/// Sixteen codes of n components, n a multiple of 4: per 4 components 64 bytes, in them per 4 codes 16 bytes:
/// components 0 and 1 of the four codes, then components 2 and 3.
template <int n>
struct code_tile {
  alignas(64) std::int8_t byte[std::size_t{n * tile_codes}];

  static constexpr int place(int code, int component) noexcept {
    return component / 4 * 64 + code / 4 * 16 + component % 4 / 2 * 8 + code % 4 * 2 + component % 2;
  }
  constexpr void set(int code, int component, int v) noexcept {
    byte[place(code, component)] = static_cast<std::int8_t>(v);
  }
  QUANTAL_INLINE void get(int code, std::int8_t* out) const noexcept {
    for (int k = 0; k < n; k += 2) __builtin_memcpy(out + k, byte + place(code, k), 2);
  }
};

/// Roots of weights are stored relative to this: squares of n <= 8 products stay within an int32.
inline constexpr float largest_root = 16383.0f;

/// v in 1/256, saturated.
QUANTAL_INLINE std::int16_t target_of(float v) noexcept {
  const float wide = 256.0f * v;
  const float clamped = wide < -32767.0f ? -32767.0f : wide > 32767.0f ? 32767.0f : wide;
  // Adding 1.5 * 2^23 rounds to nearest and leaves the integer in the low bits.
  return static_cast<std::int16_t>(quantal::detail::bits_from_float(clamped + 12582912.0f));
}

/// A pair of neighbouring components of a target, or of roots: two int16 in one word.
QUANTAL_INLINE std::int32_t pair_at(const std::int16_t* p) noexcept {
  std::int32_t v;
  __builtin_memcpy(&v, p, 4);
  return v;
}

namespace detail {

template <class A>
using i16_lanes = xsimd::batch<std::int16_t, A>;
template <class A>
using i32_lanes = xsimd::batch<std::int32_t, A>;

/// Bytes times 256: of every 16 bytes the first half into `low`, the second into `high`. Fallback.
template <class A>
QUANTAL_INLINE void widen_on(const std::int8_t* p, i16_lanes<A>& low, i16_lanes<A>& high,
                             const simd::base&) noexcept {
  constexpr int n = static_cast<int>(i16_lanes<A>::size);
  alignas(64) std::int16_t a[std::size_t{n}], b[std::size_t{n}];
  for (int i = 0; i < n; ++i) {
    a[i] = static_cast<std::int16_t>(256 * p[i / 8 * 16 + i % 8]);
    b[i] = static_cast<std::int16_t>(256 * p[i / 8 * 16 + 8 + i % 8]);
  }
  low = i16_lanes<A>::load_aligned(a), high = i16_lanes<A>::load_aligned(b);
}

/// sum + the squares of both halves of every word of (code - target) * root / 2^15, rounded. Fallback.
template <class A>
QUANTAL_INLINE i32_lanes<A> add_squares_on(i32_lanes<A> sum, i16_lanes<A> code, std::int32_t target,
                                           std::int32_t root, const simd::base&) noexcept {
  constexpr int n = static_cast<int>(i16_lanes<A>::size);
  alignas(64) std::int16_t c[std::size_t{n}];
  alignas(64) std::int32_t s[std::size_t{n / 2}];
  code.store_aligned(c);
  sum.store_aligned(s);
  const std::int16_t t[2] = {static_cast<std::int16_t>(target), static_cast<std::int16_t>(target >> 16)};
  const std::int16_t r[2] = {static_cast<std::int16_t>(root), static_cast<std::int16_t>(root >> 16)};
  for (int i = 0; i < n; ++i) {
    int d = c[i] - t[i % 2];
    d = d < -32768 ? -32768 : d > 32767 ? 32767 : d;
    const int e = (d * r[i % 2] + 16384) >> 15;
    s[i / 2] += e * e;
  }
  return i32_lanes<A>::load_aligned(s);
}

#if XSIMD_WITH_SSE2
template <class A>
QUANTAL_INLINE void widen_on(const std::int8_t* p, i16_lanes<A>& low, i16_lanes<A>& high,
                             const xsimd::sse2&) noexcept {
  const __m128i zero = _mm_setzero_si128(), v = _mm_load_si128(reinterpret_cast<const __m128i*>(p));
  low = _mm_unpacklo_epi8(zero, v), high = _mm_unpackhi_epi8(zero, v);
}
/// The rounding product from its two halves.
template <class A>
QUANTAL_INLINE i32_lanes<A> add_squares_on(i32_lanes<A> sum, i16_lanes<A> code, std::int32_t target,
                                           std::int32_t root, const xsimd::sse2&) noexcept {
  const __m128i d = _mm_subs_epi16(code, _mm_set1_epi32(target)), r = _mm_set1_epi32(root);
  const __m128i low = _mm_srli_epi16(_mm_mullo_epi16(d, r), 14),
                high = _mm_slli_epi16(_mm_mulhi_epi16(d, r), 1);
  const __m128i e = _mm_add_epi16(high, _mm_srli_epi16(_mm_add_epi16(low, _mm_set1_epi16(1)), 1));
  return _mm_add_epi32(sum, _mm_madd_epi16(e, e));
}
#endif

#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE void widen_on(const std::int8_t* p, i16_lanes<A>& low, i16_lanes<A>& high,
                             const xsimd::avx2&) noexcept {
  const __m256i zero = _mm256_setzero_si256(), v = _mm256_load_si256(reinterpret_cast<const __m256i*>(p));
  low = _mm256_unpacklo_epi8(zero, v), high = _mm256_unpackhi_epi8(zero, v);
}
template <class A>
QUANTAL_INLINE i32_lanes<A> add_squares_on(i32_lanes<A> sum, i16_lanes<A> code, std::int32_t target,
                                           std::int32_t root, const xsimd::avx2&) noexcept {
  const __m256i d = _mm256_subs_epi16(code, _mm256_set1_epi32(target));
  const __m256i e = _mm256_mulhrs_epi16(d, _mm256_set1_epi32(root));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(e, e));
}
#endif

#if XSIMD_WITH_AVX512BW
template <class A>
QUANTAL_INLINE void widen_on(const std::int8_t* p, i16_lanes<A>& low, i16_lanes<A>& high,
                             const xsimd::avx512bw&) noexcept {
  const __m512i zero = _mm512_setzero_si512(), v = _mm512_load_si512(p);
  low = _mm512_unpacklo_epi8(zero, v), high = _mm512_unpackhi_epi8(zero, v);
}
template <class A>
QUANTAL_INLINE i32_lanes<A> add_squares_on(i32_lanes<A> sum, i16_lanes<A> code, std::int32_t target,
                                           std::int32_t root, const xsimd::avx512bw&) noexcept {
  const __m512i d = _mm512_subs_epi16(code, _mm512_set1_epi32(target));
  const __m512i e = _mm512_mulhrs_epi16(d, _mm512_set1_epi32(root));
  return _mm512_add_epi32(sum, _mm512_madd_epi16(e, e));
}
#endif

#if QUANTAL_WITH_AVX512_VNNI
template <class A>
QUANTAL_INLINE i32_lanes<A> add_squares_on(i32_lanes<A> sum, i16_lanes<A> code, std::int32_t target,
                                           std::int32_t root, const simd::on<simd::avx512_vnni>&) noexcept {
  const __m512i d = _mm512_subs_epi16(code, _mm512_set1_epi32(target));
  const __m512i e = _mm512_mulhrs_epi16(d, _mm512_set1_epi32(root));
  return _mm512_dpwssd_epi32(sum, e, e);
}
#endif

#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE void widen_on(const std::int8_t* p, i16_lanes<A>& low, i16_lanes<A>& high,
                             const xsimd::neon64&) noexcept {
  const int8x16_t zero = vdupq_n_s8(0), v = vld1q_s8(p);
  low = vreinterpretq_s16_s8(vzip1q_s8(zero, v)), high = vreinterpretq_s16_s8(vzip2q_s8(zero, v));
}
template <class A>
QUANTAL_INLINE i32_lanes<A> add_squares_on(i32_lanes<A> sum, i16_lanes<A> code, std::int32_t target,
                                           std::int32_t root, const xsimd::neon64&) noexcept {
  const int16x8_t d = vqsubq_s16(code, vreinterpretq_s16_s32(vdupq_n_s32(target)));
  const int16x8_t e = vqrdmulhq_s16(d, vreinterpretq_s16_s32(vdupq_n_s32(root)));
  return i32_lanes<A>(
      vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(e), vget_low_s16(e)), vmull_high_s16(e, e))));
}
#endif

}  // namespace detail

/// Sixteen distances in registers of arch A.
template <class A>
struct tile_distances {
  using batch = xsimd::batch<std::int32_t, A>;
  static constexpr int width = static_cast<int>(batch::size), registers = tile_codes / width;
  batch part[std::size_t{registers}];
};

/// Distances of the codes of a tile from `target` (target_of) under roots of weights (at most largest_root).
template <class A, int n>
QUANTAL_INLINE tile_distances<A> distances(const code_tile<n>& tile, const std::int16_t* target,
                                           const std::int16_t* root) noexcept {
  static_assert(n % 4 == 0 && n <= 8);
  tile_distances<A> out;
  for (int r = 0; r < out.registers; ++r) {
    typename tile_distances<A>::batch sum(0);
    for (int k = 0; k < n; k += 4) {
      detail::i16_lanes<A> low, high;
      detail::widen_on<A>(tile.byte + 16 * k + 4 * out.width * r, low, high, simd::on<A>{});
      sum = detail::add_squares_on<A>(sum, low, pair_at(target + k), pair_at(root + k), simd::on<A>{});
      sum =
          detail::add_squares_on<A>(sum, high, pair_at(target + k + 2), pair_at(root + k + 2), simd::on<A>{});
    }
    out.part[r] = sum;
  }
  return out;
}

/// The same under the one change of sign of a target component that costs each code least.
template <class A, int n>
QUANTAL_INLINE tile_distances<A> flipped_distances(const code_tile<n>& tile, const std::int16_t* target,
                                                   const std::int16_t* root) noexcept {
  using batch = typename tile_distances<A>::batch;
  const simd::on<A> on{};
  tile_distances<A> out;
  for (int r = 0; r < out.registers; ++r) {
    batch sum(0), extra(0x3fffffff);
    const auto add = [&](detail::i16_lanes<A> code, int k) QUANTAL_LAMBDA {
      const std::uint32_t t = static_cast<std::uint32_t>(pair_at(target + k));
      const std::uint32_t low = ((0u - t) & 0xffffu) | (t & 0xffff0000u),
                          high = (t & 0xffffu) | (0u - (t & 0xffff0000u));
      const std::int32_t roots = pair_at(root + k);
      const auto under = [&](std::uint32_t pair) QUANTAL_LAMBDA {
        return detail::add_squares_on<A>(batch(0), code, static_cast<std::int32_t>(pair), roots, on);
      };
      const batch natural = under(t);
      sum += natural;
      extra = xsimd::min(extra, xsimd::min(under(low), under(high)) - natural);
    };
    for (int k = 0; k < n; k += 4) {
      detail::i16_lanes<A> low, high;
      detail::widen_on<A>(tile.byte + 16 * k + 4 * out.width * r, low, high, on);
      add(low, k);
      add(high, k + 2);
    }
    out.part[r] = sum + extra;
  }
  return out;
}

/// The least of sixteen distances, without its lowest four bits, and which code has it.
struct nearest_code {
  std::int32_t distance;
  int code;
};
template <class A>
QUANTAL_INLINE nearest_code nearest_of(const tile_distances<A>& d) noexcept {
  using batch = typename tile_distances<A>::batch;
  alignas(64) static constexpr std::int32_t numbers[tile_codes] = {0, 1, 2,  3,  4,  5,  6,  7,
                                                                   8, 9, 10, 11, 12, 13, 14, 15};
  batch least(0x7fffffff);
  for (int r = 0; r < d.registers; ++r)
    least = xsimd::min(least, (d.part[r] & batch(~15)) | batch::load_aligned(numbers + r * d.width));
  const std::int32_t best = xsimd::reduce_min(least);
  return {best & ~15, best & 15};
}

/// The nearest code of several tiles.
template <class A>
class nearest_tracker {
 public:
  QUANTAL_INLINE nearest_tracker() noexcept {
    for (int r = 0; r < registers; ++r) least_[r] = batch(0x7fffffff), at_[r] = batch(0);
  }
  QUANTAL_INLINE void add(const tile_distances<A>& d, int tile) noexcept {
    for (int r = 0; r < d.registers; ++r) {
      const auto nearer = d.part[r] < least_[r];
      least_[r] = xsimd::select(nearer, d.part[r], least_[r]);
      at_[r] = xsimd::select(nearer, batch(tile), at_[r]);
    }
  }
  QUANTAL_INLINE std::int32_t least() const noexcept {
    batch all = least_[0];
    for (int r = 1; r < registers; ++r) all = xsimd::min(all, least_[r]);
    return xsimd::reduce_min(all);
  }
  /// `code` counts through the tiles.
  QUANTAL_INLINE nearest_code result() const noexcept {
    tile_distances<A> d;
    for (int r = 0; r < d.registers; ++r) d.part[r] = least_[r];
    const nearest_code best = nearest_of(d);
    alignas(64) std::int32_t at[tile_codes];
    for (int r = 0; r < d.registers; ++r) at_[r].store_aligned(at + r * d.width);
    return {best.distance, at[best.code] * tile_codes + best.code};
  }
  /// The nearest of every place in the tiles: the nearest of all, and most of the next.
  QUANTAL_INLINE void shortlist(int* code) const noexcept {
    alignas(64) std::int32_t at[tile_codes];
    for (int r = 0; r < registers; ++r) at_[r].store_aligned(at + r * tile_distances<A>::width);
    for (int c = 0; c < tile_codes; ++c) code[c] = at[c] * tile_codes + c;
  }

 private:
  using batch = typename tile_distances<A>::batch;
  static constexpr int registers = tile_distances<A>::registers;
  batch least_[std::size_t{registers}], at_[std::size_t{registers}];
};

/// What the chosen codes q of a group add up to: sum w x q and sum w q q. At scale s they leave sum w x x +
/// error(s).
struct code_sums {
  float xq = 0.0f, qq = 0.0f;
  QUANTAL_INLINE float error(float s) const noexcept { return mul(s, mul(s, qq) - mul(2.0f, xq)); }
};

/// Sums in sixteen lanes that are added up in one order on every arch.
template <class F, int n>
QUANTAL_INLINE code_sums sums_of(const float* x, const float* w, const std::int8_t* code) noexcept {
  using batch = lanes<F>;
  constexpr int width = static_cast<int>(batch::size), registers = lane_count / width;
  batch xq[std::size_t{registers}], qq[std::size_t{registers}];
  for (int r = 0; r < registers; ++r) xq[r] = qq[r] = batch(0.0f);
  for (int e = 0; e < n; e += lane_count) {
    alignas(64) float codes[lane_count];
    for (int l = 0; l < lane_count; ++l) codes[l] = static_cast<float>(code[e + l]);
    for (int r = 0; r < registers; ++r) {
      const int at = e + r * width;
      const batch q = batch::load_aligned(codes + r * width), wq = batch::load_unaligned(w + at) * q;
      xq[r] += wq * batch::load_unaligned(x + at);
      qq[r] += wq * q;
    }
  }
  alignas(64) float sums[2][lane_count];
  for (int r = 0; r < registers; ++r)
    xq[r].store_aligned(sums[0] + r * width), qq[r].store_aligned(sums[1] + r * width);
  for (int h = lane_count / 2; h > 0; h /= 2)
    for (int l = 0; l < h; ++l) sums[0][l] += sums[0][l + h], sums[1][l] += sums[1][l + h];
  return {sums[0][0], sums[1][0]};
}

}  // namespace quantal::quantize
