// One scale for 32 weights and codes -127..127: sixteen scales at once in 16-bit integers.
//
// With so many levels a scale decides little but how the fractions of x / d fall. Scales from the smallest
// that clips nothing upwards are tried: x / d in 1/256 comes from one rounding product, its low byte is the
// fraction that rounding drops. Some blocks go through each step together, so that none waits for the
// latencies of another.
#pragma once

#include "quantal/quantize/code_tiles.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/quantize/simple_block.hpp"

namespace quantal::quantize {

namespace detail {

/// sum + both halves of every word of f * (f * weight / 2^15), where f = fraction(x * factor / 2^15),
/// products are rounded and a fraction is the low byte as a signed number, times 256. `x` and `weight` are
/// pairs, `factor` is per word. Fallback.
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t weight, const simd::base&) noexcept {
  constexpr int n = static_cast<int>(i16_lanes<A>::size);
  alignas(64) std::int16_t f[std::size_t{n}];
  alignas(64) std::int32_t s[std::size_t{n / 2}];
  factor.store_aligned(f);
  sum.store_aligned(s);
  const std::int16_t v[2] = {static_cast<std::int16_t>(x), static_cast<std::int16_t>(x >> 16)};
  const std::int16_t w[2] = {static_cast<std::int16_t>(weight), static_cast<std::int16_t>(weight >> 16)};
  for (int i = 0; i < n; ++i) {
    const int product = (v[i % 2] * f[i] + 16384) >> 15;
    const int fraction = static_cast<std::int16_t>(static_cast<std::uint16_t>(product) << 8);
    s[i / 2] += fraction * ((fraction * w[i % 2] + 16384) >> 15);
  }
  return i32_lanes<A>::load_aligned(s);
}

#if XSIMD_WITH_SSE2
/// (a * b + 2^14) >> 15 from the two halves of the product.
QUANTAL_INLINE __m128i rounding_product(__m128i a, __m128i b) noexcept {
  const __m128i low = _mm_srli_epi16(_mm_mullo_epi16(a, b), 14),
                high = _mm_slli_epi16(_mm_mulhi_epi16(a, b), 1);
  // The two bits above the rounding one; the upper of them belongs to `high` too.
  return _mm_add_epi16(high, _mm_srli_epi16(_mm_add_epi16(low, _mm_set1_epi16(1)), 1));
}
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t weight, const xsimd::sse2&) noexcept {
  const __m128i f = _mm_slli_epi16(rounding_product(_mm_set1_epi32(x), factor), 8);
  const __m128i e = rounding_product(f, _mm_set1_epi32(weight));
  return _mm_add_epi32(sum, _mm_madd_epi16(e, f));
}
#endif

#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t weight, const xsimd::avx2&) noexcept {
  const __m256i f = _mm256_slli_epi16(_mm256_mulhrs_epi16(_mm256_set1_epi32(x), factor), 8);
  const __m256i e = _mm256_mulhrs_epi16(f, _mm256_set1_epi32(weight));
  return _mm256_add_epi32(sum, _mm256_madd_epi16(e, f));
}
#endif

#if XSIMD_WITH_AVX512BW
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t weight, const xsimd::avx512bw&) noexcept {
  const __m512i f = _mm512_slli_epi16(_mm512_mulhrs_epi16(_mm512_set1_epi32(x), factor), 8);
  const __m512i e = _mm512_mulhrs_epi16(f, _mm512_set1_epi32(weight));
  return _mm512_add_epi32(sum, _mm512_madd_epi16(e, f));
}
#endif

#if QUANTAL_WITH_AVX512_VNNI
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t weight,
                                             const simd::on<simd::avx512_vnni>&) noexcept {
  const __m512i f = _mm512_slli_epi16(_mm512_mulhrs_epi16(_mm512_set1_epi32(x), factor), 8);
  const __m512i e = _mm512_mulhrs_epi16(f, _mm512_set1_epi32(weight));
  return _mm512_dpwssd_epi32(sum, e, f);
}
#endif

