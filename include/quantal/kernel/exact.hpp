// Activation policy `exact`: float32 activations against weights decoded to float32.
//
// Bound by FMA throughput for many columns, by decoding for few. Sums run over slices of 256 weights which
// are then added up, so the rounding error grows with 256 + K / 256 instead of K. Nothing here depends on the
// format: a decoder function supplies the slices.
#pragma once

#include <cstring>
#include <type_traits>

#include "quantal/kernel/columns.hpp"
#include "quantal/kernel/slice.hpp"
#include "quantal/kernel/tuning.hpp"
#include "quantal/simd/transpose.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::kernel {

/// How a format's weights become float32. Block formats go through their codes, so that only those are
/// decoded per format; float formats have `direct`.
struct float_decoder {
  code_decoder codes;
  int bias;
  void (*convert)(const coded_slice& s, int bias, int count, float* out) noexcept;
  void (*direct)(const std::byte* row, std::int64_t first, int count, float* out) noexcept;
  /// Products of few columns, of float formats.
  void (*rows)(const weight_rows& w, const float_activations& x, const columns& cols) noexcept;

  /// Weights [first, first + count) of a row; a multiple of the block, count <= slice_weights.
  QUANTAL_INLINE void operator()(const std::byte* row, std::int64_t first, int count,
                                 float* out) const noexcept {
    if (direct) return direct(row, first, count, out);
    coded_slice s;
    codes(row, first, count, &s);
    convert(s, bias, count, out);
  }
};

template <float_format F, class A>
void direct_floats(const std::byte* row, std::int64_t first, int count, float* out) noexcept {
  const auto* v = row_blocks<F>(row) + first;
  if constexpr (std::is_same_v<F, f32>)
    std::memcpy(out, v, sizeof(float) * static_cast<std::size_t>(count));
  else if constexpr (std::is_same_v<F, f16>)
    simd::halves_to_floats(v, count, out, simd::on<A>{});
  else if constexpr (std::is_same_v<F, bf16>)
    simd::bfloats_to_floats(v, count, out);
  else
    for (int i = 0; i < count; ++i) out[i] = F::value(v[i]);
}

/// As many weights as a register has lanes.
template <float_format F, class A>
QUANTAL_INLINE xsimd::batch<float, A> load_floats(const typename F::block* v) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  if constexpr (std::is_same_v<F, f32>) {
    return batch::load_unaligned(reinterpret_cast<const float*>(v));
  } else {
#if XSIMD_WITH_AVX512F
    if constexpr (lanes == 16 && (std::is_same_v<F, f16> || std::is_same_v<F, bf16>)) {
      const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(v));
      if constexpr (std::is_same_v<F, f16>)
        return _mm512_cvtph_ps(x);
      else
        return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(x), 16));
    }
#endif
#if XSIMD_WITH_AVX2 && defined(__F16C__)
    if constexpr (lanes == 8 && (std::is_same_v<F, f16> || std::is_same_v<F, bf16>)) {
      const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(v));
      if constexpr (std::is_same_v<F, f16>)
        return _mm256_cvtph_ps(x);
      else
        return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(x), 16));
    }
#endif
    alignas(64) float out[batch::size];
    direct_floats<F, A>(reinterpret_cast<const std::byte*>(v), 0, lanes, out);
    return batch::load_aligned(out);
  }
}

/// Rows times columns [at, at + N).
template <float_format F, class A, int N>
void direct_row_products(const weight_rows& w, const float_activations& x, const columns& cols,
                         std::int64_t at) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), chains = N == 1 ? 4 : 2;
  const std::byte* const end = w.row(w.count - 1) + w.stride;
  const float* v[std::size_t{N}];
  for (int c = 0; c < N; ++c) v[c] = x.row(cols.activation_row(at + c));
  for (int r = 0; r < w.count; ++r) {
    const auto* const row = row_blocks<F>(w.row(r));
    batch sum[std::size_t{N}][std::size_t{chains}];
    simd::unroll<N, chains>([&](int c, int j) QUANTAL_LAMBDA { sum[c][j] = batch(0.0f); });
    std::int64_t k = 0;
    for (; k + chains * lanes <= w.cols; k += chains * lanes) {
      prefetch(reinterpret_cast<const std::byte*>(row + k), prefetch_distance,
               static_cast<std::int64_t>(sizeof *row) * chains * lanes, end);
      simd::unroll<chains>([&](int j) QUANTAL_LAMBDA {
        const batch weights = load_floats<F, A>(row + k + j * lanes);
        simd::unroll<N>([&](int c) QUANTAL_LAMBDA {
          sum[c][j] = xsimd::fma(weights, batch::load_unaligned(v[c] + k + j * lanes), sum[c][j]);
        });
      });
    }
    simd::unroll<N>([&](int c) QUANTAL_LAMBDA {
      batch all = sum[c][0];
      simd::unroll<chains - 1>([&](int j) QUANTAL_LAMBDA { all += sum[c][j + 1]; });
      float result = simd::sum_of(all);
      for (std::int64_t i = k; i < w.cols; ++i) result += F::value(row[i]) * v[c][i];
      cols.result(at + c)[w.first + r] = result;
    });
  }
}

