// mul_mat_id: a product through the expert that each (token, slot) pair selects.
//
// The pairs are counting-sorted by expert, which keeps token order inside an expert, and every expert's
// columns then run through the same tile kernels as a dense product of that many columns.
#pragma once

#include <limits>

#include "quantal/kernel/mul_mat.hpp"

namespace quantal {
namespace kernel {

/// Rounds `count` activation vectors; vector i is x.row(i).
template <class A>
bool quantize_activations(const q8_rows& q, std::int64_t count, const float_activations& x,
                          executor_ref executor) noexcept {
  constexpr std::int64_t chunk = 4;
  return executor.for_each(static_cast<int>((count + chunk - 1) / chunk), [&](int task, int) {
    for (std::int64_t i = task * chunk; i < count && i < (task + 1) * chunk; ++i)
      quantize_activation<A>(q, i, x.row(i));
  });
}

/// Workspace layout: [quantized activations][the same arranged, pair by pair][first pair of each expert]
/// [pairs sorted by expert].
template <class A>
struct routed_workspace {
  checks::capped_size activations = 0, packed = 0, starts = 0, order = 0;

  QUANTAL_INLINE routed_workspace(const weight_format& f, const mul_mat_id_args& a,
                                  activation policy) noexcept {
    using size = checks::capped_size;
    if (!checks::dimension(a.cols) || !checks::dimension(a.experts) || !checks::dimension(a.tokens) ||
        !checks::dimension(a.used) || a.tokens * a.used > checks::largest_dimension) {
      packed = std::numeric_limits<std::int64_t>::max();
      packed = packed + packed + packed;  // no such product
      return;
    }
    const std::int64_t pairs = a.tokens * a.used, vectors = a.slot_stride == 0 ? a.tokens : pairs;
    if (uses_q8(f, policy)) {
      activations = size(vectors) * q8_shape_of(f, a.cols).bytes();
      packed = size(first_column(a.experts, pairs)) * arranged_columns<A>::column_bytes(f, a.cols);
    } else {
      packed = size(first_column(a.experts, pairs)) * (4 * a.cols);
    }
    starts = size(a.experts + 1) * std::int64_t{sizeof(std::int32_t)};
    order = size(pairs) * std::int64_t{sizeof(std::int32_t)};
  }
  /// Where the columns of expert e begin that has `before` pairs before it: each expert with pairs is padded
  /// by at most three.
  static QUANTAL_INLINE std::int64_t first_column(std::int64_t e, std::int64_t before) noexcept {
    return before + 3 * (e < before ? e : before);
  }
  QUANTAL_INLINE std::size_t total() const noexcept {
    return (64 + activations + packed + starts + order).value();
  }
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

/// The pairs of every expert, and the matrices that they meet.
struct routed_product {
  const mul_mat_id_args& a;
  const std::int32_t* starts;
  const std::int32_t* order;