#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE i32_lanes<A> add_fractions_on(i32_lanes<A> sum, std::int32_t x, i16_lanes<A> factor,
                                             std::int32_t weight, const xsimd::neon64&) noexcept {
  const int16x8_t f = vshlq_n_s16(vqrdmulhq_s16(vreinterpretq_s16_s32(vdupq_n_s32(x)), factor), 8);
  const int16x8_t e = vqrdmulhq_s16(f, vreinterpretq_s16_s32(vdupq_n_s32(weight)));
  return i32_lanes<A>(
      vaddq_s32(sum, vpaddq_s32(vmull_s16(vget_low_s16(e), vget_low_s16(f)), vmull_high_s16(e, f))));
}
#endif

}  // namespace detail

/// Codes of a byte, all of them.
template <class F>
concept byte_codes = uniform_codes<F> && codebook<F>::size == 255 && F::layout.group == 32;

namespace detail {

/// Some neighbouring blocks on their way to codes.
template <byte_codes F>
struct byte_blocks {
  static constexpr int most = 8, n = F::layout.group;
  using batch = lanes<F>;
  static constexpr int width = static_cast<int>(batch::size);
  /// The heaviest weight of a block: sums over a block stay within an int32.
  static constexpr float heaviest_weight = 1023.0f;

  int count;
  float largest[most], heaviest[most];  ///< |x| and importance
  alignas(64) float scale[most][lane_count];
  alignas(64) float inverse[most][lane_count];
  alignas(64) std::int32_t factor[most][lane_count];  ///< of the first scale over each, twice in a word
  alignas(64) std::int16_t x[most][std::size_t{n}];   ///< under the first scale, in 1/256
  alignas(64) std::int16_t weight[most][std::size_t{n}];

  /// `w` may be null.
  QUANTAL_INLINE void measure(const float* from, const float* w) noexcept {
    for (int b = 0; b < count; ++b) {
      largest[b] = largest_magnitude_of<F, n>(from + b * n);
      heaviest[b] = w ? largest_magnitude_of<F, n>(w + b * n) : 0.0f;
    }
  }

  /// Scales as blocks store them, from the largest weight / 127 up to a tenth more.
  QUANTAL_INLINE void set_scales() noexcept {
    static constexpr factors steps = factor_list();
    for (int b = 0; b < count; ++b) {
      const batch unit(largest[b] < 1e-30f ? 0.0f : largest[b] * (1.0f / 127));
      batch first(0.0f);  // set in the first round
      for (int k = 0; k < lane_count; k += width) {
        batch d = unit * batch::load_aligned(steps.at + k);
        if constexpr (sizeof(F::block::d) == 2) d = stored_half(d);
        const auto zero = d < batch(1e-30f);
        const batch t = xsimd::select(zero, batch(0.0f), batch(1.0f) / xsimd::select(zero, batch(1.0f), d));
        d.store_aligned(scale[b] + k);
        t.store_aligned(inverse[b] + k);
        if (k == 0) first = batch(32768.0f * scale[b][0]);
        const auto f = xsimd::to_int(xsimd::min(first * t, batch(32767.0f)));
        (f | f << 16).store_aligned(factor[b] + k);
      }
    }
  }

  /// Blocks without importance weigh all alike.
  QUANTAL_INLINE void set_weights(const float* from, const float* w) noexcept {
    for (int b = 0; b < count; ++b) {
      const batch unit(256.0f * inverse[b][0]), end(32767.0f);
      store_words(x[b], [&](int i) QUANTAL_LAMBDA {
        return xsimd::min(xsimd::max(batch::load_unaligned(from + b * n + i) * unit, -end), end);
      });
      const bool weighted = heaviest[b] > 1e-30f;
      const batch share(weighted ? heaviest_weight / heaviest[b] : 0.0f);
      if (weighted)
        store_words(weight[b],
                    [&](int i) QUANTAL_LAMBDA { return batch::load_unaligned(w + b * n + i) * share; });
      else
        store_words(weight[b], [&](int) QUANTAL_LAMBDA { return batch(heaviest_weight); });
    }
  }

