// mul_mat_many: several matrices of one format times the same activations, with an epilogue. What an engine
// wants for the gate and up projections of a feed-forward layer, or for query, key and value: activations are
// quantized once, one parallel loop covers all rows, and biases, scales or an activation function meet
// results that are still in the cache.
#pragma once

#include "quantal/kernel/mul_mat.hpp"

namespace quantal {

/// One of the matrices and where its results go: out[t * out_stride + r].
struct weight_matrix {
  const std::byte* weights;  ///< row 0
  std::int64_t rows;
  std::int64_t weight_row_stride;  ///< bytes between rows, >= row_bytes(cols)
  float* out;
  std::int64_t out_stride;  ///< floats between result vectors, >= rows
};

/// What they have in common.
struct shared_activations {
  const float* data;
  std::int64_t n, cols;  ///< vectors, values in each; cols is a multiple of the format's block
  std::int64_t stride;   ///< floats between vectors
};

/// An epilogue is called once for every run of results: values[i] is the result of row first_row + i of
/// matrix `matrix` with column `column`. Calls come from all workers, each run from one of them, under the
/// floating-point settings of the library (float_environment.hpp).
template <class E>
concept epilogue = requires(const E& e, int matrix, std::int64_t column, std::int64_t first_row, int count,
                            float* values) {
  { e(matrix, column, first_row, count, values) }
  noexcept;
};

/// Leaves results as they are.
struct no_epilogue {
  void operator()(int, std::int64_t, std::int64_t, int, float*) const noexcept {}
};

/// result = result * scale[row] + bias[row], with one array of `rows` floats per matrix; null arrays are left
/// out.
struct scale_and_bias {
  const float* const* scale;
  const float* const* bias;
  void operator()(int matrix, std::int64_t, std::int64_t first_row, int count, float* values) const noexcept {
    if (const float* const s = scale ? scale[matrix] : nullptr)
      for (int i = 0; i < count; ++i) values[i] *= s[first_row + i];
    if (const float* const b = bias ? bias[matrix] : nullptr)
      for (int i = 0; i < count; ++i) values[i] += b[first_row + i];
  }
};

namespace kernel {

QUANTAL_INLINE mul_mat_args args_of(const weight_matrix& m, const shared_activations& x) noexcept {
  return {m.weights, m.rows, x.cols, m.weight_row_stride, x.data, x.n, x.stride, m.out, m.out_stride};
}

QUANTAL_INLINE status check_matrices(const weight_format& f, std::span<const weight_matrix> matrices,
                                     const shared_activations& x) noexcept {
  std::int64_t tasks = 0;
  for (const weight_matrix& m : matrices) {
    if (const status s = checks::check_product(layout_of(f), args_of(m, x)); s != status::ok) return s;
    if ((tasks += task_count(m.rows)) > checks::largest_dimension) return status::bad_shape;
    // The results of one matrix are no input or result of another.
    for (const weight_matrix& other : matrices)
      if (&m != &other &&
          (checks::overlap(checks::results_of(args_of(m, x)), checks::results_of(args_of(other, x))) ||
           checks::overlap(checks::results_of(args_of(m, x)),
                           checks::weights_of(args_of(other, x)).memory(layout_of(f)))))
        return status::overlap;
  }
  return checks::dimension(x.n) && checks::dimension(x.cols) && x.cols > 0 ? status::ok : status::bad_shape;
}

/// multiply(matrix index, rows, columns) for every task of every matrix, then the epilogue of its results.
template <class Multiply, epilogue E>
bool for_each_matrix_task(std::span<const weight_matrix> matrices, const shared_activations& x,
                          executor_ref executor, const Multiply& multiply, const E& finish) noexcept {
  int tasks = 0;
  for (const weight_matrix& m : matrices) tasks += task_count(m.rows);
  return executor.for_each(tasks, [&](int task, int) {
    int i = 0;
    while (task >= task_count(matrices[static_cast<std::size_t>(i)].rows))
      task -= task_count(matrices[static_cast<std::size_t>(i++)].rows);
    const weight_matrix& m = matrices[static_cast<std::size_t>(i)];
    const weight_rows w = task_rows_of(m.weights, m.weight_row_stride, m.rows, x.cols, task);
    multiply(w, columns{nullptr, x.n, 1, false, m.out, m.out_stride, 0});
    for (std::int64_t c = 0; c < x.n; ++c) finish(i, c, w.first, w.count, m.out + c * m.out_stride + w.first);
  });
}

}  // namespace kernel

/// Bytes of workspace that mul_mat_many wants.
template <any_format F, class A>
std::size_t mul_mat_many_workspace(const shared_activations& x, activation policy) noexcept {
  const mul_mat_args one{nullptr, 0, x.cols, 0, x.data, x.n, x.stride, nullptr, 0};
  return kernel::mul_mat_workspace<A>(kernel::weight_format_of<F, A>(), one, policy);
}

/// Results of every matrix as mul_mat gives them, bit for bit, then the epilogue. No allocation.
template <any_format F, class A, epilogue E = no_epilogue>
status mul_mat_many(std::span<const weight_matrix> matrices, const shared_activations& x, activation policy,
                    executor_ref executor, std::span<std::byte> workspace, const E& finish = {}) noexcept {
  const kernel::weight_format f = kernel::weight_format_of<F, A>();
  if (const status s = kernel::check_matrices(f, matrices, x); s != status::ok) return s;
  if (x.n == 0) return status::ok;
  for (const weight_matrix& m : matrices) {
    const mul_mat_args one = kernel::args_of(m, x);
    if (const status s = checks::check_workspace(one, checks::weights_of(one).memory(kernel::layout_of(f)),
                                                 workspace.data(), workspace.size(),
                                                 mul_mat_many_workspace<F, A>(x, policy));
        s != status::ok)
      return s;
  }
  bool done;
  if (kernel::uses_q8(f, policy)) {
    const kernel::q8_rows rows{kernel::align64(workspace.data()), kernel::q8_shape_of(f, x.cols)};
    const kernel::arranged_columns<A> arranged(rows.data + x.n * rows.shape.bytes(), f, x.cols, x.n);
    const kernel::columns all{nullptr, x.n, 1, false, nullptr, 0, 0};
    const auto multiply = [&](const kernel::weight_rows& w, const kernel::columns& cols) {
      arranged.multiply(w, cols);
    };
    done = kernel::quantize_columns<A>(rows, {x.data, x.stride, 0, 1}, all, arranged, executor) &&
           kernel::for_each_matrix_task(matrices, x, executor, multiply, finish);
  } else {
    const kernel::columns all{nullptr, x.n, 1, false, nullptr, 0, 0};
    const kernel::exact_columns<A> arranged(kernel::align64(workspace.data()), {x.data, x.stride, 0, 1}, x.n,
                                            kernel::uses_pairs<A>(f, policy));
    const auto arrange = [&](int part, int) { arranged.arrange(all, x.cols, part); };
    const auto multiply = [&](const kernel::weight_rows& w, const kernel::columns& cols) {
      arranged.multiply(f.floats, w, cols);
    };
    done = executor.for_each(static_cast<int>(arranged.parts(x.n)), arrange) &&
           kernel::for_each_matrix_task(matrices, x, executor, multiply, finish);
  }
  return done ? status::ok : status::executor_failed;
}

}  // namespace quantal
