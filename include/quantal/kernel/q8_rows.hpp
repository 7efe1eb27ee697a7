// Policy `q8`, few columns: rows are decoded a run of slices at a time and dotted along the row with up to
// four columns; bound by decoding and by the memory that the weights come from.
#pragma once

#include "quantal/kernel/q8_activations.hpp"
#include "quantal/kernel/slice.hpp"

namespace quantal::kernel {

/// What a row's dot product reads of one column, at the start of a slice.
struct coded_column {
  const std::int8_t* codes;
  const float *scales, *shifts;
};

/// Per-lane scales of the register of codes that starts at weight k: lane l holds weights k + 4l .. k + 4l
/// + 3.
template <class A, int sub>
QUANTAL_INLINE xsimd::batch<float, A> lane_scales(const float* scales, int k) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int step = 4 * static_cast<int>(batch::size);
  if constexpr (step <= sub) {
    return batch(scales[k / sub]);
  } else {
#if XSIMD_WITH_AVX512F
    if constexpr (step == 64) {
      // Loads that lie within one earlier store: 8 scales, or an aligned quarter of 16.
      if constexpr (sub == 16)
        return _mm512_permutexvar_ps(_mm512_set_epi32(3, 3, 3, 3, 2, 2, 2, 2, 1, 1, 1, 1, 0, 0, 0, 0),
                                     _mm512_castps128_ps512(_mm_load_ps(scales + k / sub)));
      else
        return _mm512_permutexvar_ps(
            _mm512_add_epi32(_mm512_set1_epi32(k / sub),
                             _mm512_set_epi32(1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0)),
            _mm512_castps256_ps512(_mm256_load_ps(scales)));
    }
#endif
    alignas(64) float wide[batch::size];
    for (int l = 0; l < step / 4; ++l) wide[l] = scales[(k + 4 * l) / sub];
    return batch::load_aligned(wide);
  }
}

/// What the sums of corrections accumulate in: at most eight lanes, since a slice has 8 or 16 of them.
#if XSIMD_WITH_AVX2
template <class A>
using correction_batch =
    xsimd::batch<float, std::conditional_t<std::is_same_v<A, simd::scalar>, A, simd::avx2>>;
#else
template <class A>
using correction_batch = xsimd::batch<float, A>;
#endif

/// Sums of one row with N columns.
template <class A, code_form form, int N>
struct row_sums {
  using batch = xsimd::batch<float, A>;
  using narrow = correction_batch<A>;
  static constexpr int step = 4 * static_cast<int>(batch::size), lanes = static_cast<int>(narrow::size),
                       subs = slice_weights / form.sub;
  static constexpr bool corrected = form.offset || form.biased;

  batch total[N];   ///< products of codes
  narrow shift[N];  ///< offsets and biases
  float tail[N];    ///< the end of the row that is less than a slice

  QUANTAL_INLINE row_sums() noexcept {
    simd::unroll<N>([&](auto c) QUANTAL_LAMBDA {
      total[c] = batch(0.0f);
      shift[c] = narrow(0.0f);
      tail[c] = 0.0f;
    });
  }

  /// What the sum of the activations of scale g is multiplied by.
  static QUANTAL_INLINE float correction(const coded_slice& s, int g, float bias) noexcept {
    return (form.offset ? s.offsets[g] : 0.0f) - (form.biased ? bias * s.scales[g] : 0.0f);
  }

  QUANTAL_INLINE void add_slice(const coded_slice& s, float bias, const coded_column* x) noexcept {
    simd::unroll<slice_weights / q8_block>([&](auto h) QUANTAL_LAMBDA {
      batch part[N];
      simd::unroll<q8_block / step>([&](auto i) QUANTAL_LAMBDA {
        const int k = h * q8_block + step * i;
        const auto codes = simd::u8<A>::load_aligned(s.codes + k);
        const batch scale = lane_scales<A, form.sub>(s.scales, k);
        simd::unroll<N>([&](auto c) QUANTAL_LAMBDA {
          const batch dot = xsimd::to_float(simd::dot4_of<A, form.kind>(
              simd::i32<A>(0), codes, simd::s8<A>::load_unaligned(x[c].codes + k)));
          part[c] = i == 0 ? dot * scale : xsimd::fma(dot, scale, part[c]);
        });
      });
      simd::unroll<N>(
          [&](auto c) QUANTAL_LAMBDA { total[c] = xsimd::fma(part[c], batch(x[c].scales[h]), total[c]); });
    });
    if constexpr (corrected && subs >= lanes) {
      simd::unroll<subs / lanes>([&](auto i) QUANTAL_LAMBDA {
        narrow v(0.0f);
        if constexpr (form.biased) v = narrow::load_aligned(s.scales + i * lanes) * narrow(-bias);
        if constexpr (form.offset) v += narrow::load_aligned(s.offsets + i * lanes);
        simd::unroll<N>([&](auto c) QUANTAL_LAMBDA {
          shift[c] = xsimd::fma(v, narrow::load_unaligned(x[c].shifts + i * lanes), shift[c]);
        });
      });
    } else if constexpr (corrected) {
      for (int g = 0; g < subs; ++g)
        for (int c = 0; c < N; ++c) tail[c] += correction(s, g, bias) * x[c].shifts[g];
    }
  }