template <float_format F, class A>
void direct_rows(const weight_rows& w, const float_activations& x, const columns& cols) noexcept {
  std::int64_t at = 0;
  for (; at + 4 <= cols.n; at += 4) direct_row_products<F, A, 4>(w, x, cols, at);
  for (; at + 2 <= cols.n; at += 2) direct_row_products<F, A, 2>(w, x, cols, at);
  if (at < cols.n) direct_row_products<F, A, 1>(w, x, cols, at);
}

template <any_format F, class A>
constexpr float_decoder float_decoder_of() noexcept {
  if constexpr (float_format<F> && std::is_same_v<A, simd::scalar>)
    return {nullptr, 0, nullptr, &direct_floats<F, A>, nullptr};
  else if constexpr (float_format<F>)
    return {nullptr, 0, nullptr, &direct_floats<F, A>, &direct_rows<F, A>};
  else
    return {&decode_run<F, A>, code_bias<F>, &slice_floats<A, sub_group<F>, F::layout.has_offset>, nullptr,
            nullptr};
}

/// Does this machine multiply pairs of bfloat16? Asked at run time: the arch's other instructions do not
/// include it.
template <class A>
QUANTAL_INLINE bool has_bf16_dot() noexcept {
#if QUANTAL_WITH_AVX512_VNNI && defined(__GNUC__)
  if constexpr (std::is_same_v<A, simd::avx512_vnni>) return __builtin_cpu_supports("avx512bf16");
#endif
  return false;
}

#if QUANTAL_WITH_AVX512_VNNI && defined(__GNUC__)
/// acc[i] += w[2i] * x[0] + w[2i + 1] * x[1], pairs of bfloat16. Spelled out, since the translation unit is
/// not compiled for this instruction; only after has_bf16_dot.
QUANTAL_INLINE __m512 dot2_bf16(__m512 acc, __m512i w, const std::uint32_t* x) noexcept {
  asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc) : "v"(w), "m"(*x));
  return acc;
}
#endif

/// n float columns in tiles of two widths; those past the last repeat it.
template <class A>
struct float_tiles {
  static constexpr int wide = tile_for<A>().float_columns, slim = 4;
  std::int64_t n;

  QUANTAL_INLINE std::int64_t wides() const noexcept { return n / wide; }
  QUANTAL_INLINE std::int64_t count() const noexcept { return wides() + (n % wide + slim - 1) / slim; }
  QUANTAL_INLINE std::int64_t begin(std::int64_t tile) const noexcept {
    return tile < wides() ? wide * tile : wide * wides() + slim * (tile - wides());
  }
  QUANTAL_INLINE std::int64_t padded() const noexcept { return begin(count()); }
  template <class Fn>
  QUANTAL_INLINE void with_width(std::int64_t tile, Fn&& f) const noexcept {
    if (tile < wides())
      f.template operator()<wide>();
    else
      f.template operator()<slim>();
  }
};

/// Columns interleaved tile by tile within each slice: rows of activations are often a power of two apart,
/// and would evict each other from the caches. Words are float32, or pairs of bfloat16.
struct packed_floats {
  std::uint32_t* data;
  std::int64_t n;  ///< padded
  bool pairs;

  static QUANTAL_INLINE std::int64_t words(std::int64_t cols, bool pairs) noexcept {
    return pairs ? (cols + 1) / 2 : cols;
  }
  /// Words [first, first + count) of the tile at column `at`; `first` begins a slice.
  QUANTAL_INLINE std::uint32_t* tile(std::int64_t at, std::int64_t first, std::int64_t count) const noexcept {
    return data + first * n + at * count;
  }
};

/// The nearest bfloat16, ties to even; NaN stays NaN.
QUANTAL_INLINE std::uint32_t round_to_bf16(float x) noexcept {
  std::uint32_t u;
  std::memcpy(&u, &x, 4);
  const std::uint32_t rounded = (u + 0x7fffu + (u >> 16 & 1u)) >> 16, quiet = u >> 16 | 64u;
  return (u & 0x7fffffffu) > 0x7f800000u ? quiet : rounded;
}

