// Policy `q8`, many columns: 16 rows are decoded into a panel of bytes, four weights of a row to a 32-bit
// lane, so that one broadcast of four activations feeds 16 rows; bound by the int8 dot product (dpbusd on
// avx512_vnni). Per scale there is one conversion and one multiply-add per column, and one more where the
// format has offsets.
//
// Integer sums cover at most 128 products of u8 <= 255 and |s8| <= 127 in int32, and scales are float32:
// nothing overflows, however large the activations are.
#pragma once

#include "quantal/kernel/decode/folded.hpp"
#include "quantal/kernel/exact.hpp"
#include "quantal/kernel/lanes.hpp"

namespace quantal::kernel {

QUANTAL_INLINE std::int64_t slices_of(std::int64_t cols) noexcept {
  return (cols + slice_weights - 1) / slice_weights;
}

/// Offsets of a panel; formats without them take no room.
template <int count>
struct panel_offsets {
  alignas(64) float offsets[std::size_t{count * panel_rows}];
};
template <>
struct panel_offsets<0> {};

/// Offsets of one row of a panel.
template <code_form form>
inline constexpr int offsets_of_row = !form.offset  ? 0
                                      : form.paired ? paired_scale_at + 1
                                                    : slice_weights / form.sub;

/// One slice of 16 rows: codes interleaved in fours (in eights for archs with a matrix product), scales and
/// offsets by row.
template <code_form form>
struct coded_panel : panel_offsets<offsets_of_row<form>> {
  alignas(64) std::uint8_t codes[slice_weights * panel_rows];
  alignas(64) float scales[std::size_t{slice_weights / form.sub * panel_rows}];
};

/// Codes of a panel, interleaved in fours, as has_matrix_dot wants them: eight of a row beside each other.
QUANTAL_INLINE void join_fours(std::uint8_t* codes, int count) noexcept {
  constexpr std::size_t step = 8 * panel_rows;
  for (int k = 0; k < count; k += 8, codes += step) {
    std::uint8_t fours[step];
    std::memcpy(fours, codes, step);
    simd::unroll<panel_rows>([&](int r) QUANTAL_LAMBDA {
      std::memcpy(codes + 8 * r, fours + 4 * r, 4);
      std::memcpy(codes + 8 * r + 4, fours + 4 * (panel_rows + r), 4);
    });
  }
}

/// Asks for the slice from weight `first` on, of rows [from, to).
QUANTAL_INLINE void prefetch_rows(const weight_rows& w, std::int64_t first, int from, int to) noexcept {
  for (int r = from; r < to && r < w.count; ++r) {
    const std::byte* const row = w.row(r);
    prefetch(row, w.bytes_of(first), w.bytes_of(slice_weights), row + w.stride);
  }
}

/// So many rows at once are too many for the hardware's own prefetching. Those of short slices are asked for
/// as the slices before them are decoded, which costs nothing; long ones would be more lines than a core can
/// wait for at once, and are asked for bit by bit between the products.
QUANTAL_INLINE bool prefetches_late(const weight_rows& w) noexcept { return w.bytes_of(slice_weights) > 192; }

/// Calls decode(row, r) for 16 rows from row p on, those past the end repeating the last one.
template <class Fn>
QUANTAL_INLINE void for_panel_rows(const weight_rows& w, int p, std::int64_t first, Fn&& decode) noexcept {
  const bool early = !prefetches_late(w);
  for (int r = 0; r < panel_rows; ++r) {
    decode(w.row(p + r < w.count ? p + r : w.count - 1), r);
    if (early) prefetch_rows(w, first + slice_weights, p + r, p + r + 1);
  }
}

QUANTAL_INLINE const std::uint32_t* words_of(const void* v) noexcept {
  return static_cast<const std::uint32_t*>(v);
}
QUANTAL_INLINE std::uint32_t* words_of(void* v) noexcept { return static_cast<std::uint32_t*>(v); }

/// A panel of whole slices, each in its decoder's own order.
template <class A, code_form form>
void fill_from_lines(const panel_decoder& decode, const weight_rows& w, int p, std::int64_t first,
                     coded_panel<form>& panel) noexcept {
  constexpr int words = slice_weights / 4, lanes = static_cast<int>(xsimd::batch<float, A>::size);
  constexpr int stride = static_cast<int>(sizeof(lane_line) / 4);
  static_assert(stride % 16 == 0);
  lane_line lines[panel_rows];
  for_panel_rows(w, p, first, [&](const std::byte* row, int r) { decode.line(row, first, lines + r); });
  const lane_map& map = *decode.map;
  const auto word = [&](int i) QUANTAL_LAMBDA { return int{map.word[static_cast<std::size_t>(i)]}; };
  // Lanes with the same scale put it to the same place.
  const auto group = [&](int i) QUANTAL_LAMBDA {
    return word(i / lanes * map.depth * lanes + i % lanes) * 4 / form.sub;
  };
  simd::transpose16<A>(words_of(lines[0].codes), stride, words, words_of(panel.codes), word);
  simd::transpose16<A>(words_of(lines[0].scales), stride, words / map.depth, words_of(panel.scales), group);
}

/// A panel of `count` weights by way of natural order.
template <class A, code_form form>
void fill_from_slices(code_decoder decode, const weight_rows& w, int p, std::int64_t first, int count,
                      coded_panel<form>& panel) noexcept {
  coded_slice s[panel_rows];
  for_panel_rows(w, p, first, [&](const std::byte* row, int r) { decode(row, first, count, s + r); });
  constexpr int stride = static_cast<int>(sizeof(coded_slice) / 4);
  static_assert(stride % 16 == 0);
  simd::transpose16<A>(words_of(s[0].codes), stride, count / 4, words_of(panel.codes));
  simd::transpose16<A>(words_of(s[0].scales), stride, count / form.sub, words_of(panel.scales));
  if constexpr (form.offset) {
    const int offsets = form.paired ? offsets_of_row<form> : count / form.sub;
    simd::transpose16<A>(words_of(s[0].offsets), stride, offsets, words_of(panel.offsets));
  }
}

/// Decodes one slice of rows [p, p + 16) into a panel; rows past the end repeat the last one, their sums are
/// dropped.
template <class A, code_form form>
void fill_panel(const panel_decoder& decode, const weight_rows& w, int p, std::int64_t first, int count,
                coded_panel<form>& panel) noexcept {
  if (!form.offset && decode.line && count == slice_weights)
    fill_from_lines<A, form>(decode, w, p, first, panel);
  else
    fill_from_slices<A, form>(decode.codes, w, p, first, count, panel);
  if constexpr (simd::has_matrix_dot<A>) join_fours(panel.codes, count);
}

/// The tile in plain C++: emulated registers would only slow the compiler down.
template <code_form form, int P, int C>
QUANTAL_INLINE void plain_coded_tile(const coded_panel<form>* panels, int count, const q8_tile& x, bool add,
                                     float (*result)[panel_rows]) noexcept {
  constexpr int sub = form.sub;
  for (int p = 0; p < P; ++p)
    for (int c = 0; c < C; ++c)
      for (int from = 0; from < count; from += q8_block) {
        const coded_panel<form>& panel = panels[p];
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
  simd::i32<A> acc[std::size_t{C}][std::size_t{regs}];
  batch total[std::size_t{C}][std::size_t{regs}];
  /// First row of register r in its panel.
  static constexpr int at(int r) noexcept { return r % per_panel * lanes; }

  /// Integer sums of `sub` weights from scale g on, one row and one column to a lane at a time.
  QUANTAL_INLINE void dot_group(const coded_panel<form>* panels, const coded_panel<form>* next, int g,
                                const q8_tile& x) noexcept {
    constexpr int sub = form.sub;
    simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
      const simd::i32<A> start(form.biased ? x.starts[g * C + c] : 0);
      simd::unroll<regs>([&](int r) QUANTAL_LAMBDA { acc[c][r] = start; });
    });
    const std::int8_t* const columns = x.codes + C * sub * g;
    simd::unroll<(sub < 32 ? sub : 32) / 4>([&](int i) QUANTAL_LAMBDA {
      for (int k = 4 * i; k < sub; k += 32) {
        simd::u8<A> w[std::size_t{regs}];
        simd::unroll<regs>([&](int r) QUANTAL_LAMBDA {
          const int from = (g * sub + k) * panel_rows + 4 * at(r);
          w[r] = simd::u8<A>::load_aligned(panels[r / per_panel].codes + from);
          if (C <= 4 && at(r) % 16 == 0) __builtin_prefetch(next[r / per_panel].codes + from);
        });
        simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
          const simd::s8<A> a = simd::broadcast4<A>(columns + C * k + 4 * c);
          simd::unroll<regs>(
              [&](int r) QUANTAL_LAMBDA { acc[c][r] = simd::dot4_of<A, form.kind>(acc[c][r], w[r], a); });
        });
      }
    });
  }

  /// The same by two rows times two columns.
  QUANTAL_INLINE void matrix_dot_group(const coded_panel<form>* panels, int g, const q8_tile& x) noexcept {
    static_assert(C % 2 == 0 && lanes == 4);
    constexpr int sub = form.sub;
    using words = simd::i32<A>;
    words pair[std::size_t{C / 2}][std::size_t{2 * regs}];
    simd::unroll<C / 2>([&](int c) QUANTAL_LAMBDA {
      const std::int32_t* const starts = x.starts + g * C + 2 * c;
      const words start = form.biased ? words(starts[0], starts[1], starts[0], starts[1]) : words(0);
      simd::unroll<2 * regs>([&](int r) QUANTAL_LAMBDA { pair[c][r] = start; });
    });
    const std::int8_t* const columns = x.codes + C * sub * g;
    for (int k = 0; k < sub; k += 8) {
      simd::s8<A> a[std::size_t{C / 2}];
      matrix_columns_on<A, C>(columns + C * k, a, simd::on<A>{});
      simd::unroll<2 * regs>([&](int r) QUANTAL_LAMBDA {
        const int panel = r / (2 * per_panel), in_panel = r % (2 * per_panel);
        const auto w =
            simd::u8<A>::load_aligned(panels[panel].codes + (g * sub + k) * panel_rows + 16 * in_panel);
        simd::unroll<C / 2>([&](int c) QUANTAL_LAMBDA {
          pair[c][r] = matrix_dot8_on<A>(pair[c][r], w, a[c], simd::on<A>{});
        });
      });
    }
    simd::unroll<C / 2, regs>([&](int c, int r) QUANTAL_LAMBDA {
      const words low = pair[c][2 * r], high = pair[c][2 * r + 1];
      acc[2 * c][r] = matrix_column_on<A, 0>(low, high, simd::on<A>{});
      acc[2 * c + 1][r] = matrix_column_on<A, 1>(low, high, simd::on<A>{});
    });
  }

  /// Adds the offsets of `sub` weights from scale g on, whose integers are summed before their scale.
  QUANTAL_INLINE void add_paired_offsets(const coded_panel<form>* panels, int g, const q8_tile& x) noexcept {
    constexpr int pairs = form.sub / 32;
    const auto words = [](const float* p) QUANTAL_LAMBDA { return reinterpret_cast<const std::int32_t*>(p); };
    simd::unroll<C, regs>([&](int c, int r) QUANTAL_LAMBDA { acc[c][r] = simd::i32<A>(0); });
    simd::unroll<pairs, regs>([&](int i, int r) QUANTAL_LAMBDA {
      const float* const offsets = panels[r / per_panel].offsets + (g * pairs + i) * panel_rows + at(r);
      const auto w = simd::i32<A>::load_aligned(words(offsets));
      simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
        const simd::i32<A> sums(words(x.sums)[(g * pairs + i) * C + c]);
        acc[c][r] = dot2_on<A>(acc[c][r], w, sums, simd::on<A>{});
      });
    });
    simd::unroll<regs>([&](int r) QUANTAL_LAMBDA {
      const batch scale =
          batch::load_aligned(panels[r / per_panel].offsets + paired_scale_at * panel_rows + at(r));
      simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
        total[c][r] = xsimd::fma(xsimd::to_float(acc[c][r]), scale, total[c][r]);
      });
    });
  }

  /// `sub` weights from scale g on.
  QUANTAL_INLINE void add_group(const coded_panel<form>* panels, const coded_panel<form>* next, int g,
                                const q8_tile& x) noexcept {
    if constexpr (form.paired) add_paired_offsets(panels, g, x);
    if constexpr (simd::has_matrix_dot<A>)
      matrix_dot_group(panels, g, x);
    else
      dot_group(panels, next, g, x);
    simd::unroll<regs>([&](int r) QUANTAL_LAMBDA {
      const int from = g * panel_rows + at(r);
      const batch scale = batch::load_aligned(panels[r / per_panel].scales + from);
      if (C <= 4 && at(r) == 0) __builtin_prefetch(next[r / per_panel].scales + from);
      simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
        total[c][r] = xsimd::fma(xsimd::to_float(acc[c][r]), scale, total[c][r]);
      });
      if constexpr (form.offset && !form.paired) {
        const batch offset = batch::load_aligned(panels[r / per_panel].offsets + from);
        if (C <= 4 && at(r) == 0) __builtin_prefetch(next[r / per_panel].offsets + from);
        simd::unroll<C>([&](int c) QUANTAL_LAMBDA {
          total[c][r] = xsimd::fma(offset, batch(x.sums[g * C + c]), total[c][r]);
        });
      }
    });
  }
};

