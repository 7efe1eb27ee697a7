// mul_mat: one weight matrix times n activation vectors.
#pragma once

#include <span>

#include "quantal/executor.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/kernel/q8.hpp"
#include "quantal/status.hpp"

namespace quantal {
namespace kernel {

/// How a format enters the products: functions that decode its slices. Everything above them is compiled once
/// per arch.
struct slice_decoder {
  float_decoder floats;
  /// Integer products; null for float formats, which always take the exact path.
  void (*coded)(const weight_rows&, const q8_activations&, const columns&) noexcept;
  int elements, row_meta, bytes;
  int sub, bias;  ///< weights per scale, code bias
};

template <block_format F, class A>
void coded_product(const weight_rows& w, const q8_activations& x, const columns& cols) noexcept {
  if (cols.n >= tile_for<A>().panel_columns)
    coded_panels<A, form_of<F>>(&fill_panel<F, A>, w, x, cols);
  else
    coded_rows<F, A>(w, x, cols);
}

template <any_format F, class A>
constexpr slice_decoder decoder_of() noexcept {
  slice_decoder d{
      &float_slice<F, A>, nullptr, F::layout.elements, F::layout.row_meta, F::layout.bytes, 32, 0};
  if constexpr (block_format<F>) {
    d.coded = &coded_product<F, A>;
    d.sub = form_of<F>.sub;
    d.bias = code_bias<F>;
  }
  return d;
}

QUANTAL_INLINE bool uses_q8(const slice_decoder& d, activation policy) noexcept {
  return d.coded && policy == activation::q8;
}
QUANTAL_INLINE q8_activations q8_of(const slice_decoder& d, std::byte* data, std::int64_t cols) noexcept {
  return {data, cols, d.sub, d.bias};
}

QUANTAL_INLINE std::byte* align64(std::byte* p) noexcept {
  return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + 63) & ~std::uintptr_t{63});
}

QUANTAL_INLINE status check_weights(const slice_decoder& d, const std::byte* weights, std::int64_t rows,
                                    std::int64_t cols, std::int64_t row_stride) noexcept {
  if (rows < 0 || cols <= 0 || cols % d.elements != 0) return status::bad_shape;
  if (!weights && rows > 0) return status::null_pointer;
  if (row_stride < d.row_meta + cols / d.elements * d.bytes) return status::bad_stride;
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

/// Rounds `count` activation vectors; vector i is x.row(i).
template <class A>
void quantize_activations(const q8_activations& q, std::int64_t count, const float_activations& x,
                          executor_ref executor) noexcept {
  constexpr std::int64_t chunk = 4;
  executor.for_each(static_cast<int>((count + chunk - 1) / chunk), [&](int task, int) {
    for (std::int64_t i = task * chunk; i < count && i < (task + 1) * chunk; ++i)
      quantize_activation<A>(q, i, x.row(i));
  });
}

template <class A>
std::size_t mul_mat_workspace(const slice_decoder& d, const mul_mat_args& a, activation policy) noexcept {
  if (!uses_q8(d, policy) || a.cols <= 0 || a.n <= 0) return 0;
  return 64 + static_cast<std::size_t>(a.n * q8_of(d, nullptr, a.cols).stride());
}

template <class A>
status mul_mat(const slice_decoder& d, const mul_mat_args& a, activation policy, executor_ref executor,
               std::span<std::byte> workspace) noexcept {
  if (const status s = check_weights(d, a.weights, a.rows, a.cols, a.weight_row_stride); s != status::ok)
    return s;
  if (a.n < 0) return status::bad_shape;
  if (a.n == 0 || a.rows == 0) return status::ok;
  if (!a.activations || !a.out) return status::null_pointer;
  if (a.n > 1 && (a.activation_stride < a.cols || a.out_stride < a.rows)) return status::bad_stride;
  if (workspace.size() < mul_mat_workspace<A>(d, a, policy)) return status::small_workspace;

  const columns cols{nullptr, a.n, 1, false, a.out, a.out_stride, 0};
  const float_activations x{a.activations, a.activation_stride, 0, 1};
  const auto rows_of = [&](int t) { return task_rows_of(a.weights, a.weight_row_stride, a.rows, a.cols, t); };
  if (uses_q8(d, policy)) {
    const q8_activations q = q8_of(d, align64(workspace.data()), a.cols);
    quantize_activations<A>(q, a.n, x, executor);
    executor.for_each(task_count(a.rows), [&](int t, int) { d.coded(rows_of(t), q, cols); });
  } else {
    executor.for_each(task_count(a.rows),
                      [&](int t, int) { exact_product<A>(d.floats, rows_of(t), x, cols); });
  }
  return status::ok;
}

}  // namespace kernel

/// Bytes of workspace that mul_mat wants for these shapes.
template <any_format F, class A>
std::size_t mul_mat_workspace(const mul_mat_args& a, activation policy) noexcept {
  return kernel::mul_mat_workspace<A>(kernel::decoder_of<F, A>(), a, policy);
}

/// out = W x, see mul_mat_args. Results do not depend on the executor. No allocation.
template <any_format F, class A>
status mul_mat(const mul_mat_args& a, activation policy, executor_ref executor,
               std::span<std::byte> workspace) noexcept {
  return kernel::mul_mat<A>(kernel::decoder_of<F, A>(), a, policy, executor, workspace);
}

}  // namespace quantal
