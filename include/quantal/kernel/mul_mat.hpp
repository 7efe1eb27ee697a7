// mul_mat: one weight matrix times n activation vectors.
#pragma once

#include <span>

#include "quantal/checks.hpp"
#include "quantal/executor.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/kernel/q8_panels.hpp"
#include "quantal/kernel/q8_rows.hpp"
#include "quantal/status.hpp"

namespace quantal {
namespace kernel {

/// The q8 products through panels of one form. A class, and its members defined outside of it, so that they
/// can be compiled apart from the formats that use them (extern template).
template <class A, code_form form>
struct q8_products {
  static void panels(const panel_decoder& decode, const weight_rows& w, const q8_packed& x,
                     const columns& cols) noexcept;
  /// The two halves of `panels`, see pack.hpp: decodes rows into memory, and multiplies rows from there.
  static void pack(const panel_decoder& decode, const weight_rows& w, std::byte* out) noexcept;
  static void packed(const weight_rows& w, const q8_packed& x, const columns& cols) noexcept;
};
template <class A, code_form form>
void q8_products<A, form>::panels(const panel_decoder& decode, const weight_rows& w, const q8_packed& x,
                                  const columns& cols) noexcept {
  decoded_panels<A, form> source(decode, w);
  coded_panels<A, form>(source, w, x, cols);
}
template <class A, code_form form>
void q8_products<A, form>::pack(const panel_decoder& decode, const weight_rows& w, std::byte* out) noexcept {
  store_panels<A, form>(decode, w, out);
}
template <class A, code_form form>
void q8_products<A, form>::packed(const weight_rows& w, const q8_packed& x, const columns& cols) noexcept {
  stored_panels<form> source(w);
  coded_panels<A, form>(source, w, x, cols);
}

/// How a format enters the products: functions that decode its slices and multiply few columns; products of
/// many columns are compiled once per arch and form.
struct weight_format {
  float_decoder floats;
  /// Null for float formats, which always take the exact path.
  void (*q8_rows_product)(const weight_rows&, const std::byte* lanes, const columns&) noexcept;
  void (*q8_panels_product)(const panel_decoder&, const weight_rows&, const q8_packed&,
                            const columns&) noexcept;
  /// Of formats that pack.hpp takes; null elsewhere, so that products alone do not instantiate them.
  void (*pack)(const panel_decoder&, const weight_rows&, std::byte* out) noexcept;
  void (*q8_packed_product)(const weight_rows&, const q8_packed&, const columns&) noexcept;
  int panel_bytes;  ///< of a packed panel
  panel_decoder panels;
  const lane_map* map;
  int elements, row_meta, bytes;
  int sub, bias;  ///< weights per sum of the activations of panels, and the code bias that it undoes
  bool paired;    ///< see code_form
  int lane_bias;  ///< code bias of few columns
  bool offset;
  bool pairs;  ///< bfloat16: may meet bfloat16 activations
};

inline constexpr lane_map plain_lanes = transposed_lanes<4>();

template <any_format F, class A>
constexpr weight_format weight_format_of() noexcept {
  static_assert(check_format<F>());
  weight_format f{};
  f.floats = float_decoder_of<F, A>();
  f.elements = F::layout.elements;
  f.row_meta = F::layout.row_meta;
  f.bytes = F::layout.bytes;
  f.sub = 32;
  f.pairs = std::is_same_v<F, bf16>;
  if constexpr (block_format<F>) {
    constexpr code_form form = form_of<F, A>(), panel_form = panel_form_of<F, A>();
    f.q8_rows_product = &coded_rows<F, A>;
    f.q8_panels_product = &q8_products<A, panel_form>::panels;
    f.sub = panel_form.paired ? form.sub : panel_form.sub;
    f.bias = panel_bias<F, A>;
    f.paired = panel_form.paired;
    f.lane_bias = form.biased ? code_bias<F> : 0;
    f.offset = form.offset;
    f.panels = {panel_codes_of<F, A>(), nullptr, nullptr};
    if constexpr (std::is_same_v<A, simd::scalar>) {
      f.map = &plain_lanes;
    } else {
      f.map = &lane_decoder<F, A>::map;
      if constexpr (fills_by_line<F, A> && !folds_scales<F, A>)
        f.panels = {f.panels.codes, &decode_line<F, A>, f.map};
    }
  }
  return f;
}

QUANTAL_INLINE bool uses_q8(const weight_format& f, activation policy) noexcept {
  return f.q8_rows_product && policy == activation::q8;
}
/// Rounds activations to bfloat16 rather than int8, where many of them meet bfloat16 weights.
template <class A>
QUANTAL_INLINE bool uses_pairs(const weight_format& f, activation policy) noexcept {
  return f.pairs && policy == activation::q8 && has_bf16_dot<A>();
}
QUANTAL_INLINE q8_shape q8_shape_of(const weight_format& f, std::int64_t cols) noexcept {
  return {cols, f.sub, f.bias, f.paired};
}

/// Enough columns for decoding into panels to beat dot products row by row.
template <class A>
QUANTAL_INLINE bool takes_panels(std::int64_t n) noexcept {
  return n >= tile_for<A>().panel_columns;
}

QUANTAL_INLINE std::byte* align64(std::byte* p) noexcept {
  return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + 63) & ~std::uintptr_t{63});
}

