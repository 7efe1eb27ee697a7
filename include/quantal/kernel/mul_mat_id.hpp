// mul_mat_id: a product through the expert that each (token, slot) pair selects.
//
// The pairs are counting-sorted by expert, which keeps token order inside an expert, and every expert's columns then
// run through the same tile kernels as a dense product of that many columns.
#pragma once

#include <limits>

#include "quantal/kernel/mul_mat.hpp"

namespace quantal {
namespace kernel {

/// Workspace layout: [quantized activations][first pair of each expert][pairs sorted by expert].
template <any_format F>
struct routed_workspace {
  std::size_t activations = 0, starts = 0, order = 0;

  routed_workspace(const mul_mat_id_args& a, activation policy) noexcept {
    const std::int64_t vectors = a.tokens * (a.slot_stride == 0 ? 1 : a.used);
    if (uses_q8<F>(policy)) activations = static_cast<std::size_t>(vectors * make_q8<F>(nullptr, a.cols).stride());
    starts = static_cast<std::size_t>(a.experts + 1) * sizeof(std::int32_t);
    order = static_cast<std::size_t>(a.tokens * a.used) * sizeof(std::int32_t);
  }
  std::size_t total() const noexcept { return 64 + activations + starts + order; }
};

/// Sorts pairs by expert; starts[e]..starts[e + 1] are expert e's. False if an id is out of range.
inline bool sort_by_expert(const mul_mat_id_args& a, std::int32_t* starts, std::int32_t* order) noexcept {
  for (std::int64_t e = 0; e <= a.experts; ++e) starts[e] = 0;
  for (std::int64_t t = 0; t < a.tokens; ++t)
    for (std::int64_t j = 0; j < a.used; ++j) {
      const std::int32_t e = a.ids[t * a.ids_stride + j];
      if (e < 0 || e >= a.experts) return false;
      ++starts[e + 1];
    }
  for (std::int64_t e = 0; e < a.experts; ++e) starts[e + 1] += starts[e];
  for (std::int64_t t = 0; t < a.tokens; ++t)
    for (std::int64_t j = 0; j < a.used; ++j)
      order[starts[a.ids[t * a.ids_stride + j]]++] = static_cast<std::int32_t>(t * a.used + j);
  for (std::int64_t e = a.experts; e > 0; --e) starts[e] = starts[e - 1];
  starts[0] = 0;
  return true;
}

}  // namespace kernel

/// Bytes of workspace that mul_mat_id wants for these shapes.
template <any_format F, class A>
std::size_t mul_mat_id_workspace(const mul_mat_id_args& a, activation policy) noexcept {
  if (a.tokens <= 0 || a.used <= 0 || a.experts <= 0 || a.cols <= 0) return 0;
  return kernel::routed_workspace<F>(a, policy).total();
}

/// See mul_mat_id_args. Results do not depend on the executor. No allocation.
template <any_format F, class A>
status mul_mat_id(const mul_mat_id_args& a, activation policy, executor_ref executor,
                  std::span<std::byte> workspace) noexcept {
  using namespace kernel;
  if (const status s = check_weights<F>(a.weights, a.rows, a.cols, a.weight_row_stride); s != status::ok) return s;
  if (a.tokens < 0 || a.used < 0 || a.experts <= 0) return status::bad_shape;
  if (a.tokens == 0 || a.used == 0 || a.rows == 0) return status::ok;
  if (a.tokens > std::numeric_limits<std::int32_t>::max() / a.used) return status::bad_shape;
  if (!a.activations || !a.out || !a.ids) return status::null_pointer;
  if (a.expert_stride < a.weight_row_stride * a.rows || a.ids_stride < a.used ||
      (a.slot_stride != 0 && a.slot_stride < a.cols) || (a.used > 1 && a.out_slot_stride < a.rows))
    return status::bad_stride;
  const routed_workspace<F> sizes(a, policy);
  if (workspace.size() < sizes.total()) return status::small_workspace;

  std::byte* const base = align64(workspace.data());
  auto* const starts = reinterpret_cast<std::int32_t*>(base + sizes.activations);
  auto* const order = starts + a.experts + 1;
  if (!sort_by_expert(a, starts, order)) return status::bad_expert_id;

  const bool shared = a.slot_stride == 0;
  const int row_tasks = task_count(a.rows);
  const auto multiply = [&](const auto& x) {
    executor.for_each(static_cast<int>(a.experts) * row_tasks, [&](int task, int) {
      const int e = task / row_tasks;
      if (starts[e] == starts[e + 1]) return;
      const routed_columns cols{order + starts[e], starts[e + 1] - starts[e], a.used, shared,
                                a.out,             a.out_token_stride,        a.out_slot_stride};
      multiply_rows<F, A>(
          task_rows_of(a.weights + e * a.expert_stride, a.weight_row_stride, a.rows, a.cols, task % row_tasks), x, cols);
    });
  };
  if constexpr (block_format<F>) {
    if (policy == activation::q8) {
      const q8_activations q = make_q8<F>(base, a.cols);
      const std::int64_t per_token = shared ? 1 : a.used;
      executor.for_each(static_cast<int>(a.tokens), [&](int t, int) {
        for (std::int64_t j = 0; j < per_token; ++j)
          quantize_activation<A>(q, t * per_token + j, a.activations + t * a.token_stride + j * a.slot_stride);
      });
      multiply(q);
      return status::ok;
    }
  }
  multiply(routed_float_activations{a.activations, a.token_stride, a.slot_stride, shared ? 1 : a.used});
  return status::ok;
}

}  // namespace quantal
