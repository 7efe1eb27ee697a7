// pack(): weights decoded once, into the panels that products of many columns otherwise decode again in every
// call. Explicit, with a type of its own, and in memory of the caller's: weights are used as GGUF stores them
// unless he asks for this.
//
// A packed matrix has one byte per weight, a float32 scale per 16, 32 or 128 weights (the format's group),
// and a float32 offset beside each scale if the format has offsets. Its rows are padded to 32 and its columns
// to 256:
//
//   bits per weight  8.25   q3_K (avx512_vnni), iq1_bn, iq2_bn, q1_0, q2_0 of 128 ...
//                    9      q4_0 q5_0 q6_0 q8_0 iq4_nl iq4_xs iq2_xxs iq3_xxs iq3_s mxfp4 trellis ...
//                    9.4    q2_K (avx512_vnni)
//                    10     q6_K iq2_xs iq2_s iq2_k .. iq6_k nvfp4 (16 per scale); q4_1 q4_K q5_1 q5_K
//                    (offsets) 12     q2_K elsewhere
//
// packed_bytes() says it exactly. Products take the policy `q8` only, of any number of columns; their results
// have the same bits as those of mul_mat with so many columns that it decodes into panels, and those of one
// column do not depend on the columns beside it.
#pragma once

#include "quantal/kernel/mul_mat_id.hpp"
#include "quantal/kernel/pack_args.hpp"

namespace quantal {
namespace kernel {

/// A format with what packing it takes.
template <any_format F, class A>
constexpr weight_format packable_format_of() noexcept {
  weight_format f = weight_format_of<F, A>();
  if constexpr (block_format<F>) {
    constexpr code_form form = panel_form_of<F, A>();
    f.pack = &q8_products<A, form>::pack;
    f.q8_packed_product = &q8_products<A, form>::packed;
    f.panel_bytes = static_cast<int>(sizeof(coded_panel<form>));
  }
  return f;
}

/// One address per format and arch: packed_weights refer to it.
template <any_format F, class A>
inline constexpr weight_format weight_format_v = packable_format_of<F, A>();

/// Bytes of one packed matrix.
QUANTAL_INLINE std::int64_t packed_matrix_bytes(const weight_format& f, std::int64_t rows,
                                                std::int64_t cols) noexcept {
  constexpr int group_rows = coded_panels_at_once * panel_rows;
  return (rows + group_rows - 1) / group_rows * coded_panels_at_once * slices_of(cols) * f.panel_bytes;
}

/// Bytes of a stack, and what aligning it to 64 may take; 0 for what pack() refuses.
QUANTAL_INLINE std::size_t packed_stack_bytes(const weight_format& f, std::int64_t experts, std::int64_t rows,
                                              std::int64_t cols) noexcept {
  if (!f.pack || experts <= 0 || rows <= 0 || cols <= 0) return 0;
  if (!checks::dimension(experts) || !checks::dimension(rows) || !checks::dimension(cols))
    return std::numeric_limits<std::size_t>::max();
  return (64 + checks::capped_size(experts) * packed_matrix_bytes(f, rows, cols)).value();
}

/// Quantized columns as packed panels meet them: tiles, however few they are. Has what arranged_columns has.
template <class A>
struct packed_columns {
  static constexpr bool panels = true;
  std::byte* data;
  q8_shape shape;
  const weight_format& f;

  QUANTAL_INLINE packed_columns(std::byte* at, const weight_format& format, std::int64_t cols,
                                std::int64_t) noexcept
      : data(at), shape(q8_shape_of(format, cols)), f(format) {}