template <class A, code_form form, int P, int C>
QUANTAL_INLINE void register_coded_tile(const coded_panel<form>* panels, const coded_panel<form>* next,
                                        int count, const q8_tile& x, bool add,
                                        float (*result)[panel_rows]) noexcept {
  using tile = coded_accumulators<A, form, P, C>;
  using batch = typename tile::batch;
  tile t;
  for (int from = 0; from < count; from += q8_block) {
    const int to = count - from < q8_block ? count : from + q8_block;
    simd::unroll<C, tile::regs>([&](int c, int r) QUANTAL_LAMBDA { t.total[c][r] = batch(0.0f); });
    for (int g = from / form.sub; g < to / form.sub; ++g) t.add_group(panels, next, g, x);
    simd::unroll<C, tile::regs>([&](int c, int r) QUANTAL_LAMBDA {
      float* const out = result[r / tile::per_panel * C + c] + r % tile::per_panel * tile::lanes;
      const batch scale(x.scales[from / q8_block * C + c]);
      const batch before = add || from ? batch::load_aligned(out) : batch(0.0f);
      xsimd::fma(t.total[c][r], scale, before).store_aligned(out);
    });
  }
}

/// result[p * C + c][0..16) = panel p times column c, added to what is there where `add`.
template <class A, code_form form, int P, int C>
void coded_tile(const coded_panel<form>* panels, const coded_panel<form>* next, int count, const q8_tile& x,
                bool add, float (*result)[panel_rows]) noexcept {
  if constexpr (std::is_same_v<A, simd::scalar>)
    plain_coded_tile<form, P, C>(panels, count, x, add, result);
  else
    register_coded_tile<A, form, P, C>(panels, next, count, x, add, result);
}

