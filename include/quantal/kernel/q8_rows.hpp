// Policy `q8`, few columns: each row is decoded once, in registers, for up to eight columns; bound by the
// memory that the weights come from, or by decoding. Compiled per format, since a decoder whose results pass
// through memory takes twice as long.
#pragma once

#include "quantal/kernel/decode/avx512_vnni/grids.hpp"
#include "quantal/kernel/decode/avx512_vnni/planar.hpp"
#include "quantal/kernel/decode/avx512_vnni/tables.hpp"
#include "quantal/kernel/decode/avx512_vnni/ternary.hpp"
#include "quantal/kernel/decode/avx512_vnni/trellis.hpp"
#include "quantal/kernel/lanes.hpp"

namespace quantal::kernel {

/// A slice of a row, decoded.
template <block_format F, class A>
struct lane_slice {
  using decoder = lane_decoder<F, A>;
  lane_group<A, decoder::depth> sums[decoder::sums];

  QUANTAL_INLINE void take(const decoder& d) noexcept {
    simd::unroll<decoder::sums>([&](auto u) QUANTAL_LAMBDA { sums[u] = d.template group<u>(); });
  }
};

/// One slice of R rows times N columns, whose slices are at x.
template <block_format F, class A, int R, int N>
QUANTAL_INLINE void add_lanes(const lane_slice<F, A> (&rows)[std::size_t{R}], const std::byte* x,
                              xsimd::batch<float, A> (&total)[std::size_t{R}][std::size_t{N}]) noexcept {
  using decoder = lane_decoder<F, A>;
  using batch = xsimd::batch<float, A>;
  constexpr code_form form = form_of<F, A>();
  constexpr int lanes = static_cast<int>(batch::size), depth = decoder::depth;
  const auto add = [&](int u, int c) QUANTAL_LAMBDA {
    const auto& column = reinterpret_cast<const lane_column<depth>*>(x)[c];
    simd::i32<A> acc[std::size_t{R}], start(0);
    if constexpr (form.biased) start = simd::i32<A>::load_aligned(column.starts + u * lanes);
    simd::unroll<R>([&](int r) QUANTAL_LAMBDA { acc[r] = start; });
    simd::unroll<depth>([&](int i) QUANTAL_LAMBDA {
      const auto a = simd::s8<A>::load_aligned(column.codes + 4 * lanes * (u * depth + i));
      simd::unroll<R>([&](int r) QUANTAL_LAMBDA {
        acc[r] = simd::dot4_of<A, form.kind>(acc[r], rows[r].sums[u].codes[i], a);
      });
    });
    const batch scale = batch::load_aligned(column.scales + u * lanes);
    simd::unroll<R>([&](int r) QUANTAL_LAMBDA {
      total[r][c] =
          xsimd::fma(simd::times(xsimd::to_float(acc[r]), scale), rows[r].sums[u].scale, total[r][c]);
    });
    if constexpr (form.offset) {
      const batch shift = batch::load_aligned(column.shifts + u * lanes);
      simd::unroll<R>([&](int r) QUANTAL_LAMBDA {
        total[r][c] = xsimd::fma(shift, rows[r].sums[u].offset, total[r][c]);
      });
    }
  };
  // With short registers and many columns the weights are in memory anyway: an ordinary loop costs no more there,
  // and is compiled in less time.
  if constexpr (decoder::sums * N <= 8)
    simd::unroll<decoder::sums, N>(add);
  else
    for (int u = 0; u < decoder::sums; ++u) simd::unroll<N>([&](int c) QUANTAL_LAMBDA { add(u, c); });
}

/// Slices of N columns that fit the first-level cache beside the weights that stream through it.
template <int N>
inline constexpr std::int64_t cached_slices = 64 / N;

/// Rows at a time: two share what is loaded of eight columns; fewer columns are not bound by that.
template <int N>
inline constexpr int rows_at_once = N == 8 ? 2 : 1;

/// sums[c][r] += row r times column c, over slices [from, to).
template <block_format F, class A, int N>
QUANTAL_INLINE void add_cached_slices(const weight_rows& w, const std::byte* x, std::int64_t from,
                                      std::int64_t to,
                                      float (&sums)[std::size_t{N}][std::size_t{task_rows}]) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int R = rows_at_once<N>;
  constexpr std::int64_t step = N * sizeof(lane_column<lane_decoder<F, A>::depth>);
  constexpr std::int64_t slice_bytes = slice_weights / F::layout.elements * F::layout.bytes;
  const std::byte* const end = w.row(w.count - 1) + w.stride;
  // Rows read from end to end are one stream, which the hardware fetches ahead better than software does.
  const bool whole_rows = (to - from) * slice_weights >= w.cols;
  constexpr bool ends_in_slices = F::layout.elements < slice_weights;  // else there are whole slices only
  const std::int64_t last = !ends_in_slices || to * slice_weights <= w.cols ? to : to - 1;
  for (int r = 0; r < w.count; r += R) {
    const std::byte* row[std::size_t{R}];
    float scale[std::size_t{R}];
    for (int q = 0; q < R; ++q) {
      row[q] = w.row(r + q < w.count ? r + q : r);
      scale[q] = row_scale<F>(row[q]);
    }
    lane_slice<F, A> slices[std::size_t{R}];
    batch total[std::size_t{R}][std::size_t{N}];
    simd::unroll<R, N>([&](int q, int c) QUANTAL_LAMBDA { total[q][c] = batch(0.0f); });
    for (std::int64_t s = from; s < last; ++s) {
      simd::unroll<R>([&](int q) QUANTAL_LAMBDA {
        if (!whole_rows) prefetch(row[q], s * slice_bytes + R * w.stride, slice_bytes, end);
        lane_decoder<F, A> d;
        d.decode(row[q], scale[q], s * slice_weights);
        slices[q].take(d);
      });
      add_lanes<F, A, R, N>(slices, x + s * step, total);
    }
    if constexpr (ends_in_slices) {
      if (last < to) {
        for (int q = 0; q < R; ++q) {
          lane_decoder<F, A> d;
          d.decode_tail(row[q], scale[q], last * slice_weights,
                        static_cast<int>(w.cols - last * slice_weights));
          slices[q].take(d);
        }
        add_lanes<F, A, R, N>(slices, x + last * step, total);
      }
    }
    simd::unroll<R, N>([&](int q, int c) QUANTAL_LAMBDA {
      if (r + q < w.count) sums[c][r + q] += simd::sum_of(total[q][c]);
    });
  }
}

