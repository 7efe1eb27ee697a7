// mul_mat: one weight matrix times n activation vectors.
#pragma once

#include <span>

#include "quantal/executor.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/kernel/q8_panels.hpp"
#include "quantal/kernel/q8_rows.hpp"
#include "quantal/status.hpp"

namespace quantal {
namespace kernel {

/// The q8 products of one form. A class, and its members defined outside of it, so that they can be compiled
/// apart from the formats that use them (extern template).
template <class A, code_form form>
struct q8_products {
  static void rows(code_decoder decode, int bias, const weight_rows& w, const q8_rows& x,
                   const columns& cols) noexcept;
  static void panels(code_decoder decode, const weight_rows& w, const q8_packed& x,
                     const columns& cols) noexcept;
};
template <class A, code_form form>
void q8_products<A, form>::rows(code_decoder decode, int bias, const weight_rows& w, const q8_rows& x,
                                const columns& cols) noexcept {
  coded_rows<A, form>(decode, bias, w, x, cols);
}
template <class A, code_form form>
void q8_products<A, form>::panels(code_decoder decode, const weight_rows& w, const q8_packed& x,
                                  const columns& cols) noexcept {
  coded_panels<A, form>(decode, w, x, cols);
}

/// How a format enters the products: one function decodes its slices, the rest is compiled once per arch and
/// form.
struct weight_format {
  float_decoder floats;
  /// Of the format's form; null for float formats, which always take the exact path.
  void (*q8_rows_product)(code_decoder, int bias, const weight_rows&, const q8_rows&,
                          const columns&) noexcept;
  void (*q8_panels_product)(code_decoder, const weight_rows&, const q8_packed&, const columns&) noexcept;
  int elements, row_meta, bytes;
  int sub, bias;  ///< weights per scale, code bias
};

template <any_format F, class A>
constexpr weight_format weight_format_of() noexcept {
  weight_format f{float_decoder_of<F, A>(), nullptr,         nullptr, F::layout.elements,
                  F::layout.row_meta,       F::layout.bytes, 32,      0};
  if constexpr (block_format<F>) {
    constexpr code_form form = form_of<F, A>();
    f.q8_rows_product = &q8_products<A, form>::rows;
    f.q8_panels_product = &q8_products<A, form>::panels;
    f.sub = form.sub;
    f.bias = code_bias<F>;
  }
  return f;
}

QUANTAL_INLINE bool uses_q8(const weight_format& f, activation policy) noexcept {
  return f.q8_rows_product && policy == activation::q8;
}
QUANTAL_INLINE q8_shape q8_shape_of(const weight_format& f, std::int64_t cols) noexcept {
  return {cols, f.sub, f.bias};
}

/// Enough columns for decoding into panels to beat dot products row by row.
template <class A>
QUANTAL_INLINE bool takes_panels(std::int64_t n) noexcept {
  return n >= tile_for<A>().panel_columns;
}

QUANTAL_INLINE std::byte* align64(std::byte* p) noexcept {
  return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + 63) & ~std::uintptr_t{63});
}

QUANTAL_INLINE status check_weights(const weight_format& f, const std::byte* weights, std::int64_t rows,
                                    std::int64_t cols, std::int64_t row_stride) noexcept {
  if (rows < 0 || cols <= 0 || cols % f.elements != 0) return status::bad_shape;
  if (!weights && rows > 0) return status::null_pointer;
  if (row_stride < f.row_meta + cols / f.elements * f.bytes) return status::bad_stride;
  return status::ok;
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

/// Interleaved columns that a product of n columns keeps beside its rows.
template <class A>
QUANTAL_INLINE std::int64_t packed_columns(std::int64_t n) noexcept {
  return takes_panels<A>(n) ? tiles_of<A>::padded(n) : 0;
}

/// One task of a q8 product.
QUANTAL_INLINE void q8_product(const weight_format& f, const weight_rows& w, const q8_rows& rows,
                               const q8_packed* packed, const columns& cols) noexcept {
  if (packed)
    f.q8_panels_product(f.floats.codes, w, *packed, cols);
  else
    f.q8_rows_product(f.floats.codes, f.bias, w, rows, cols);
}

/// Rows of activations, then the same interleaved where panels are used.
template <class A>
std::size_t mul_mat_workspace(const weight_format& f, const mul_mat_args& a, activation policy) noexcept {
  if (!uses_q8(f, policy) || a.cols <= 0 || a.n <= 0) return 0;
  return 64 + static_cast<std::size_t>((a.n + packed_columns<A>(a.n)) * q8_shape_of(f, a.cols).bytes());
}

/// Rounds and interleaves the columns of a dense product.
template <class A>
void quantize_tiles(const q8_rows& rows, const float_activations& x, const columns& cols,
                    const q8_packed& packed, executor_ref executor) noexcept {
  const tiles_of<A> tiles(cols.n);
  executor.for_each(static_cast<int>(tiles.count()), [&](int tile, int) {
    for (std::int64_t i = tiles.begin(tile); i < tiles.begin(tile + 1) && i < cols.n; ++i)
      quantize_activation<A>(rows, i, x.row(i));
    pack_tile<A>(rows, cols, tile, slice_weights, packed);
  });
}

template <class A>
void mul_mat_q8(const weight_format& f, const mul_mat_args& a, const float_activations& x,
                const columns& cols, executor_ref executor, std::byte* workspace) noexcept {
  const q8_shape shape = q8_shape_of(f, a.cols);
  const q8_rows rows{workspace, shape};
  const q8_packed packed{workspace + a.n * shape.bytes(), shape, tiles_of<A>::padded(a.n)};
  const bool panels = takes_panels<A>(a.n);
  if (panels)
    quantize_tiles<A>(rows, x, cols, packed, executor);
  else
    executor.for_each(static_cast<int>(a.n), [&](int i, int) { quantize_activation<A>(rows, i, x.row(i)); });
  executor.for_each(task_count(a.rows), [&](int t, int) {
    q8_product(f, task_rows_of(a.weights, a.weight_row_stride, a.rows, a.cols, t), rows,
               panels ? &packed : nullptr, cols);
  });
}

template <class A>
status mul_mat(const weight_format& f, const mul_mat_args& a, activation policy, executor_ref executor,
               std::span<std::byte> workspace) noexcept {
  if (const status s = check_weights(f, a.weights, a.rows, a.cols, a.weight_row_stride); s != status::ok)
    return s;
  if (a.n < 0) return status::bad_shape;
  if (a.n == 0 || a.rows == 0) return status::ok;
  if (!a.activations || !a.out) return status::null_pointer;
  if (a.n > 1 && (a.activation_stride < a.cols || a.out_stride < a.rows)) return status::bad_stride;
  if (workspace.size() < mul_mat_workspace<A>(f, a, policy)) return status::small_workspace;

  const columns cols{nullptr, a.n, 1, false, a.out, a.out_stride, 0};
  const float_activations x{a.activations, a.activation_stride, 0, 1};
  if (uses_q8(f, policy))
    mul_mat_q8<A>(f, a, x, cols, executor, align64(workspace.data()));
  else
    executor.for_each(task_count(a.rows), [&](int t, int) {
      exact_product<A>(f.floats, task_rows_of(a.weights, a.weight_row_stride, a.rows, a.cols, t), x, cols);
    });
  return status::ok;
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