/// Interleaves columns [at, at + C).
template <class A, int C>
void pack_floats(const float_activations& x, const columns& cols, std::int64_t k_count, std::int64_t at,
                 const packed_floats& out) noexcept {
  const float* v[std::size_t{C}];
  for (int c = 0; c < C; ++c) v[c] = x.row(cols.activation_row(at + c < cols.n ? at + c : cols.n - 1));
  const std::int64_t all = packed_floats::words(k_count, out.pairs), slice = out.pairs ? 128 : 256;
  for (std::int64_t first = 0; first < all; first += slice) {
    const std::int64_t count = all - first < slice ? all - first : slice;
    std::uint32_t* const to = out.tile(at, first, count);
    for (int c = 0; c < C; ++c) {
      std::uint32_t words[slice_weights];
      if (out.pairs) {
        for (std::int64_t k = 0; k < count; ++k) {
          const std::int64_t i = 2 * (first + k);
          const std::uint32_t high = i + 1 < k_count ? round_to_bf16(v[c][i + 1]) : 0;
          words[k] = round_to_bf16(v[c][i]) | high << 16;
        }
      } else {
        std::memcpy(words, v[c] + first, 4 * static_cast<std::size_t>(count));
      }
      for (std::int64_t k = 0; k < count; ++k) to[k * C + c] = words[k];
    }
  }
}

/// The tile in plain C++: emulated registers would only slow the compiler down.
template <int C>
QUANTAL_INLINE void plain_float_tile(const float* panel, int count, const std::uint32_t* x,
                                     float (*result)[panel_rows]) noexcept {
  for (int c = 0; c < C; ++c) {
    float sum[panel_rows] = {};
    for (int k = 0; k < count; ++k) {
      float v;
      std::memcpy(&v, x + k * C + c, 4);
      for (int r = 0; r < panel_rows; ++r) sum[r] += panel[k * panel_rows + r] * v;
    }
    for (int r = 0; r < panel_rows; ++r) result[c][r] = sum[r];
  }
}

template <class A, bool pairs, int C>
QUANTAL_INLINE void register_float_tile(const float* panel, int count, const std::uint32_t* x,
                                        float (*result)[panel_rows]) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), regs = panel_rows / lanes;
  batch acc[std::size_t{C}][std::size_t{regs}];
  simd::unroll<C, regs>([&](int c, int r) QUANTAL_LAMBDA { acc[c][r] = batch(0.0f); });
  for (int k = 0; k < count; ++k) {
    batch w[std::size_t{regs}];
    simd::unroll<regs>(
        [&](int r) QUANTAL_LAMBDA { w[r] = batch::load_aligned(panel + k * panel_rows + r * lanes); });
    simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
#if QUANTAL_WITH_AVX512_VNNI && defined(__GNUC__)
      if constexpr (pairs) {
        acc[c][0] = dot2_bf16(acc[c][0], _mm512_castps_si512(w[0]), x + k * C + c);
        return;
      }
#endif
      float value;
      std::memcpy(&value, x + k * C + c, 4);
      const batch v(value);
      simd::unroll<regs>([&](int r) QUANTAL_LAMBDA { acc[c][r] = xsimd::fma(w[r], v, acc[c][r]); });
    });
  }
  simd::unroll<C, regs>([&](int c, int r) QUANTAL_LAMBDA { acc[c][r].store_aligned(result[c] + r * lanes); });
}

/// result[c][0..16) = sum over k of panel[k][.] * x[k][c].
template <class A, bool pairs, int C>
void float_tile(const float* panel, int count, const std::uint32_t* x, float (*result)[panel_rows]) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>)
    return plain_float_tile<C>(panel, count, x, result);
  else
    register_float_tile<A, pairs, C>(panel, count, x, result);
}

/// Writes or adds the first `rows` of a tile column to the output.
QUANTAL_INLINE void put_column(const float* sums, float* out, int rows, bool add) noexcept {
  if (rows == panel_rows) {
    for (int i = 0; i < panel_rows; ++i) out[i] = add ? out[i] + sums[i] : sums[i];
  } else {
    for (int i = 0; i < rows; ++i) out[i] = add ? out[i] + sums[i] : sums[i];
  }
}

/// Columns that one pass over the weights serves: their sums wait on the stack, since the columns of results
/// are often a power of two apart and would evict each other from the caches if they were added to in place.
inline constexpr int pass_columns = 512;

