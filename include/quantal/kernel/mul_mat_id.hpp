// mul_mat_id: a product through the expert that each (token, slot) pair selects.
//
// The pairs are counting-sorted by expert, which keeps token order inside an expert, and every expert's
// columns then run through the same tile kernels as a dense product of that many columns.
#pragma once

#include <limits>

#include "quantal/kernel/mul_mat.hpp"

namespace quantal {
namespace kernel {

/// Workspace layout: [quantized activations][first pair of each expert][pairs sorted by expert].
struct routed_workspace {
  std::size_t activations = 0, starts = 0, order = 0;

  QUANTAL_INLINE routed_workspace(const slice_decoder& d, const mul_mat_id_args& a,
                                  activation policy) noexcept {
    const std::int64_t vectors = a.tokens * (a.slot_stride == 0 ? 1 : a.used);
    if (uses_q8(d, policy))
      activations = static_cast<std::size_t>(vectors * q8_of(d, nullptr, a.cols).stride());
    starts = static_cast<std::size_t>(a.experts + 1) * sizeof(std::int32_t);
    order = static_cast<std::size_t>(a.tokens * a.used) * sizeof(std::int32_t);
  }
  QUANTAL_INLINE std::size_t total() const noexcept { return 64 + activations + starts + order; }
};

/// Sorts pairs by expert; starts[e]..starts[e + 1] are expert e's. False if an id is out of range.
QUANTAL_INLINE bool sort_by_expert(const mul_mat_id_args& a, std::int32_t* starts,
                                   std::int32_t* order) noexcept {
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

template <class A>
status mul_mat_id(const slice_decoder& d, const mul_mat_id_args& a, activation policy, executor_ref executor,
                  std::span<std::byte> workspace) noexcept {
  if (const status s = check_weights(d, a.weights, a.rows, a.cols, a.weight_row_stride); s != status::ok)
    return s;
  if (a.tokens < 0 || a.used < 0 || a.experts <= 0) return status::bad_shape;
  if (a.tokens == 0 || a.used == 0 || a.rows == 0) return status::ok;
  if (a.tokens > std::numeric_limits<std::int32_t>::max() / a.used) return status::bad_shape;
  if (!a.activations || !a.out || !a.ids) return status::null_pointer;
  if (a.expert_stride < a.weight_row_stride * a.rows || a.ids_stride < a.used ||
      (a.slot_stride != 0 && a.slot_stride < a.cols) || (a.used > 1 && a.out_slot_stride < a.rows))
    return status::bad_stride;
  const routed_workspace sizes(d, a, policy);
  if (workspace.size() < sizes.total()) return status::small_workspace;

  std::byte* const base = align64(workspace.data());
  auto* const starts = reinterpret_cast<std::int32_t*>(base + sizes.activations);
  auto* const order = starts + a.experts + 1;
  if (!sort_by_expert(a, starts, order)) return status::bad_expert_id;

  const bool shared = a.slot_stride == 0;
  const float_activations x{a.activations, a.token_stride, a.slot_stride, shared ? 1 : a.used};
  const int row_tasks = task_count(a.rows);
  const auto for_each_expert = [&](const auto& multiply) {
    executor.for_each(static_cast<int>(a.experts) * row_tasks, [&](int task, int) {
      const int e = task / row_tasks;
      if (starts[e] == starts[e + 1]) return;
      const columns cols{order + starts[e],  starts[e + 1] - starts[e], a.used, shared, a.out,
                         a.out_token_stride, a.out_slot_stride};
      multiply(task_rows_of(a.weights + e * a.expert_stride, a.weight_row_stride, a.rows, a.cols,
                            task % row_tasks),
               cols);
    });
  };
  if (uses_q8(d, policy)) {
    const q8_activations q = q8_of(d, base, a.cols);
    quantize_activations<A>(q, a.tokens * x.slots, x, executor);
    for_each_expert([&](const weight_rows& w, const columns& cols) { d.coded(w, q, cols); });
  } else {
    for_each_expert(
        [&](const weight_rows& w, const columns& cols) { exact_product<A>(d.floats, w, x, cols); });
  }
  return status::ok;
}

}  // namespace kernel

/// Bytes of workspace that mul_mat_id wants for these shapes.
template <any_format F, class A>
std::size_t mul_mat_id_workspace(const mul_mat_id_args& a, activation policy) noexcept {
  if (a.tokens <= 0 || a.used <= 0 || a.experts <= 0 || a.cols <= 0) return 0;
  return kernel::routed_workspace(kernel::decoder_of<F, A>(), a, policy).total();
}

/// See mul_mat_id_args. Results do not depend on the executor. No allocation.
template <any_format F, class A>
status mul_mat_id(const mul_mat_id_args& a, activation policy, executor_ref executor,
                  std::span<std::byte> workspace) noexcept {
  return kernel::mul_mat_id<A>(kernel::decoder_of<F, A>(), a, policy, executor, workspace);
}

}  // namespace quantal
