// The library behind run-time dispatch: every format and every arch in one binary, the best arch of the
// machine picked when the program starts. Link quantal::runtime. Needs nothing but the standard library.
#pragma once

#include "quantal/runtime/ops.hpp"
#include "quantal/views.hpp"

namespace quantal::runtime {

/// quantal::weight_view of a format known at run time.
struct weight_view {
  std::uint32_t gguf_id = 0;
  std::span<const std::byte> data;
  std::int64_t rows = 0, cols = 0;  ///< cols: a multiple of the format's block
  std::int64_t stride = 0;          ///< bytes between rows

  constexpr weight_view() noexcept = default;
  /// Rows side by side.
  constexpr weight_view(std::uint32_t id, std::span<const std::byte> memory, std::int64_t row_count,
                        std::int64_t col_count) noexcept
      : weight_view(id, memory, row_count, col_count, dense_row(id, col_count)) {}
  constexpr weight_view(std::uint32_t id, std::span<const std::byte> memory, std::int64_t row_count,
                        std::int64_t col_count, std::int64_t row_stride) noexcept
      : gguf_id(id), data(memory), rows(row_count), cols(col_count), stride(row_stride) {}
  template <any_format F>
  constexpr weight_view(const quantal::weight_view<F>& w) noexcept
      : weight_view(F::gguf_id, w.data, w.rows, w.cols, w.stride) {}

  /// Bytes of a row; 0 for an unknown format and for lengths that no product takes.
  static constexpr std::int64_t dense_row(std::uint32_t id, std::int64_t cols) noexcept {
    const format_info* const f = find_format(id);
    return f && checks::dimension(cols) ? f->row_bytes(cols) : 0;
  }
};

/// quantal::weight_stack_view of a format known at run time.
struct weight_stack_view {
  std::uint32_t gguf_id = 0;
  std::span<const std::byte> data;
  std::int64_t experts = 0, rows = 0, cols = 0;
  std::int64_t stride = 0;         ///< bytes between rows
  std::int64_t expert_stride = 0;  ///< bytes between matrices

