// Policy `q8`, few columns: each row is decoded once, in registers, for up to eight columns; bound by the
// memory that the weights come from, or by decoding. Compiled per format, since a decoder whose results pass
// through memory takes twice as long.
#pragma once

#include "quantal/kernel/lanes.hpp"

namespace quantal::kernel {

/// Bytes of weights asked for ahead of their use: the hardware's own prefetching stops at every page.
inline constexpr std::int64_t prefetch_distance = 4096;

/// One slice of a row times N columns; column c's slice is at x + c * column_bytes.
template <block_format F, class A, int N>
QUANTAL_INLINE void add_lanes(const lane_decoder<F, A>& d, const std::byte* x, std::int64_t column_bytes,
                              xsimd::batch<float, A> (&total)[N]) noexcept {
  using decoder = lane_decoder<F, A>;
  using batch = xsimd::batch<float, A>;
  constexpr code_form form = form_of<F, A>();
  constexpr int lanes = static_cast<int>(batch::size), depth = decoder::depth;
  simd::unroll<decoder::sums>([&](auto u) QUANTAL_LAMBDA {
    const lane_group<A, depth> g = d.template group<u>();
    simd::unroll<N>([&](auto c) QUANTAL_LAMBDA {
      const auto& column = *reinterpret_cast<const lane_column<depth>*>(x + c * column_bytes);
      simd::i32<A> acc(0);
      if constexpr (form.biased) acc = simd::i32<A>::load_aligned(column.starts + u * lanes);
      simd::unroll<depth>([&](auto i) QUANTAL_LAMBDA {
        const auto a = simd::s8<A>::load_aligned(column.codes + 4 * lanes * (u * depth + i));
        acc = simd::dot4_of<A, form.kind>(acc, g.codes[i], a);
      });
      const batch scaled = xsimd::to_float(acc) * batch::load_aligned(column.scales + u * lanes);
      total[c] = xsimd::fma(scaled, g.scale, total[c]);
      if constexpr (form.offset)
        total[c] = xsimd::fma(batch::load_aligned(column.shifts + u * lanes), g.offset, total[c]);
    });
  });
}

/// Slices of N columns that fit the first-level cache beside the weights that stream through it.
template <int N>
inline constexpr std::int64_t cached_slices = 64 / N;

/// sums[c][r] += row r times column c, over slices [from, to).
template <block_format F, class A, int N>
QUANTAL_INLINE void add_cached_slices(const weight_rows& w, const std::byte* x, std::int64_t column_bytes,
                                      std::int64_t from, std::int64_t to,
                                      float (&sums)[N][task_rows]) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr std::int64_t step = sizeof(lane_column<lane_decoder<F, A>::depth>);
  constexpr std::int64_t slice_bytes = slice_weights / F::layout.elements * F::layout.bytes;
  const std::byte* const end = w.row(w.count - 1) + w.stride;
  const bool whole_rows = (to - from) * slice_weights >= w.cols;
  const std::int64_t ahead = whole_rows ? prefetch_distance : w.stride;
  const std::int64_t last = to * slice_weights <= w.cols ? to : to - 1;  // a slice that the row ends in
  for (int r = 0; r < w.count; ++r) {
    const std::byte* const row = w.row(r);
    const float scale = row_scale<F>(row);
    lane_decoder<F, A> d;
    batch total[N];
    simd::unroll<N>([&](auto c) QUANTAL_LAMBDA { total[c] = batch(0.0f); });
    for (std::int64_t s = from; s < last; ++s) {
      prefetch(row, s * slice_bytes + ahead, slice_bytes, end);
      d.decode(row, scale, s * slice_weights);
      add_lanes<F, A, N>(d, x + s * step, column_bytes, total);
    }
    if (last < to) {
      d.decode_tail(row, scale, last * slice_weights, static_cast<int>(w.cols - last * slice_weights));
      add_lanes<F, A, N>(d, x + last * step, column_bytes, total);
    }
    simd::unroll<N>([&](auto c) QUANTAL_LAMBDA { sums[c][r] += xsimd::reduce_add(total[c]); });
  }
}