/// Rows times columns [at, at + N), of which there may be fewer.
template <block_format F, class A, int N>
void register_rows(const weight_rows& w, const std::byte* x, std::int64_t column_bytes, const columns& cols,
                   std::int64_t at) noexcept {
  float sums[std::size_t{N}][std::size_t{task_rows}] = {};
  const std::int64_t slices = (w.cols + slice_weights - 1) / slice_weights;
  for (std::int64_t from = 0; from < slices; from += cached_slices<N>)
    add_cached_slices<F, A, N>(w, x + at * column_bytes, from,
                               from + cached_slices<N> < slices ? from + cached_slices<N> : slices, sums);
  for (int c = 0; c < N && at + c < cols.n; ++c)
    std::memcpy(cols.result(at + c) + w.first, sums[c], sizeof(float) * static_cast<std::size_t>(w.count));
}

/// The same in plain C++ for one column of a tile: emulated registers would only slow the compiler down.
template <block_format F, class A>
void plain_rows(const weight_rows& w, const std::byte* x, std::int64_t width, float* out) noexcept {
  constexpr code_form form = form_of<F, A>();
  constexpr lane_map map = transposed_lanes<4>();
  for (int r = 0; r < w.count; ++r) {
    const float row_factor = row_scale<F>(w.row(r));
    float total = 0.0f;
    auto* column = reinterpret_cast<const lane_column<4>*>(x);
    for (std::int64_t first = 0; first < w.cols; first += slice_weights, column += width) {
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

/// Every row with every column, eight columns at a time. `x`: padded_lane_columns columns arranged by
/// lane_decoder<F, A>::map, those past the last equal to it.
template <block_format F, class A>
void coded_rows(const weight_rows& w, const std::byte* x, const columns& cols) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>) {
    const std::int64_t bytes = lane_column_bytes(4, w.cols), count = padded_lane_columns(cols.n);
    for (std::int64_t at = 0; at < cols.n; ++at) {
      const std::int64_t tile = at / lane_tile * lane_tile;
      plain_rows<F, A>(w, x + tile * bytes + (at - tile) * static_cast<std::int64_t>(sizeof(lane_column<4>)),
                       count - tile < lane_tile ? count - tile : lane_tile, cols.result(at) + w.first);
    }
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