  static QUANTAL_INLINE std::int64_t column_bytes(const weight_format& f, std::int64_t cols) noexcept {
    return q8_shape_of(f, cols).bytes();
  }
  QUANTAL_INLINE std::int64_t parts(std::int64_t n) const noexcept { return tiles_of<A>(n).count(); }
  QUANTAL_INLINE std::int64_t begin(std::int64_t p, std::int64_t n) const noexcept {
    const std::int64_t at = tiles_of<A>(n).begin(p);
    return at < n ? at : n;
  }
  QUANTAL_INLINE q8_packed packed(std::int64_t n) const noexcept {
    return {data, shape, tiles_of<A>::padded(n)};
  }
  void arrange(const q8_rows& rows, const columns& cols, std::int64_t p) const noexcept {
    pack_tile<A>(rows, cols, p, slice_weights, packed(cols.n));
  }
  QUANTAL_INLINE void multiply(const weight_rows& w, const columns& cols) const noexcept {
    f.q8_packed_product(w, packed(cols.n), cols);
  }
};

/// Packing and its products on one arch, whatever the format; compiled apart from the formats.
template <class A>
struct packed_products {
  static std::size_t bytes(const weight_format& f, std::int64_t experts, std::int64_t rows,
                           std::int64_t cols) noexcept {
    return packed_stack_bytes(f, experts, rows, cols);
  }
  static status pack(const weight_format& f, const pack_args& a, std::span<std::byte> memory,
                     executor_ref executor, packed_weights& packed) noexcept;
  static std::size_t dense_workspace(const packed_weights& w, const mul_mat_args& a) noexcept;
  static status dense(const packed_weights& w, const mul_mat_args& a, executor_ref executor,
                      std::span<std::byte> workspace) noexcept;
  static std::size_t routed_workspace(const packed_weights& w, const mul_mat_id_args& a) noexcept;
  static status routed(const packed_weights& w, const mul_mat_id_args& a, executor_ref executor,
                       std::span<std::byte> workspace) noexcept;
};

template <class A>
status packed_products<A>::pack(const weight_format& f, const pack_args& a, std::span<std::byte> memory,
                                executor_ref executor, packed_weights& packed) noexcept {
  if (!f.pack) return status::unsupported;
  const checks::weight_stack weights{a.weights, a.experts,           a.rows,
                                     a.cols,    a.weight_row_stride, a.expert_stride};
  const std::size_t needed = packed_stack_bytes(f, a.experts, a.rows, a.cols);
  if (const status s = checks::check_packing(layout_of(f), weights, memory.data(), memory.size(), needed);
      s != status::ok)
    return s;
  std::byte* const data = align64(memory.data());
  const std::int64_t bytes = packed_matrix_bytes(f, a.rows, a.cols);
  const int tasks = task_count(a.rows);
  const bool done = executor.for_each(static_cast<int>(a.experts) * tasks, [&](int task, int) {
    const int e = task / tasks;
    f.pack(f.panels,
           task_rows_of(a.weights + e * a.expert_stride, a.weight_row_stride, a.rows, a.cols, task % tasks),
           data + e * bytes);
  });
  if (!done) return status::executor_failed;
  packed = {&f, data, a.experts, a.rows, a.cols};
  return status::ok;
}

QUANTAL_INLINE checks::region packed_memory(const packed_weights& w) noexcept {
  const std::int64_t bytes = packed_matrix_bytes(*w.format, w.rows, w.cols);
  return {w.data, w.experts, bytes, 1, 0, bytes};
}

/// Do the arguments of a product speak of these weights?
QUANTAL_INLINE status check_packed(const packed_weights& w, std::int64_t experts, std::int64_t rows,
                                   std::int64_t cols) noexcept {
  if (!w.format || (!w.data && w.rows > 0)) return status::null_pointer;
  return experts == w.experts && rows == w.rows && cols == w.cols ? status::ok : status::bad_shape;
}

template <class A>
std::size_t packed_products<A>::dense_workspace(const packed_weights& w, const mul_mat_args& a) noexcept {
  if (!w.format || w.cols <= 0 || a.n <= 0) return 0;
  if (!checks::dimension(a.n)) return std::numeric_limits<std::size_t>::max();
  return (64 + checks::capped_size(a.n + tiles_of<A>::padded(a.n)) *
                   packed_columns<A>::column_bytes(*w.format, w.cols))
      .value();
}

template <class A>
status packed_products<A>::dense(const packed_weights& w, const mul_mat_args& args, executor_ref executor,
                                 std::span<std::byte> workspace) noexcept {
  if (const status s = check_packed(w, 1, args.rows, args.cols); s != status::ok) return s;
  if (const status s = checks::check_vectors(args); s != status::ok || checks::nothing_to_do(args)) return s;
  const checks::region weights = packed_memory(w);
  if (checks::overlap(checks::results_of(args), weights)) return status::overlap;
  if (const status s = checks::check_workspace(args, weights, workspace.data(), workspace.size(),
                                               dense_workspace(w, args));
      s != status::ok)
    return s;
  mul_mat_args a = args;
  a.weights = w.data;
  a.weight_row_stride = 0;
  const bool done = mul_mat_q8<A, packed_columns<A>>(*w.format, a, {a.activations, a.activation_stride, 0, 1},
                                                     {nullptr, a.n, 1, false, a.out, a.out_stride, 0},
                                                     executor, align64(workspace.data()));
  return done ? status::ok : status::executor_failed;
}

template <class A>
std::size_t packed_products<A>::routed_workspace(const packed_weights& w, const mul_mat_id_args& a) noexcept {
  if (!w.format || w.cols <= 0 || a.tokens <= 0 || a.used <= 0 || a.experts <= 0) return 0;
  return kernel::routed_workspace<A>(*w.format, a, activation::q8).total();
}

template <class A>
status packed_products<A>::routed(const packed_weights& w, const mul_mat_id_args& args, executor_ref executor,
                                  std::span<std::byte> workspace) noexcept {
  if (const status s = check_packed(w, args.experts, args.rows, args.cols); s != status::ok) return s;
  if (const status s = checks::check_vectors(args); s != status::ok || checks::nothing_to_do(args)) return s;
  const checks::region weights = packed_memory(w);
  if (checks::overlap(checks::results_of(args), weights)) return status::overlap;
  mul_mat_id_args a = args;
  a.weights = w.data;
  a.weight_row_stride = 0;
  a.expert_stride = packed_matrix_bytes(*w.format, w.rows, w.cols);
  return route<A, packed_columns<A>>(*w.format, a, weights, activation::q8, executor, workspace);
}

}  // namespace kernel

/// Packed weights of one format for one arch; a view of the memory given to pack(). Filled in by pack().
template <block_format F, class A>
struct packed_matrix : packed_weights {};

/// Bytes of memory that pack() wants for `experts` matrices of rows x cols, up to 64 of them for alignment.
template <block_format F, class A>
std::size_t packed_bytes(std::int64_t rows, std::int64_t cols, std::int64_t experts = 1) noexcept {
  return kernel::packed_stack_bytes(kernel::weight_format_v<F, A>, experts, rows, cols);
}

/// Decodes weights into `memory` and lets `packed` refer to them. The weights are not needed afterwards. On
/// an error `packed` stays as it is. No allocation.
template <block_format F, class A>
status pack(const pack_args& a, std::span<std::byte> memory, executor_ref executor,
            packed_matrix<F, A>& packed) noexcept {
  return kernel::packed_products<A>::pack(kernel::weight_format_v<F, A>, a, memory, executor, packed);
}

/// Bytes of workspace of the product below.
template <block_format F, class A>
std::size_t mul_mat_workspace(const packed_matrix<F, A>& w, const mul_mat_args& a) noexcept {
  return kernel::packed_products<A>::dense_workspace(w, a);
}

/// mul_mat with policy q8 and packed weights. Rows and cols of the arguments must be those that were packed,
/// of one matrix; their weights and weight_row_stride are not looked at. Results do not depend on the
/// executor. No allocation.
template <block_format F, class A>
status mul_mat(const packed_matrix<F, A>& w, const mul_mat_args& a, executor_ref executor,
               std::span<std::byte> workspace) noexcept {
  return kernel::packed_products<A>::dense(w, a, executor, workspace);
}

/// Bytes of workspace of the product below.
template <block_format F, class A>
std::size_t mul_mat_id_workspace(const packed_matrix<F, A>& w, const mul_mat_id_args& a) noexcept {
  return kernel::packed_products<A>::routed_workspace(w, a);
}

/// mul_mat_id with policy q8 and a packed stack; otherwise as mul_mat above.
template <block_format F, class A>
status mul_mat_id(const packed_matrix<F, A>& w, const mul_mat_id_args& a, executor_ref executor,
                  std::span<std::byte> workspace) noexcept {
  return kernel::packed_products<A>::routed(w, a, executor, workspace);
}

}  // namespace quantal
