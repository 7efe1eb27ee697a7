// Activation policy `exact`: float32 activations against weights decoded to float32.
//
// Bound by FMA throughput for many columns, by decoding for few. Sums run over slices of 256 weights which are then
// added up, so the rounding error grows with 256 + K / 256 instead of K.
#pragma once

#include "quantal/kernel/args.hpp"
#include "quantal/kernel/columns.hpp"
#include "quantal/kernel/slice.hpp"
#include "quantal/kernel/tuning.hpp"

namespace quantal::kernel {

/// Activation rows as the exact kernels read them.
struct float_activations {
  const float* data;
  std::int64_t stride;
  const float* row(std::int64_t i) const noexcept { return data + i * stride; }
};

/// The activation rows of a routed product: row i belongs to token i / slots, slot i % slots.
struct routed_float_activations {
  const float* data;
  std::int64_t token_stride, slot_stride, slots;
  const float* row(std::int64_t i) const noexcept { return data + i / slots * token_stride + i % slots * slot_stride; }
};

/// Matrix rows [first, first + count) of one weight matrix.
struct weight_rows {
  const std::byte* data;
  std::int64_t stride, cols;
  std::int64_t first;
  int count;
  const std::byte* row(int r) const noexcept { return data + (first + r) * stride; }
};

/// result[c][0..rows) (+)= panel[k][.] * activation[c][k]; `rows` <= panel_rows, the rest of the panel is zero.
template <class A, int C>
QUANTAL_INLINE void float_tile(const float* panel, int count, const float* const* activation, float* const* result,
                               int rows, bool accumulate) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size), regs = panel_rows / lanes;
  batch acc[C][regs];
  for (int c = 0; c < C; ++c)
    for (int r = 0; r < regs; ++r) acc[c][r] = batch(0.0f);
  for (int k = 0; k < count; ++k) {
    batch w[regs];
    for (int r = 0; r < regs; ++r) w[r] = batch::load_aligned(panel + k * panel_rows + r * lanes);
    for (int c = 0; c < C; ++c) {
      const batch x(activation[c][k]);
      for (int r = 0; r < regs; ++r) acc[c][r] = xsimd::fma(w[r], x, acc[c][r]);
    }
  }
  for (int c = 0; c < C; ++c) {
    alignas(64) float sum[panel_rows];
    for (int r = 0; r < regs; ++r) acc[c][r].store_aligned(sum + r * lanes);
    for (int i = 0; i < rows; ++i) result[c][i] = accumulate ? result[c][i] + sum[i] : sum[i];
  }
}

/// All columns against one panel, widest tile first.
template <class A, class X, class Columns>
QUANTAL_INLINE void float_panel_columns(const float* panel, std::int64_t first, int count,
                                        const X& x, const Columns& cols, std::int64_t row, int rows) noexcept {
  constexpr int wide = tile_for<A>().columns;
  const float* activation[wide];
  float* result[wide];
  const auto tile = [&]<int C>(std::int64_t at) {
    for (int c = 0; c < C; ++c) {
      activation[c] = x.row(cols.activation_row(at + c)) + first;
      result[c] = cols.result(at + c) + row;
    }
    float_tile<A, C>(panel, count, activation, result, rows, first != 0);
  };
  const std::int64_t n = cols.count();
  std::int64_t at = 0;
  for (; at + wide <= n; at += wide) tile.template operator()<wide>(at);
  for (; at + 4 <= n; at += 4) tile.template operator()<4>(at);
  for (; at < n; ++at) tile.template operator()<1>(at);
}

/// rows x columns through panels of 16 interleaved rows.
template <any_format F, class A, class X, class Columns>
void exact_panels(const weight_rows& w, const X& x, const Columns& cols) noexcept {
  alignas(64) float panel[slice_weights * panel_rows];
  alignas(64) float line[slice_weights];
  for (int p = 0; p < w.count; p += panel_rows) {
    const int rows = w.count - p < panel_rows ? w.count - p : panel_rows;
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      for (int r = 0; r < panel_rows; ++r) {
        if (r < rows) decode_floats<F>(w.row(p + r), row_scale_of<F>(w.row(p + r)), first, count, line);
        for (int k = 0; k < count; ++k) panel[k * panel_rows + r] = r < rows ? line[k] : 0.0f;
      }
      float_panel_columns<A>(panel, first, count, x, cols, w.first + p, rows);
    }
  }
}

/// dot of `count` weights with one activation slice; both may be unaligned.
template <class A>
QUANTAL_INLINE xsimd::batch<float, A> dot_slice(const float* weights, const float* activation, int count,
                                                xsimd::batch<float, A> sum) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  int k = 0;
  for (; k + lanes <= count; k += lanes)
    sum = xsimd::fma(batch::load_aligned(weights + k), batch::load_unaligned(activation + k), sum);
  if (k < count) {  // ragged end: only float formats have one
    alignas(64) float tail[batch::size] = {};
    for (int i = k; i < count; ++i) tail[i - k] = weights[i] * activation[i];
    sum += batch::load_aligned(tail);
  }
  return sum;
}

/// Few columns: each row is decoded slice by slice and dotted with every column.
template <any_format F, class A, class X, class Columns>
void exact_rows(const weight_rows& w, const X& x, const Columns& cols) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int wide = tile_for<A>().panel_columns;
  alignas(64) float line[slice_weights];
  for (std::int64_t at = 0; at < cols.count(); at += wide) {
    const int n = static_cast<int>(cols.count() - at < wide ? cols.count() - at : wide);
    for (int r = 0; r < w.count; ++r) {
      const float scale = row_scale_of<F>(w.row(r));
      batch sum[wide];
      for (int c = 0; c < n; ++c) sum[c] = batch(0.0f);
      for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
        const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
        decode_floats<F>(w.row(r), scale, first, count, line);
        for (int c = 0; c < n; ++c) sum[c] = dot_slice<A>(line, x.row(cols.activation_row(at + c)) + first, count, sum[c]);
      }
      for (int c = 0; c < n; ++c) cols.result(at + c)[w.first + r] = xsimd::reduce_add(sum[c]);
    }
  }
}

/// Float activations, dense or routed.
template <class X>
concept float_rows = requires(const X& x) {
  { x.row(0) } -> std::same_as<const float*>;
};

template <any_format F, class A, float_rows X, class Columns>
QUANTAL_INLINE void multiply_rows(const weight_rows& w, const X& x, const Columns& cols) noexcept {
  if (cols.count() >= tile_for<A>().panel_columns) exact_panels<F, A>(w, x, cols);
  else exact_rows<F, A>(w, x, cols);
}

}  // namespace quantal::kernel
