// Policy `q8`, many columns: 16 rows are decoded into a panel of bytes, four weights of a row to a 32-bit
// lane, so that one broadcast of four activations feeds 16 rows; bound by the int8 dot product (dpbusd on
// avx512_vnni). Per scale there is one conversion and one multiply-add per column, and one more where the
// format has offsets.
//
// Integer sums cover at most 128 products of u8 <= 255 and |s8| <= 127 in int32, and scales are float32:
// nothing overflows, however large the activations are.
#pragma once

#include "quantal/kernel/exact.hpp"
#include "quantal/kernel/q8_activations.hpp"

namespace quantal::kernel {

/// One slice of 16 rows: codes interleaved in fours, scales and offsets by row.
struct coded_panel {
  alignas(64) std::uint8_t codes[slice_weights * panel_rows];
  alignas(64) float scales[slice_scales * panel_rows];
  alignas(64) float offsets[slice_scales * panel_rows];
};

/// Decodes one slice of rows [p, p + 16) into a panel; rows past the end repeat the last one, their sums are
/// dropped.
template <class A, code_form form>
void fill_panel(code_decoder decode, const weight_rows& w, int p, std::int64_t first, int count,
                coded_panel& panel) noexcept {
  coded_slice s[panel_rows];
  const std::int64_t slice_bytes = w.bytes_of(slice_weights), next = w.bytes_of(first + slice_weights);
  for (int r = 0; r < panel_rows; ++r) {
    const std::byte* const row = w.row(p + r < w.count ? p + r : w.count - 1);
    decode(row, first, count, s + r);
    // So many rows at once are too many for the hardware's own prefetching.
    prefetch(row, next, slice_bytes, row + w.stride);
  }
  constexpr int stride = static_cast<int>(sizeof(coded_slice) / 4);
  static_assert(stride % 16 == 0);
  const auto words = [](const void* v) { return reinterpret_cast<const std::uint32_t*>(v); };
  const auto out = [](void* v) { return reinterpret_cast<std::uint32_t*>(v); };
  simd::transpose16<A>(words(s[0].codes), stride, count / 4, out(panel.codes));
  simd::transpose16<A>(words(s[0].scales), stride, count / form.sub, out(panel.scales));
  if constexpr (form.offset)
    simd::transpose16<A>(words(s[0].offsets), stride, count / form.sub, out(panel.offsets));
}

/// The tile in plain C++: emulated registers would only slow the compiler down.
template <code_form form, int P, int C>
QUANTAL_INLINE void plain_coded_tile(const coded_panel* panels, int count, const q8_tile& x, bool add,
                                     float (*result)[panel_rows]) noexcept {
  constexpr int sub = form.sub;
  for (int p = 0; p < P; ++p)
    for (int c = 0; c < C; ++c)
      for (int from = 0; from < count; from += q8_block) {
        const coded_panel& panel = panels[p];
        const int to = count - from < q8_block ? count : from + q8_block;
        float total[panel_rows] = {};
        for (int g = from / sub; g < to / sub; ++g) {
          std::int32_t acc[panel_rows];
          for (int r = 0; r < panel_rows; ++r) acc[r] = form.biased ? x.starts[g * C + c] : 0;
          for (int k = g * sub; k < (g + 1) * sub; k += 4)
            for (int r = 0; r < panel_rows; ++r)
              for (int j = 0; j < 4; ++j)
                acc[r] += panel.codes[k * panel_rows + 4 * r + j] * x.codes[C * k + 4 * c + j];
          for (int r = 0; r < panel_rows; ++r) {
            total[r] += static_cast<float>(acc[r]) * panel.scales[g * panel_rows + r];
            if constexpr (form.offset) total[r] += panel.offsets[g * panel_rows + r] * x.sums[g * C + c];
          }
        }
        float* const out = result[p * C + c];
        for (int r = 0; r < panel_rows; ++r)
          out[r] = (add || from ? out[r] : 0.0f) + total[r] * x.scales[from / q8_block * C + c];
      }
}

/// P panels times C columns; the integer sums of one scale, and the float sums of one activation scale.
template <class A, code_form form, int P, int C>
struct coded_accumulators {
  using batch = xsimd::batch<float, A>;
  static constexpr int lanes = static_cast<int>(batch::size), regs = P * panel_rows / lanes,
                       per_panel = panel_rows / lanes;
  simd::i32<A> acc[C][regs];
  batch total[C][regs];