  constexpr weight_stack_view() noexcept = default;
  /// Rows and matrices side by side.
  constexpr weight_stack_view(std::uint32_t id, std::span<const std::byte> memory, std::int64_t expert_count,
                              std::int64_t row_count, std::int64_t col_count) noexcept
      : weight_stack_view(id, memory, expert_count, row_count, col_count,
                          weight_view::dense_row(id, col_count),
                          checks::dense_matrix(weight_view::dense_row(id, col_count), row_count)) {}
  constexpr weight_stack_view(std::uint32_t id, std::span<const std::byte> memory, std::int64_t expert_count,
                              std::int64_t row_count, std::int64_t col_count, std::int64_t row_stride,
                              std::int64_t matrix_stride) noexcept
      : gguf_id(id),
        data(memory),
        experts(expert_count),
        rows(row_count),
        cols(col_count),
        stride(row_stride),
        expert_stride(matrix_stride) {}
  template <any_format F>
  constexpr weight_stack_view(const quantal::weight_stack_view<F>& w) noexcept
      : weight_stack_view(F::gguf_id, w.data, w.experts, w.rows, w.cols, w.stride, w.expert_stride) {}
};

namespace detail {
/// All views of a product, and the format.
template <class W, class... Vectors>
constexpr status check_views(const W& w, const Vectors&... vectors) noexcept {
  const format_info* const f = find_format(w.gguf_id);
  return f ? checks::check_views(checks::rows_of(f->layout), w, vectors...) : status::unknown_format;
}
}  // namespace detail

/// Bytes of workspace that the product below wants; 0 for an unknown format.
inline std::size_t mul_mat_workspace(const weight_view& w, const matrix_view<const float>& x,
                                     activation policy, const dispatcher& variant = best_variant()) noexcept {
  const format_ops* const ops = variant.find(w.gguf_id);
  return ops ? ops->mul_mat_workspace(args_of(w, x, {}), policy) : 0;
}

/// out[t][r] = sum_c w[r][c] * x[t][c]: x is n x cols, out is n x rows. Views that do not fit each other or
/// their memory are refused before anything is written. Results do not depend on the executor. No allocation.
inline status mul_mat(const weight_view& w, const matrix_view<const float>& x, const matrix_view<float>& out,
                      const product_options& o, const dispatcher& variant = best_variant()) noexcept {
  if (const status s = detail::check_views(w, x, out); s != status::ok) return s;
  return variant.find(w.gguf_id)->mul_mat(args_of(w, x, out), o.policy, o.executor, o.workspace);
}

/// Bytes of workspace that the product below wants; `slots`: slots per token. 0 for an unknown format.
inline std::size_t mul_mat_id_workspace(const weight_stack_view& w, const slots_view<const float>& x,
                                        std::int64_t slots, activation policy,
                                        const dispatcher& variant = best_variant()) noexcept {
  const format_ops* const ops = variant.find(w.gguf_id);
  return ops ? ops->mul_mat_id_workspace(args_of(w, x, {{}, x.tokens, slots}, {}), policy) : 0;
}

/// out[t][j][r] = sum_c w[ids[t][j]][r][c] * x[t][j][c]: ids are tokens x slots, out is tokens x slots x
/// rows, x is tokens x slots x cols, or tokens x cols for slots that share their token's vector. Otherwise as
/// mul_mat.
inline status mul_mat_id(const weight_stack_view& w, const slots_view<const float>& x,
                         const matrix_view<const std::int32_t>& ids, const slots_view<float>& out,
                         const product_options& o, const dispatcher& variant = best_variant()) noexcept {
  if (const status s = detail::check_views(w, x, ids, out); s != status::ok) return s;
  return variant.find(w.gguf_id)->mul_mat_id(args_of(w, x, ids, out), o.policy, o.executor, o.workspace);
}

/// Decodes a matrix, rows x cols. Row by row on the calling thread.
inline status dequantize(const weight_view& w, const matrix_view<float>& out,
                         const dispatcher& variant = best_variant()) noexcept {
  if (const status s = detail::check_views(w); s != status::ok) return s;
  if (const status s = checks::check_view(out); s != status::ok) return s;
  if (out.rows != w.rows || out.cols != w.cols) return status::bad_shape;
  const checks::row_layout layout = checks::rows_of(find_format(w.gguf_id)->layout);
  if (const status s = checks::check_decoding(layout, checks::stack_of(w), out.data.data(), out.stride);
      s != status::ok)
    return s;
  const format_ops& ops = *variant.find(w.gguf_id);
  for (std::int64_t r = 0; r < w.rows; ++r)
    ops.dequantize_row(w.data.data() + r * w.stride, out.data.data() + r * out.stride, w.cols);
  return status::ok;
}

/// Quantizes a matrix into rows that lie side by side in `out`. `importance`: one weight per column, or
/// empty. Stops at the first row that is refused; `out` is unspecified then. Row by row on the calling
/// thread. No allocation.
inline status quantize(std::uint32_t gguf_id, const matrix_view<const float>& x,
                       std::span<const float> importance, std::span<std::byte> out,
                       const dispatcher& variant = best_variant()) noexcept {
  const quantizer encode = variant.find_quantizer(gguf_id);
  if (!encode) return format_index(gguf_id) ? status::unsupported : status::unknown_format;
  if (const status s = checks::check_view(x); s != status::ok) return s;
  if (!importance.empty() && importance.size() != static_cast<std::size_t>(x.cols)) return status::bad_shape;
  const weight_view w(gguf_id, out, x.rows, x.cols);
  if (const status s = detail::check_views(w); s != status::ok) return s;
  for (std::int64_t r = 0; r < x.rows; ++r) {
    const float* const weights = importance.empty() ? nullptr : importance.data();
    if (const status s = encode(x.data.data() + r * x.stride, weights, out.data() + r * w.stride, x.cols);
        s != status::ok)
      return s;
  }
  return status::ok;
}

/// Weights packed by pack(), and the operations that belong to them.
struct packed_matrix {
  packed_weights weights;
  const format_ops* ops = nullptr;
};

/// Decodes one matrix into `memory` of packed_bytes(rows, cols) of its format_ops, and lets `packed` refer to
/// it.
inline status pack(const weight_view& w, std::span<std::byte> memory, executor_ref executor,
                   packed_matrix& packed, const dispatcher& variant = best_variant()) noexcept {
  if (const status s = detail::check_views(w); s != status::ok) return s;
  const format_ops* const ops = variant.find(w.gguf_id);
  const pack_args a{w.data.data(), 1, w.rows, w.cols, w.stride, 0};
  const status s = ops->pack(a, memory, executor, packed.weights);
  if (s == status::ok) packed.ops = ops;
  return s;
}

/// Bytes of workspace of the product below.
inline std::size_t mul_mat_workspace(const packed_matrix& w, const matrix_view<const float>& x) noexcept {
  return w.ops ? w.ops->packed_mul_mat_workspace(w.weights, args_of(checks::shape_of(w.weights), x, {})) : 0;
}

/// mul_mat with packed weights. The policy is q8; any other is unsupported.
inline status mul_mat(const packed_matrix& w, const matrix_view<const float>& x,
                      const matrix_view<float>& out, const product_options& o) noexcept {
  if (!w.ops) return status::null_pointer;
  if (o.policy != activation::q8) return status::unsupported;
  if (const status s = checks::check_columns(w.weights, x, out); s != status::ok) return s;
  return w.ops->packed_mul_mat(w.weights, args_of(checks::shape_of(w.weights), x, out), o.executor,
                               o.workspace);
}

}  // namespace quantal::runtime
