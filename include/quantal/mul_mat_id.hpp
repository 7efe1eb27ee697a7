// Products through the expert that each (token, slot) pair selects, compiled for an arch that the caller
// names; see mul_mat.hpp. Needs xsimd.
#pragma once

#include "quantal/kernel/mul_mat_id.hpp"
#include "quantal/views.hpp"

namespace quantal {

/// Bytes of workspace that the product below wants; `slots`: slots per token.
template <class A = simd::native, any_format F>
std::size_t mul_mat_id_workspace(const weight_stack_view<F>& w, const slots_view<const float>& x,
                                 std::int64_t slots, activation policy) noexcept {
  return mul_mat_id_workspace<F, A>(args_of(w, x, {{}, x.tokens, slots}, {}), policy);
}

/// out[t][j][r] = sum_c w[ids[t][j]][r][c] * x[t][j][c] on arch A: ids are tokens x slots, out is tokens x
/// slots x rows, x is tokens x slots x cols, or tokens x cols for slots that share their token's vector.
/// Otherwise as mul_mat.
template <class A = simd::native, any_format F>
status mul_mat_id(const weight_stack_view<F>& w, const slots_view<const float>& x,
                  const matrix_view<const std::int32_t>& ids, const slots_view<float>& out,
                  const product_options& o) noexcept {
  if (const status s = checks::check_views(checks::row_layout_of<F>, w, x, ids, out); s != status::ok)
    return s;
  return mul_mat_id<F, A>(args_of(w, x, ids, out), o.policy, o.executor, o.workspace);
}

}  // namespace quantal