  /// Less than a slice, perhaps less than a register.
  QUANTAL_INLINE void add_tail(const coded_slice& s, float bias, int count, const coded_column* x) noexcept {
    constexpr int zero = form.kind == simd::code_kind::s8 ? 128 : 0;
    for (int c = 0; c < N; ++c)
      for (int g = 0; g < count / form.sub; ++g) {
        int dot = 0;
        for (int k = g * form.sub; k < (g + 1) * form.sub; ++k) dot += (s.codes[k] - zero) * x[c].codes[k];
        tail[c] += static_cast<float>(dot) * (s.scales[g] * x[c].scales[g * form.sub / q8_block]);
        if constexpr (corrected) tail[c] += correction(s, g, bias) * x[c].shifts[g];
      }
  }

  QUANTAL_INLINE float sum(int c) const noexcept {
    return xsimd::reduce_add(total[c]) + xsimd::reduce_add(shift[c]) + tail[c];
  }
};

/// Slices decoded ahead of their use: enough for their stores to have reached the cache.
inline constexpr int run_slices = 4;

/// Bytes of weights asked for ahead of their use where four columns keep the core busy; fewer leave it to the
/// hardware.
inline constexpr std::int64_t prefetch_distance = 2048;

/// Rows times columns [at, at + N). A column past the last is the last once more: three columns cost no more
/// than four.
template <class A, code_form form, int N>
void dot_rows(code_decoder decode, int bias, const weight_rows& w, const q8_rows& x, const columns& cols,
              int at) noexcept {
  coded_slice run[run_slices];
  coded_column column[N];
  float* out[N];
  for (int c = 0; c < N; ++c) {
    const std::int64_t last = cols.n - 1, here = at + c < last ? at + c : last, i = cols.activation_row(here);
    column[c] = {x.codes(i), x.scales(i), x.shifts(i)};
    out[c] = cols.result(here) + w.first;
  }
  [[maybe_unused]] const std::int64_t run_bytes = w.bytes_of(run_slices * slice_weights);
  [[maybe_unused]] const std::byte* const end = w.row(w.count - 1) + w.stride;
  for (int r = 0; r < w.count; ++r) {
    row_sums<A, form, N> sums;
    for (std::int64_t first = 0, done = 0; first < w.cols;
         first += run_slices * slice_weights, done += run_bytes) {
      const std::int64_t left = w.cols - first;
      const int count =
          static_cast<int>(left < run_slices * slice_weights ? left : run_slices * slice_weights);
      decode(w.row(r), first, count, run);
      if constexpr (N >= 4) prefetch(w.row(r) + done, prefetch_distance, run_bytes, end);
      for (int from = 0; from < count; from += slice_weights) {
        coded_column here[N];
        for (int c = 0; c < N; ++c)
          here[c] = {column[c].codes + first + from, column[c].scales + (first + from) / q8_block,
                     column[c].shifts + (first + from) / form.sub};
        const coded_slice& s = run[from / slice_weights];
        // Emulated registers would only slow the compiler down: the scalar arch takes the plain loop.
        if constexpr (std::is_same_v<A, simd::scalar>)
          sums.add_tail(s, static_cast<float>(bias),
                        count - from < slice_weights ? count - from : slice_weights, here);
        else if (count - from >= slice_weights)
          sums.add_slice(s, static_cast<float>(bias), here);
        else
          sums.add_tail(s, static_cast<float>(bias), count - from, here);
      }
    }
    for (int c = 0; c < N; ++c) out[c][r] = sums.sum(c);
  }
}

/// Fewer than panel_columns columns, at most four at a time.
template <class A, code_form form>
void coded_rows(code_decoder decode, int bias, const weight_rows& w, const q8_rows& x,
                const columns& cols) noexcept {
  int at = 0;
  for (; at + 3 <= cols.n; at += 4) dot_rows<A, form, 4>(decode, bias, w, x, cols, at);
  if (at + 2 == cols.n) dot_rows<A, form, 2>(decode, bias, w, x, cols, at);
  if (at + 1 == cols.n) dot_rows<A, form, 1>(decode, bias, w, x, cols, at);
}

}  // namespace quantal::kernel
