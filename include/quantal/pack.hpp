// pack(): weights decoded once, for products of many columns again and again; see kernel/pack.hpp for what it
// costs and when it pays. Needs xsimd.
#pragma once

#include "quantal/kernel/pack.hpp"
#include "quantal/views.hpp"

namespace quantal {

/// Decodes one matrix into `memory` of packed_bytes(rows, cols), and lets `packed` refer to it.
template <block_format F, class A>
status pack(const weight_view<F>& w, std::span<std::byte> memory, executor_ref executor,
            packed_matrix<F, A>& packed) noexcept {
  if (const status s = checks::check_views(checks::row_layout_of<F>, w); s != status::ok) return s;
  return pack(pack_args{w.data.data(), 1, w.rows, w.cols, w.stride, 0}, memory, executor, packed);
}
/// The same of a stack, into packed_bytes(rows, cols, experts).
template <block_format F, class A>
status pack(const weight_stack_view<F>& w, std::span<std::byte> memory, executor_ref executor,
            packed_matrix<F, A>& packed) noexcept {
  if (const status s = checks::check_views(checks::row_layout_of<F>, w); s != status::ok) return s;
  return pack(pack_args{w.data.data(), w.experts, w.rows, w.cols, w.stride, w.expert_stride}, memory,
              executor, packed);
}

/// Bytes of workspace of the product below.
template <block_format F, class A>
std::size_t mul_mat_workspace(const packed_matrix<F, A>& w, const matrix_view<const float>& x) noexcept {
  return mul_mat_workspace(w, args_of(checks::shape_of(w), x, {}));
}
/// mul_mat with packed weights. The policy is q8; any other is unsupported.
template <block_format F, class A>
status mul_mat(const packed_matrix<F, A>& w, const matrix_view<const float>& x, const matrix_view<float>& out,
               const product_options& o) noexcept {
  if (o.policy != activation::q8) return status::unsupported;
  if (const status s = checks::check_columns(w, x, out); s != status::ok) return s;
  return mul_mat(w, args_of(checks::shape_of(w), x, out), o.executor, o.workspace);
}

/// Bytes of workspace of the product below; `slots`: slots per token.
template <block_format F, class A>
std::size_t mul_mat_id_workspace(const packed_matrix<F, A>& w, const slots_view<const float>& x,
                                 std::int64_t slots) noexcept {
  return mul_mat_id_workspace(w, args_of(checks::shape_of(w), x, {{}, x.tokens, slots}, {}));
}
/// mul_mat_id with a packed stack.
template <block_format F, class A>
status mul_mat_id(const packed_matrix<F, A>& w, const slots_view<const float>& x,
                  const matrix_view<const std::int32_t>& ids, const slots_view<float>& out,
                  const product_options& o) noexcept {
  if (o.policy != activation::q8) return status::unsupported;
  if (const status s = checks::check_columns(w, x, ids, out); s != status::ok) return s;
  return mul_mat_id(w, args_of(checks::shape_of(w), x, ids, out), o.executor, o.workspace);
}

}  // namespace quantal
