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

template <any_format F, class A>
constexpr float_decoder float_decoder_of() noexcept {
  if constexpr (float_format<F>)
    return {nullptr, 0, nullptr, &direct_floats<F, A>};
  else
    return {&decode_run<F, A>, code_bias<F>, &slice_floats<A, sub_group<F>, F::layout.has_offset>, nullptr};
}

/// The tile in plain C++: emulated registers would only slow the compiler down.
template <int C>
QUANTAL_INLINE void plain_float_tile(const float* panel, int count, const float* const* x,
                                     float (*result)[panel_rows]) noexcept {
  for (int c = 0; c < C; ++c) {
    float sum[panel_rows] = {};
    for (int k = 0; k < count; ++k)
      for (int r = 0; r < panel_rows; ++r) sum[r] += panel[k * panel_rows + r] * x[c][k];
    for (int r = 0; r < panel_rows; ++r) result[c][r] = sum[r];
  }
}

template <class A, int C>
QUANTAL_INLINE void register_float_tile(const float* panel, int count, const float* const* x,
                                        float (*result)[panel_rows]) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), regs = panel_rows / lanes;
  batch acc[C][regs];
  simd::unroll<C, regs>([&](auto c, auto r) QUANTAL_LAMBDA { acc[c][r] = batch(0.0f); });
  for (int k = 0; k < count; ++k) {
    batch w[regs];
    simd::unroll<regs>(
        [&](auto r) QUANTAL_LAMBDA { w[r] = batch::load_aligned(panel + k * panel_rows + r * lanes); });
    simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
      const batch v(x[c][k]);
      simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA { acc[c][r] = xsimd::fma(w[r], v, acc[c][r]); });
    });
  }
  simd::unroll<C, regs>([&](auto c, auto r)
                            QUANTAL_LAMBDA { acc[c][r].store_aligned(result[c] + r * lanes); });
}

/// result[c][0..16) = sum over k of panel[k][.] * x[c][k].
template <class A, int C>
void float_tile(const float* panel, int count, const float* const* x, float (*result)[panel_rows]) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>)
    return plain_float_tile<C>(panel, count, x, result);
  else
    register_float_tile<A, C>(panel, count, x, result);
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

/// Panels p .. p + float_panels_at_once of the rows times columns [from, to), at most pass_columns.
template <class A>
void exact_pass(const float_decoder& decode, const weight_rows& w, int p, const float_activations& x,
                const columns& cols, std::int64_t from, std::int64_t to) noexcept {
  constexpr int group = float_panels_at_once, wide = tile_for<A>().float_columns;
  alignas(64) float panels[group][slice_weights * panel_rows];
  alignas(64) float sums[group][pass_columns][panel_rows];
  for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
    const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
    for (int q = 0; q < group; ++q)
      fill_float_panel<A>(decode, w, p + q * panel_rows, first, count, panels[q]);
    const auto tile = [&]<int C>(std::int64_t at) {
      const float* v[C];
      alignas(64) float part[C][panel_rows];
      for (int c = 0; c < C; ++c) v[c] = x.row(cols.activation_row(at + c)) + first;
      for (int q = 0; q < group; ++q) {
        float_tile<A, C>(panels[q], count, v, part);
        for (int c = 0; c < C; ++c) put_column(part[c], sums[q][at - from + c], panel_rows, first != 0);
      }
    };
    std::int64_t at = from;
    for (; at + wide <= to; at += wide) tile.template operator()<wide>(at);
    for (; at + 4 <= to; at += 4) tile.template operator()<4>(at);
    for (; at < to; ++at) tile.template operator()<1>(at);
  }
  for (std::int64_t at = from; at < to; ++at)
    for (int q = 0; q < group; ++q) {
      const int row = p + q * panel_rows, left = w.count - row;
      put_column(sums[q][at - from], cols.result(at) + w.first + row, left < panel_rows ? left : panel_rows,
                 false);
    }
}

/// Rows x columns through panels of 16 interleaved rows.
template <class A>
void exact_panels(const float_decoder& decode, const weight_rows& w, const float_activations& x,
                  const columns& cols) noexcept {
  for (int p = 0; p < w.count; p += float_panels_at_once * panel_rows)
    for (std::int64_t from = 0; from < cols.n; from += pass_columns)
      exact_pass<A>(decode, w, p, x, cols, from, from + pass_columns < cols.n ? from + pass_columns : cols.n);
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
      simd::unroll<4>([&](auto j) QUANTAL_LAMBDA {
        s[j] = xsimd::fma(batch::load_aligned(weights + k + j * lanes),
                          batch::load_unaligned(x + k + j * lanes), s[j]);
      });
    sum = (s[0] + s[1]) + (s[2] + s[3]);
  }
  for (; k + lanes <= count; k += lanes)
    sum = xsimd::fma(batch::load_aligned(weights + k), batch::load_unaligned(x + k), sum);
  if (k < count) {  // ragged end: only float formats have one
    alignas(64) float tail[batch::size] = {};
    for (int i = k; i < count; ++i) tail[i - k] = weights[i] * x[i];
    sum += batch::load_aligned(tail);
  }
  return sum;
}

/// Few columns: each row is decoded slice by slice and dotted with every column.
template <class A>
void exact_rows(const float_decoder& decode, const weight_rows& w, const float_activations& x,
                const columns& cols) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int wide = tile_for<A>().panel_columns;
  alignas(64) float line[slice_weights];
  const int n = static_cast<int>(cols.n);
  const float* v[wide];
  float* out[wide];
  for (int c = 0; c < n; ++c) {
    v[c] = x.row(cols.activation_row(c));
    out[c] = cols.result(c) + w.first;
  }
  for (int r = 0; r < w.count; ++r) {
    batch sum[wide];
    for (int c = 0; c < n; ++c) sum[c] = batch(0.0f);
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      decode(w.row(r), first, count, line);
      for (int c = 0; c < n; ++c) sum[c] = dot_slice<A>(line, v[c] + first, count, sum[c]);
    }
    for (int c = 0; c < n; ++c) out[c][r] = xsimd::reduce_add(sum[c]);
  }
}

template <class A>
QUANTAL_INLINE void exact_product(const float_decoder& decode, const weight_rows& w,
                                  const float_activations& x, const columns& cols) noexcept {
  if (cols.n >= tile_for<A>().panel_columns)
    exact_panels<A>(decode, w, x, cols);
  else
    exact_rows<A>(decode, w, x, cols);
}

}  // namespace quantal::kernel
