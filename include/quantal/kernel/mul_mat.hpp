// mul_mat: one weight matrix times n activation vectors.
#pragma once

#include <span>

#include "quantal/executor.hpp"
#include "quantal/kernel/q8.hpp"
#include "quantal/status.hpp"

namespace quantal {
namespace kernel {

/// q8 needs integer codes and whole activation blocks; float formats always take the exact path.
template <any_format F>
constexpr bool uses_q8(activation policy) noexcept {
  return block_format<F> && policy == activation::q8;
}

template <any_format F>
q8_activations make_q8(std::byte* data, std::int64_t cols) noexcept {
  if constexpr (block_format<F>) return {data, cols, sub_group<F>};
  else return {data, cols, q8_block};
}

inline std::byte* align64(std::byte* p) noexcept {
  return reinterpret_cast<std::byte*>((reinterpret_cast<std::uintptr_t>(p) + 63) & ~std::uintptr_t{63});
}

template <any_format F>
constexpr status check_weights(const std::byte* weights, std::int64_t rows, std::int64_t cols,
                               std::int64_t row_stride) noexcept {
  if (rows < 0 || cols <= 0 || cols % F::layout.elements != 0) return status::bad_shape;
  if (!weights && rows > 0) return status::null_pointer;
  if (row_stride < row_bytes<F>(cols)) return status::bad_stride;
  return status::ok;
}

inline int task_count(std::int64_t rows) noexcept { return static_cast<int>((rows + task_rows - 1) / task_rows); }

/// Rows of task t of a matrix.
inline weight_rows task_rows_of(const std::byte* data, std::int64_t stride, std::int64_t rows, std::int64_t cols,
                                int t) noexcept {
  const std::int64_t first = std::int64_t{t} * task_rows;
  const std::int64_t left = rows - first;
  return {data, stride, cols, first, static_cast<int>(left < task_rows ? left : task_rows)};
}

template <class A>
void quantize_activations(const q8_activations& q, std::int64_t count, const float* x, std::int64_t stride,
                          executor_ref executor) noexcept {
  constexpr std::int64_t chunk = 4;
  const auto body = [&](int task, int) {
    for (std::int64_t i = task * chunk; i < count && i < (task + 1) * chunk; ++i)
      quantize_activation<A>(q, i, x + i * stride);
  };
  executor.for_each(static_cast<int>((count + chunk - 1) / chunk), body);
}

}  // namespace kernel

/// Bytes of workspace that mul_mat wants for these shapes.
template <any_format F, class A>
std::size_t mul_mat_workspace(const mul_mat_args& a, activation policy) noexcept {
  if (!kernel::uses_q8<F>(policy) || a.cols <= 0 || a.n <= 0) return 0;
  return 64 + static_cast<std::size_t>(a.n * kernel::make_q8<F>(nullptr, a.cols).stride());
}

/// out = W x, see mul_mat_args. Results do not depend on the executor. No allocation.
template <any_format F, class A>
status mul_mat(const mul_mat_args& a, activation policy, executor_ref executor, std::span<std::byte> workspace) noexcept {
  using namespace kernel;
  if (const status s = check_weights<F>(a.weights, a.rows, a.cols, a.weight_row_stride); s != status::ok) return s;
  if (a.n < 0) return status::bad_shape;
  if (a.n == 0 || a.rows == 0) return status::ok;
  if (!a.activations || !a.out) return status::null_pointer;
  if (a.n > 1 && (a.activation_stride < a.cols || a.out_stride < a.rows)) return status::bad_stride;
  if (workspace.size() < mul_mat_workspace<F, A>(a, policy)) return status::small_workspace;

  const every_column cols{a.n, a.out, a.out_stride};
  const auto multiply = [&](const auto& x) {
    executor.for_each(task_count(a.rows), [&](int t, int) {
      multiply_rows<F, A>(task_rows_of(a.weights, a.weight_row_stride, a.rows, a.cols, t), x, cols);
    });
  };
  if constexpr (block_format<F>) {
    if (policy == activation::q8) {
      const q8_activations q = make_q8<F>(align64(workspace.data()), a.cols);
      quantize_activations<A>(q, a.n, a.activations, a.activation_stride, executor);
      multiply(q);
      return status::ok;
    }
  }
  multiply(float_activations{a.activations, a.activation_stride});
  return status::ok;
}

}  // namespace quantal