/// A slice of 16 rows from row p on as float32, one row per lane; rows past the end repeat the last one,
/// their sums are dropped.
template <class A>
void fill_float_panel(const float_decoder& decode, const weight_rows& w, int p, std::int64_t first, int count,
                      float* panel) noexcept {
  alignas(64) float lines[panel_rows][slice_weights];
  const std::int64_t slice_bytes = w.bytes_of(slice_weights), next = w.bytes_of(first + slice_weights);
  for (int r = 0; r < panel_rows; ++r) {
    const std::byte* const row = w.row(p + r < w.count ? p + r : w.count - 1);
    decode(row, first, count, lines[r]);
    prefetch(row, next, slice_bytes, row + w.stride);
  }
  simd::transpose16<A>(reinterpret_cast<const std::uint32_t*>(lines), slice_weights, count,
                       reinterpret_cast<std::uint32_t*>(panel));
}

/// The same for rows of bfloat16 as they are stored: a pair of weights per 32-bit lane.
template <class A>
void fill_pair_panel(const weight_rows& w, int p, std::int64_t first, int count, float* panel) noexcept {
  constexpr int words = slice_weights / 2;
  alignas(64) std::uint32_t lines[panel_rows][words] = {};
  for (int r = 0; r < panel_rows; ++r) {
    const std::byte* const row = w.row(p + r < w.count ? p + r : w.count - 1);
    std::memcpy(lines[r], row + 2 * first, 2 * static_cast<std::size_t>(count));
    prefetch(row, 2 * (first + slice_weights), 2 * slice_weights, row + w.stride);
  }
  simd::transpose16<A>(lines[0], words, (count + 1) / 2, reinterpret_cast<std::uint32_t*>(panel));
}

/// Panels p .. p + float_panels_at_once of the rows times the columns of tiles [from, to).
template <class A, bool pairs>
void exact_pass(const float_decoder& decode, const weight_rows& w, int p, const packed_floats& x,
                const columns& cols, std::int64_t from, std::int64_t to) noexcept {
  constexpr int group = float_panels_at_once;
  alignas(64) float panels[group][slice_weights * panel_rows];
  alignas(64) float sums[group][pass_columns][panel_rows];
  const float_tiles<A> tiles{cols.n};
  const std::int64_t begin = tiles.begin(from);
  for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
    const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
    const int words = static_cast<int>(packed_floats::words(count, pairs));
    for (int q = 0; q < group; ++q)
      if constexpr (pairs)
        fill_pair_panel<A>(w, p + q * panel_rows, first, count, panels[q]);
      else
        fill_float_panel<A>(decode, w, p + q * panel_rows, first, count, panels[q]);
    for (std::int64_t i = from; i < to; ++i) {
      const std::int64_t at = tiles.begin(i);
      const std::uint32_t* const v = x.tile(at, pairs ? first / 2 : first, words);
      tiles.with_width(i, [&]<int C>() {
        alignas(64) float part[std::size_t{C}][std::size_t{panel_rows}];
        for (int q = 0; q < group; ++q) {
          float_tile<A, pairs, C>(panels[q], words, v, part);
          for (int c = 0; c < C; ++c) put_column(part[c], sums[q][at - begin + c], panel_rows, first != 0);
        }
      });
    }
  }
  for (std::int64_t at = begin; at < cols.n && at < tiles.begin(to); ++at)
    for (int q = 0; q < group; ++q) {
      const int row = p + q * panel_rows, left = w.count - row;
      put_column(sums[q][at - begin], cols.result(at) + w.first + row, left < panel_rows ? left : panel_rows,
                 false);
    }
}

/// Rows x columns through panels of 16 interleaved rows.
template <class A, bool pairs>
void exact_panels(const float_decoder& decode, const weight_rows& w, const packed_floats& x,
                  const columns& cols) noexcept {
  constexpr int tiles_per_pass = pass_columns / float_tiles<A>::wide;
  const std::int64_t count = float_tiles<A>{cols.n}.count(),
                     passes = (count + tiles_per_pass - 1) / tiles_per_pass;
  for (int p = 0; p < w.count; p += float_panels_at_once * panel_rows)
    for (std::int64_t pass = 0; pass < passes; ++pass)
      exact_pass<A, pairs>(decode, w, p, x, cols, count * pass / passes, count * (pass + 1) / passes);
}