  /// `sub` weights from scale g on.
  QUANTAL_INLINE void add_group(const coded_panel* panels, int g, const q8_tile& x) noexcept {
    constexpr int sub = form.sub;
    const auto at = [](auto r) QUANTAL_LAMBDA { return r % per_panel * lanes; };
    simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
      const simd::i32<A> start(form.biased ? x.starts[g * C + c] : 0);
      simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA { acc[c][r] = start; });
    });
    const std::int8_t* const columns = x.codes + C * sub * g;
    simd::unroll<(sub < 32 ? sub : 32) / 4>([&](auto i) QUANTAL_LAMBDA {
      for (int k = 4 * i; k < sub; k += 32) {
        simd::u8<A> w[regs];
        simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
          w[r] =
              simd::u8<A>::load_aligned(panels[r / per_panel].codes + (g * sub + k) * panel_rows + 4 * at(r));
        });
        simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
          const simd::s8<A> a = simd::broadcast4<A>(columns + C * k + 4 * c);
          simd::unroll<regs>(
              [&](auto r) QUANTAL_LAMBDA { acc[c][r] = simd::dot4_of<A, form.kind>(acc[c][r], w[r], a); });
        });
      }
    });
    simd::unroll<regs>([&](auto r) QUANTAL_LAMBDA {
      const batch scale = batch::load_aligned(panels[r / per_panel].scales + g * panel_rows + at(r));
      simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
        total[c][r] = xsimd::fma(xsimd::to_float(acc[c][r]), scale, total[c][r]);
      });
      if constexpr (form.offset) {
        const batch offset = batch::load_aligned(panels[r / per_panel].offsets + g * panel_rows + at(r));
        simd::unroll<C>([&](auto c) QUANTAL_LAMBDA {
          total[c][r] = xsimd::fma(offset, batch(x.sums[g * C + c]), total[c][r]);
        });
      }
    });
  }
};

template <class A, code_form form, int P, int C>
QUANTAL_INLINE void register_coded_tile(const coded_panel* panels, int count, const q8_tile& x, bool add,
                                        float (*result)[panel_rows]) noexcept {
  using tile = coded_accumulators<A, form, P, C>;
  using batch = typename tile::batch;
  tile t;
  for (int from = 0; from < count; from += q8_block) {
    const int to = count - from < q8_block ? count : from + q8_block;
    simd::unroll<C, tile::regs>([&](auto c, auto r) QUANTAL_LAMBDA { t.total[c][r] = batch(0.0f); });
    for (int g = from / form.sub; g < to / form.sub; ++g) t.add_group(panels, g, x);
    simd::unroll<C, tile::regs>([&](auto c, auto r) QUANTAL_LAMBDA {
      float* const out = result[r / tile::per_panel * C + c] + r % tile::per_panel * tile::lanes;
      const batch scale(x.scales[from / q8_block * C + c]);
      const batch before = add || from ? batch::load_aligned(out) : batch(0.0f);
      xsimd::fma(t.total[c][r], scale, before).store_aligned(out);
    });
  }
}

/// result[p * C + c][0..16) = panel p times column c, added to what is there where `add`.
template <class A, code_form form, int P, int C>
void coded_tile(const coded_panel* panels, int count, const q8_tile& x, bool add,
                float (*result)[panel_rows]) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>)
    plain_coded_tile<form, P, C>(panels, count, x, add, result);
  else
    register_coded_tile<A, form, P, C>(panels, count, x, add, result);
}

/// Panels p .. p + coded_panels_at_once of the rows times the columns of tiles [from, to).
template <class A, code_form form>
void coded_pass(code_decoder decode, const weight_rows& w, int p, const q8_packed& x, const columns& cols,
                std::int64_t from, std::int64_t to) noexcept {
  constexpr int P = tile_for<A>().coded_panels, group = coded_panels_at_once;
  static_assert(group % P == 0);
  coded_panel panels[group];
  alignas(64) float sums[pass_columns * group][panel_rows];
  const tiles_of<A> tiles(cols.n);
  const std::int64_t begin = tiles.begin(from);
  for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
    const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
    for (int q = 0; q < group; ++q)
      fill_panel<A, form>(decode, w, (p + q) * panel_rows, first, count, panels[q]);
    for (std::int64_t i = from; i < to; ++i) {
      const std::int64_t at = tiles.begin(i);
      const q8_tile v = x.tile(at, first, count);
      tiles.with_width(i, [&]<int C>() {
        for (int q = 0; q < group; q += P)
          coded_tile<A, form, P, C>(panels + q, count, v, first != 0, sums + (at - begin) * group + q * C);
      });
    }
  }
  for (std::int64_t i = from; i < to; ++i) {
    const std::int64_t at = tiles.begin(i), width = tiles.begin(i + 1) - at;
    for (int q = 0; q < group; ++q) {
      const int row = (p + q) * panel_rows, left = w.count - row;
      for (std::int64_t c = 0; c < width && at + c < cols.n; ++c)
        put_column(sums[(at - begin) * group + q * width + c], cols.result(at + c) + w.first + row,
                   left < panel_rows ? left : panel_rows, false);
    }
  }
}

/// Rows x columns through panels.
template <class A, code_form form>
void coded_panels(code_decoder decode, const weight_rows& w, const q8_packed& x,
                  const columns& cols) noexcept {
  constexpr int tiles_per_pass = pass_columns / tile_for<A>().coded_columns;
  const std::int64_t count = tiles_of<A>(cols.n).count(),
                     passes = (count + tiles_per_pass - 1) / tiles_per_pass;
  for (int p = 0; p * panel_rows < w.count; p += coded_panels_at_once)
    for (std::int64_t pass = 0; pass < passes; ++pass)
      coded_pass<A, form>(decode, w, p, x, cols, count * pass / passes, count * (pass + 1) / passes);
}

}  // namespace quantal::kernel