/// Rows times columns [at, at + N), of which there may be fewer.
template <block_format F, class A, int N>
void register_rows(const weight_rows& w, const std::byte* x, std::int64_t column_bytes, const columns& cols,
                   std::int64_t at) noexcept {
  float sums[N][task_rows] = {};
  const std::int64_t slices = (w.cols + slice_weights - 1) / slice_weights;
  for (std::int64_t from = 0; from < slices; from += cached_slices<N>)
    add_cached_slices<F, A, N>(w, x + at * column_bytes, column_bytes, from,
                               from + cached_slices<N> < slices ? from + cached_slices<N> : slices, sums);
  for (int c = 0; c < N && at + c < cols.n; ++c)
    std::memcpy(cols.result(at + c) + w.first, sums[c], sizeof(float) * static_cast<std::size_t>(w.count));
}

/// The same in plain C++ for one column: emulated registers would only slow the compiler down.
template <block_format F, class A>
void plain_rows(const weight_rows& w, const std::byte* x, float* out) noexcept {
  constexpr code_form form = form_of<F, A>();
  constexpr lane_map map = transposed_lanes<4>();
  for (int r = 0; r < w.count; ++r) {
    const float row_factor = row_scale<F>(w.row(r));
    float total = 0.0f;
    auto* column = reinterpret_cast<const lane_column<4>*>(x);
    for (std::int64_t first = 0; first < w.cols; first += slice_weights, ++column) {
      const std::int64_t left = w.cols - first;
      coded_slice s{};
      decode_codes<F, A>(w.row(r), row_factor, first,
                         static_cast<int>(left < slice_weights ? left : slice_weights), s);
      float part = 0.0f;
      for (int lane = 0; lane < column->sums; ++lane) {
        std::int32_t dot = form.biased ? column->starts[lane] : 0;
        int k = 0;
        for (int i = 0; i < 4; ++i) {
          const int at = lane / 4 * 16 + 4 * i + lane % 4;
          k = 4 * map.word[static_cast<std::size_t>(at)];
          for (int j = 0; j < 4; ++j) dot += s.codes[k + j] * column->codes[4 * at + j];
        }
        part += static_cast<float>(dot) * column->scales[lane] * s.scales[k / sub_group<F>];
        if constexpr (form.offset) part += column->shifts[lane] * s.offsets[k / sub_group<F>];
      }
      total += part;
    }
    out[r] = total;
  }
}

/// Columns that coded_rows reads for n: three or five of them cost no more than four or eight.
QUANTAL_INLINE std::int64_t padded_lane_columns(std::int64_t n) noexcept {
  const std::int64_t rest = n % 8;
  return n - rest + (rest <= 2 ? rest : rest <= 4 ? 4 : 8);
}

/// Every row with every column, eight columns at a time. `x`: padded_lane_columns columns arranged by
/// lane_decoder<F, A>::map, those past the last equal to it.
template <block_format F, class A>
void coded_rows(const weight_rows& w, const std::byte* x, const columns& cols) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>) {
    const std::int64_t bytes = lane_column_bytes(4, w.cols);
    for (std::int64_t at = 0; at < cols.n; ++at)
      plain_rows<F, A>(w, x + at * bytes, cols.result(at) + w.first);
  } else {
    const std::int64_t bytes = lane_column_bytes(lane_decoder<F, A>::depth, w.cols);
    std::int64_t at = 0;
    for (; cols.n - at > 4; at += 8) register_rows<F, A, 8>(w, x, bytes, cols, at);
    if (cols.n - at > 2)
      register_rows<F, A, 4>(w, x, bytes, cols, at);
    else if (cols.n - at == 2)
      register_rows<F, A, 2>(w, x, bytes, cols, at);
    else if (cols.n - at == 1)
      register_rows<F, A, 1>(w, x, bytes, cols, at);
  }
}

}  // namespace quantal::kernel