/// Panels that are decoded where they are needed.
template <class A, code_form form>
struct decoded_panels {
  static constexpr int ahead = 0;
  const panel_decoder& decode;
  const weight_rows& w;
  coded_panel<form> panels[coded_panels_at_once];

  QUANTAL_INLINE decoded_panels(const panel_decoder& decoder, const weight_rows& rows) noexcept
      : decode(decoder), w(rows) {}
  QUANTAL_INLINE const coded_panel<form>* at(int p, std::int64_t first, int count) noexcept {
    for (int q = 0; q < coded_panels_at_once; ++q)
      fill_panel<A, form>(decode, w, (p + q) * panel_rows, first, count, panels[q]);
    return panels;
  }
  /// Rows [from, to) of a slice that comes later.
  QUANTAL_INLINE void prefetch(std::int64_t first, int from, int to) const noexcept {
    if (prefetches_late(w)) prefetch_rows(w, first, from, to);
  }
};

/// Panels that were stored by store_panels, in the order in which coded_panels wants them: those of one slice
/// beside each other, slice after slice.
template <code_form form>
struct stored_panels {
  static constexpr int ahead = coded_panels_at_once;
  const coded_panel<form>* panels;  ///< of the first row
  std::int64_t slices;

  QUANTAL_INLINE explicit stored_panels(const weight_rows& w) noexcept
      : panels(reinterpret_cast<const coded_panel<form>*>(w.data)), slices(slices_of(w.cols)) {
    panels += w.first / panel_rows * slices;
  }
  QUANTAL_INLINE const coded_panel<form>* at(int p, std::int64_t first, int) const noexcept {
    return panels + p * slices + first / slice_weights * coded_panels_at_once;
  }
  /// Tiles fetch the panels ahead as they go.
  QUANTAL_INLINE void prefetch(std::int64_t, int, int) const noexcept {}
};