  QUANTAL_INLINE columns of(int e) const noexcept {
    return {order + starts[e],  starts[e + 1] - starts[e], a.used, a.slot_stride == 0, a.out,
            a.out_token_stride, a.out_slot_stride};
  }
  /// Calls multiply(expert, rows, columns) for every task of every expert that has tokens.
  template <class Fn>
  bool for_each_task(executor_ref executor, Fn&& multiply) const noexcept {
    const int row_tasks = task_count(a.rows);
    return executor.for_each(static_cast<int>(a.experts) * row_tasks, [&](int task, int) {
      const int e = task / row_tasks;
      if (starts[e] == starts[e + 1]) return;
      multiply(e,
               task_rows_of(a.weights + e * a.expert_stride, a.weight_row_stride, a.rows, a.cols,
                            task % row_tasks),
               of(e));
    });
  }
};

template <class A, class Arranged = arranged_columns<A>>
bool mul_mat_id_q8(const weight_format& f, const routed_product& p, const float_activations& x,
                   executor_ref executor, std::byte* activations, std::byte* packed) noexcept {
  const q8_rows rows{activations, q8_shape_of(f, p.a.cols)};
  const auto arranged_of = [&](int e) {
    return Arranged(
        packed + routed_workspace<A>::first_column(e, p.starts[e]) * Arranged::column_bytes(f, p.a.cols), f,
        p.a.cols, p.starts[e + 1] - p.starts[e]);
  };
  const auto arrange = [&](int e, int) {
    const columns cols = p.of(e);
    if (cols.n == 0) return;
    const Arranged arranged = arranged_of(e);
    for (std::int64_t part = 0; part < arranged.parts(cols.n); ++part) arranged.arrange(rows, cols, part);
  };
  return quantize_activations<A>(rows, p.a.tokens * x.slots, x, executor) &&
         executor.for_each(static_cast<int>(p.a.experts), arrange) &&
         p.for_each_task(executor, [&](int e, const weight_rows& w, const columns& cols) {
           arranged_of(e).multiply(w, cols);
         });
}

template <class A>
bool mul_mat_id_exact(const weight_format& f, const routed_product& p, activation policy,
                      const float_activations& x, executor_ref executor, std::byte* packed) noexcept {
  const auto arranged_of = [&](int e) {
    return exact_columns<A>(packed + 4 * p.a.cols * routed_workspace<A>::first_column(e, p.starts[e]), x,
                            p.starts[e + 1] - p.starts[e], uses_pairs<A>(f, policy));
  };
  const auto arrange = [&](int e, int) {
    const columns cols = p.of(e);
    const exact_columns<A> arranged = arranged_of(e);
    for (std::int64_t part = 0; part < arranged.parts(cols.n); ++part) arranged.arrange(cols, p.a.cols, part);
  };
  return executor.for_each(static_cast<int>(p.a.experts), arrange) &&
         p.for_each_task(executor, [&](int e, const weight_rows& w, const columns& cols) {
           arranged_of(e).multiply(f.floats, w, cols);
         });
}

/// A product whose arguments have been checked, but for the workspace and the ids.
template <class A, class Arranged = arranged_columns<A>>
status route(const weight_format& f, const mul_mat_id_args& a, const checks::region& weights,
             activation policy, executor_ref executor, std::span<std::byte> workspace) noexcept {
  const routed_workspace<A> sizes(f, a, policy);
  if (const status s = checks::check_workspace(a, weights, workspace.data(), workspace.size(), sizes.total());
      s != status::ok)
    return s;

  std::byte* const base = align64(workspace.data());
  std::byte* const packed = base + sizes.activations.value();
  auto* const starts = reinterpret_cast<std::int32_t*>(packed + sizes.packed.value());
  auto* const order = starts + a.experts + 1;
  if (!sort_by_expert(a, starts, order)) return status::bad_expert_id;

  const float_activations x{a.activations, a.token_stride, a.slot_stride, a.slot_stride == 0 ? 1 : a.used};
  const routed_product product{a, starts, order};
  const bool done = uses_q8(f, policy) ? mul_mat_id_q8<A, Arranged>(f, product, x, executor, base, packed)
                                       : mul_mat_id_exact<A>(f, product, policy, x, executor, base);
  return done ? status::ok : status::executor_failed;
}

template <class A>
status mul_mat_id(const weight_format& f, const mul_mat_id_args& a, activation policy, executor_ref executor,
                  std::span<std::byte> workspace) noexcept {
  const checks::row_layout layout = layout_of(f);
  if (const status s = checks::check_product(layout, a); s != status::ok || checks::nothing_to_do(a))
    return s;
  return route<A>(f, a, checks::weights_of(a).memory(layout), policy, executor, workspace);
}

template <class A>
status products<A>::routed(const weight_format& f, const mul_mat_id_args& a, activation policy,
                           executor_ref executor, std::span<std::byte> workspace) noexcept {
  return mul_mat_id<A>(f, a, policy, executor, workspace);
}

}  // namespace kernel

/// Bytes of workspace that mul_mat_id wants for these shapes.
template <any_format F, class A>
std::size_t mul_mat_id_workspace(const mul_mat_id_args& a, activation policy) noexcept {
  if (a.tokens <= 0 || a.used <= 0 || a.experts <= 0 || a.cols <= 0) return 0;
  return kernel::routed_workspace<A>(kernel::weight_format_of<F, A>(), a, policy).total();
}

/// See mul_mat_id_args. Results do not depend on the executor. No allocation.
template <any_format F, class A>
status mul_mat_id(const mul_mat_id_args& a, activation policy, executor_ref executor,
                  std::span<std::byte> workspace) noexcept {
  return kernel::products<A>::routed(kernel::weight_format_of<F, A>(), a, policy, executor, workspace);
}

}  // namespace quantal