QUANTAL_INLINE checks::row_layout layout_of(const weight_format& f) noexcept {
  return {f.elements, f.row_meta, f.bytes};
}

QUANTAL_INLINE int task_count(std::int64_t rows) noexcept {
  return static_cast<int>((rows + task_rows - 1) / task_rows);
}

/// Rows of task t of a matrix.
QUANTAL_INLINE weight_rows task_rows_of(const std::byte* data, std::int64_t stride, std::int64_t rows,
                                        std::int64_t cols, int t) noexcept {
  const std::int64_t first = std::int64_t{t} * task_rows;
  const std::int64_t left = rows - first;
  return {data, stride, cols, first, static_cast<int>(left < task_rows ? left : task_rows)};
}

/// Quantized columns in the order that a product of n of them reads: tiles beside panels, or lanes.
template <class A>
struct arranged_columns {
  std::byte* data;
  q8_shape shape;
  const weight_format& f;
  bool panels;

  QUANTAL_INLINE arranged_columns(std::byte* at, const weight_format& format, std::int64_t cols,
                                  std::int64_t n) noexcept
      : data(at), shape(q8_shape_of(format, cols)), f(format), panels(takes_panels<A>(n)) {}

  /// Bytes of one column in either order.
  static QUANTAL_INLINE std::int64_t column_bytes(const weight_format& f, std::int64_t cols) noexcept {
    const std::int64_t tile = q8_shape_of(f, cols).bytes(), lanes = lane_column_bytes(f.map->depth, cols);
    return tile < lanes ? lanes : tile;
  }
  /// At most three columns more than n.
  static QUANTAL_INLINE std::int64_t padded(std::int64_t n) noexcept {
    return takes_panels<A>(n) ? tiles_of<A>::padded(n) : padded_lane_columns(n);
  }
  /// Parts that can be arranged apart from each other.
  QUANTAL_INLINE std::int64_t parts(std::int64_t n) const noexcept {
    return panels ? tiles_of<A>(n).count() : padded(n);
  }
  /// First column that part p reads.
  QUANTAL_INLINE std::int64_t begin(std::int64_t p, std::int64_t n) const noexcept {
    const std::int64_t at = panels ? tiles_of<A>(n).begin(p) : p;
    return at < n ? at : n;
  }
  void arrange(const q8_rows& rows, const columns& cols, std::int64_t p) const noexcept {
    if (panels)
      pack_tile<A>(rows, cols, p, slice_weights, packed(cols.n));
    else
      arrange_lanes<A>(*f.map, f.lane_bias, f.offset, rows, cols.activation_row(p < cols.n ? p : cols.n - 1),
                       p, padded(cols.n), data);
  }
  QUANTAL_INLINE q8_packed packed(std::int64_t n) const noexcept { return {data, shape, padded(n)}; }

  /// One task of a product.
  QUANTAL_INLINE void multiply(const weight_rows& w, const columns& cols) const noexcept {
    if (panels)
      f.q8_panels_product(f.panels, w, packed(cols.n), cols);
    else
      f.q8_rows_product(w, data, cols);
  }
};

/// Rows of activations, then the same arranged.
template <class A>
std::size_t mul_mat_workspace(const weight_format& f, const mul_mat_args& a, activation policy) noexcept {
  if (a.cols <= 0 || a.n <= 0) return 0;
  if (!checks::dimension(a.cols) || !checks::dimension(a.n)) return std::numeric_limits<std::size_t>::max();
  if (!uses_q8(f, policy)) {
    const std::int64_t bytes = exact_columns<A>::bytes(a.cols, a.n);
    return bytes > 0 ? 64 + static_cast<std::size_t>(bytes) : 0;
  }
  const checks::capped_size rows = checks::capped_size(a.n) * q8_shape_of(f, a.cols).bytes();
  const checks::capped_size arranged =
      checks::capped_size(arranged_columns<A>::padded(a.n)) * arranged_columns<A>::column_bytes(f, a.cols);
  return (64 + rows + arranged).value();
}