/// Stores the rows' panels where stored_panels finds them; `out` is the memory of the whole matrix.
template <class A, code_form form>
void store_panels(const panel_decoder& decode, const weight_rows& w, std::byte* out) noexcept {
  static_assert(task_rows % (coded_panels_at_once * panel_rows) == 0);
  const std::int64_t slices = slices_of(w.cols);
  auto* panel = reinterpret_cast<coded_panel<form>*>(out) + w.first / panel_rows * slices;
  for (int p = 0; p * panel_rows < w.count; p += coded_panels_at_once)
    for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
      const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
      for (int q = 0; q < coded_panels_at_once; ++q)
        fill_panel<A, form>(decode, w, (p + q) * panel_rows, first, count, *panel++);
    }
}

/// Panels p .. p + coded_panels_at_once of the rows, from a source of such panels, times the columns of tiles
/// [from, to).
template <class A, code_form form, class Source>
void coded_pass(Source& source, const weight_rows& w, int p, const q8_packed& x, const columns& cols,
                std::int64_t from, std::int64_t to) noexcept {
  constexpr int P = tile_for<A>().coded_panels, group = coded_panels_at_once;
  static_assert(group % P == 0);
  alignas(64) float sums[pass_columns * group][panel_rows];
  const tiles_of<A> tiles(cols.n);
  const std::int64_t begin = tiles.begin(from);
  for (std::int64_t first = 0; first < w.cols; first += slice_weights) {
    const int count = static_cast<int>(w.cols - first < slice_weights ? w.cols - first : slice_weights);
    const coded_panel<form>* const panels = source.at(p, first, count);
    const coded_panel<form>* const next = panels + Source::ahead;
    for (std::int64_t i = from; i < to; ++i) {
      const auto share = [&](std::int64_t t) QUANTAL_LAMBDA {
        return p * panel_rows + static_cast<int>((t - from) * group * panel_rows / (to - from));
      };
      source.prefetch(first + slice_weights, share(i), share(i + 1));
      const std::int64_t at = tiles.begin(i);
      const q8_tile v = x.tile(at, first, count);
      tiles.with_width(i, [&]<int C>() {
        for (int q = 0; q < group; q += P)
          coded_tile<A, form, P, C>(panels + q, next + q, count, v, first != 0,
                                    sums + (at - begin) * group + q * C);
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

/// Rows x columns through the panels of a source.
template <class A, code_form form, class Source>
QUANTAL_INLINE void coded_panels(Source& source, const weight_rows& w, const q8_packed& x,
                                 const columns& cols) noexcept {
  constexpr int tiles_per_pass = pass_columns / tile_for<A>().coded_columns;
  const std::int64_t count = tiles_of<A>(cols.n).count(),
                     passes = (count + tiles_per_pass - 1) / tiles_per_pass;
  for (int p = 0; p * panel_rows < w.count; p += coded_panels_at_once)
    for (std::int64_t pass = 0; pass < passes; ++pass)
      coded_pass<A, form>(source, w, p, x, cols, count * pass / passes, count * (pass + 1) / passes);
}

}  // namespace quantal::kernel