/// sum + dot of `count` weights with one activation slice. Four chains hide the latency of the multiply-add.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> dot_slice(const float* weights, const float* x, int count,
                                                xsimd::batch<float, A> sum) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  int k = 0;
  if (count >= 4 * lanes) {
    batch s[4] = {sum, batch(0.0f), batch(0.0f), batch(0.0f)};
    for (; k + 4 * lanes <= count; k += 4 * lanes)
      simd::unroll<4>([&](int j) QUANTAL_LAMBDA {
        s[j] = xsimd::fma(batch::load_aligned(weights + k + j * lanes),
                          batch::load_unaligned(x + k + j * lanes), s[j]);
      });
    sum = (s[0] + s[1]) + (s[2] + s[3]);
  }
  for (; k + lanes <= count; k += lanes)
    sum = xsimd::fma(batch::load_aligned(weights + k), batch::load_unaligned(x + k), sum);
  if (k < count) {  // ragged end: only float formats have one
    alignas(64) float w[batch::size] = {}, v[batch::size] = {};
    std::memcpy(w, weights + k, sizeof(float) * static_cast<std::size_t>(count - k));
    std::memcpy(v, x + k, sizeof(float) * static_cast<std::size_t>(count - k));
    sum = xsimd::fma(batch::load_aligned(w), batch::load_aligned(v), sum);
  }
  return sum;
}

/// sums[c] += dot of the weights with n activation slices, which begin at x[c] + first.
template <class A>
void dot_slices(const float* weights, const float* const* x, std::int64_t first, int count, int n,
                xsimd::batch<float, A>* sums) noexcept {
  for (int c = 0; c < n; ++c) sums[c] = dot_slice<A>(weights, x[c] + first, count, sums[c]);
}

/// Few columns: each row is decoded slice by slice and dotted with every column.
template <class A>
void exact_rows(const float_decoder& decode, const weight_rows& w, const float_activations& x,
                const columns& cols) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int wide = tile_for<A>().float_panel_columns;
  alignas(64) float line[slice_weights];
  const int n = static_cast<int>(cols.n);
  const float* v[std::size_t{wide}];
  float* out[std::size_t{wide}];
  for (int c = 0; c < n; ++c) {
    v[c] = x.row(cols.activation_row(c));
    out[c] = cols.result(c) + w.first;
  }
  for (int r = 0; r < w.count; ++r) {
    batch sum[std::size_t{wide}];
    for (int c = 0; c < n; ++c) sum[c] = batch(0.0f);
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      decode(w.row(r), first, count, line);
      dot_slices<A>(line, v, first, count, n, sum);
    }
    for (int c = 0; c < n; ++c) out[c][r] = simd::sum_of(sum[c]);
  }
}

/// Enough columns for decoding into float panels to beat dot products row by row.
template <class A>
QUANTAL_INLINE bool takes_float_panels(std::int64_t n) noexcept {
  return n >= tile_for<A>().float_panel_columns;
}

/// Columns of an exact product, interleaved where panels read them.
template <class A>
struct exact_columns {
  packed_floats packed;
  float_activations x;

  /// Bytes of n columns, at least 16 of which are padding.
  static QUANTAL_INLINE std::int64_t bytes(std::int64_t cols, std::int64_t n) noexcept {
    return takes_float_panels<A>(n) ? 4 * cols * float_tiles<A>{n}.padded() : 0;
  }
  QUANTAL_INLINE exact_columns(std::byte* at, const float_activations& rows, std::int64_t n,
                               bool pairs) noexcept
      : packed{reinterpret_cast<std::uint32_t*>(at), float_tiles<A>{n}.padded(), pairs}, x(rows) {}

  QUANTAL_INLINE std::int64_t parts(std::int64_t n) const noexcept {
    return takes_float_panels<A>(n) ? float_tiles<A>{n}.count() : 0;
  }
  void arrange(const columns& cols, std::int64_t k_count, std::int64_t part) const noexcept {
    const float_tiles<A> tiles{cols.n};
    tiles.with_width(part, [&]<int C>() { pack_floats<A, C>(x, cols, k_count, tiles.begin(part), packed); });
  }
  void multiply(const float_decoder& decode, const weight_rows& w, const columns& cols) const noexcept {
    if (!takes_float_panels<A>(cols.n))
      decode.rows ? decode.rows(w, x, cols) : exact_rows<A>(decode, w, x, cols);
    else if (packed.pairs)
      pair_panels(decode, w, cols);
    else
      exact_panels<A, false>(decode, w, packed, cols);
  }
  void pair_panels([[maybe_unused]] const float_decoder& decode, [[maybe_unused]] const weight_rows& w,
                   [[maybe_unused]] const columns& cols) const noexcept {
#if QUANTAL_WITH_AVX512_VNNI && defined(__GNUC__)
    if constexpr (std::is_same_v<A, simd::avx512_vnni>) exact_panels<A, true>(decode, w, packed, cols);
#endif
  }
};

}  // namespace quantal::kernel