/// Rounds and arranges the columns of a dense product; false if the executor failed.
template <class A, class Arranged>
bool quantize_columns(const q8_rows& rows, const float_activations& x, const columns& cols,
                      const Arranged& arranged, executor_ref executor) noexcept {
  const auto quantize = [&](std::int64_t from, std::int64_t to) {
    for (std::int64_t i = from; i < to; ++i) quantize_activation<A>(rows, i, x.row(i));
  };
  const std::int64_t last = cols.n - 1;
  return executor.for_each(static_cast<int>(arranged.parts(cols.n)), [&](int part, int) {
    const std::int64_t from = arranged.begin(part, cols.n), to = arranged.begin(part + 1, cols.n);
    if (from <= last) quantize(from, to);
    if (from <= last) arranged.arrange(rows, cols, part);
    // Columns past the last repeat it; whoever has the last one writes them.
    if (!arranged.panels && from == last)
      for (std::int64_t p = part + 1; p < arranged.parts(cols.n); ++p) arranged.arrange(rows, cols, p);
  });
}

template <class A, class Arranged = arranged_columns<A>>
bool mul_mat_q8(const weight_format& f, const mul_mat_args& a, const float_activations& x,
                const columns& cols, executor_ref executor, std::byte* workspace) noexcept {
  const q8_rows rows{workspace, q8_shape_of(f, a.cols)};
  const Arranged arranged(workspace + a.n * rows.shape.bytes(), f, a.cols, a.n);
  return quantize_columns<A>(rows, x, cols, arranged, executor) &&
         executor.for_each(task_count(a.rows), [&](int t, int) {
           arranged.multiply(task_rows_of(a.weights, a.weight_row_stride, a.rows, a.cols, t), cols);
         });
}

template <class A>
bool mul_mat_exact(const weight_format& f, const mul_mat_args& a, activation policy,
                   const float_activations& x, const columns& cols, executor_ref executor,
                   std::byte* workspace) noexcept {
  const exact_columns<A> arranged(workspace, x, a.n, uses_pairs<A>(f, policy));
  return executor.for_each(static_cast<int>(arranged.parts(a.n)), [&](int part, int) {
    arranged.arrange(cols, a.cols, part);
  }) && executor.for_each(task_count(a.rows), [&](int t, int) {
    arranged.multiply(f.floats, task_rows_of(a.weights, a.weight_row_stride, a.rows, a.cols, t), cols);
  });
}

template <class A>
status mul_mat(const weight_format& f, const mul_mat_args& a, activation policy, executor_ref executor,
               std::span<std::byte> workspace) noexcept {
  const checks::row_layout layout = layout_of(f);
  if (const status s = checks::check_product(layout, a); s != status::ok || checks::nothing_to_do(a))
    return s;
  if (const status s = checks::check_workspace(a, checks::weights_of(a).memory(layout), workspace.data(),
                                               workspace.size(), mul_mat_workspace<A>(f, a, policy));
      s != status::ok)
    return s;

  const columns cols{nullptr, a.n, 1, false, a.out, a.out_stride, 0};
  const float_activations x{a.activations, a.activation_stride, 0, 1};
  const bool done = uses_q8(f, policy)
                        ? mul_mat_q8<A>(f, a, x, cols, executor, align64(workspace.data()))
                        : mul_mat_exact<A>(f, a, policy, x, cols, executor, align64(workspace.data()));
  return done ? status::ok : status::executor_failed;
}

/// The products of an arch, whatever the format; apart from the formats for the same reason as q8_products.
template <class A>
struct products {
  static status dense(const weight_format& f, const mul_mat_args& a, activation policy, executor_ref executor,
                      std::span<std::byte> workspace) noexcept;
  static status routed(const weight_format& f, const mul_mat_id_args& a, activation policy,
                       executor_ref executor, std::span<std::byte> workspace) noexcept;
};
template <class A>
status products<A>::dense(const weight_format& f, const mul_mat_args& a, activation policy,
                          executor_ref executor, std::span<std::byte> workspace) noexcept {
  return mul_mat<A>(f, a, policy, executor, workspace);
}

}  // namespace kernel

/// Bytes of workspace that mul_mat wants for these shapes.
template <any_format F, class A>
std::size_t mul_mat_workspace(const mul_mat_args& a, activation policy) noexcept {
  return kernel::mul_mat_workspace<A>(kernel::weight_format_of<F, A>(), a, policy);
}

/// out = W x, see mul_mat_args. Results do not depend on the executor. No allocation.
template <any_format F, class A>
status mul_mat(const mul_mat_args& a, activation policy, executor_ref executor,
               std::span<std::byte> workspace) noexcept {
  return kernel::products<A>::dense(kernel::weight_format_of<F, A>(), a, policy, executor, workspace);
}

}  // namespace quantal