  /// The scale of least error.
  QUANTAL_INLINE int best_scale(int b) const noexcept {
    using arch = typename lanes<F>::arch_type;
    using integers = xsimd::batch<std::int32_t, arch>;
    constexpr int registers = lane_count / width;
    // Rounding may have lowered the first scale to zero; then there is nothing to choose.
    if (!(scale[b][0] > 0.0f)) return lane_count - 1;
    integers even[std::size_t{registers}], odd[std::size_t{registers}];
    for (int r = 0; r < registers; ++r) even[r] = odd[r] = integers(0);
    for (int i = 0; i < n; i += 4)
      simd::unroll<registers>([&](int r) QUANTAL_LAMBDA {
        const auto f = xsimd::bitwise_cast<std::int16_t>(integers::load_aligned(factor[b] + r * width));
        const simd::on<arch> on{};
        even[r] = add_fractions_on<arch>(even[r], pair_at(x[b] + i), f, pair_at(weight[b] + i), on);
        odd[r] = add_fractions_on<arch>(odd[r], pair_at(x[b] + i + 2), f, pair_at(weight[b] + i + 2), on);
      });
    alignas(64) float error[lane_count];
    for (int r = 0; r < registers; ++r) {
      const batch s = batch::load_aligned(scale[b] + r * width);
      (xsimd::to_float(even[r] + odd[r]) * s * s).store_aligned(error + r * width);
    }
    return smallest<F, lane_count>(error);
  }

 private:
  struct factors {
    alignas(64) float at[lane_count];
  };
  static constexpr factors factor_list() noexcept {
    factors f{};
    for (int k = 0; k < lane_count; ++k) f.at[k] = 1.0f + 0.1f / (lane_count - 1) * static_cast<float>(k);
    return f;
  }
  /// value(i) .. of n weights, rounded.
  template <class Value>
  static QUANTAL_INLINE void store_words(std::int16_t* out, Value&& value) noexcept {
    alignas(64) std::int32_t word[std::size_t{n}];
    for (int i = 0; i < n; i += width)
      xsimd::bitwise_cast<std::int32_t>(value(i) + batch(12582912.0f)).store_aligned(word + i);
    for (int i = 0; i < n; ++i) out[i] = static_cast<std::int16_t>(word[i]);
  }
};

}  // namespace detail

/// The best of sixteen scales for every block; of blocks whose scales are coarse halves the best of those.
template <byte_codes F>
void encode_byte_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  using coder = group_coder<F>;
  constexpr int n = F::layout.group;
  const float* importance = row.largest_importance > 1e-30f ? row.importance : nullptr;
  auto* blocks = row_blocks<F>(out);
  detail::byte_blocks<F> some;
  row_state state;
  for (std::int64_t first = 0; first < row.cols; first += some.most * n) {
    const float* x = row.x + first;
    const float* w = importance ? importance + first : nullptr;
    some.count = static_cast<int>(std::min<std::int64_t>(some.most, (row.cols - first) / n));
    some.measure(x, w);
    some.set_scales();
    some.set_weights(x, w);
    for (int b = 0; b < some.count; ++b) {
      auto& block = blocks[first / n + b];
      block = typename F::block{};
      if (some.largest[b] < 127 * coarse_half) {
        alignas(64) float clamped[std::size_t{n}], weight[std::size_t{n}];
        load_block<F, n>(row, first + b * n, p, clamped, weight);
        encode_block<F>(clamped, weight, p, state, block);
        continue;
      }
      const int best = some.best_scale(b);
      F::set_scale(block, some.scale[b][best]);
      coder::store(block, 0, {x + b * n, nullptr, nullptr}, some.inverse[b][best], 0);
      detail::store_sums<F>(block);
    }
  }
}

}  // namespace quantal::quantize
