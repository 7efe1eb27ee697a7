// One weight matrix times n activation vectors, compiled for an arch that the caller names, or for the best
// that the flags of the unit allow. Units that include this are compiled with the arch's flags; runtime.hpp has every
// arch behind one call. Needs xsimd.
#pragma once

#include "quantal/kernel/mul_mat.hpp"
#include "quantal/views.hpp"

namespace quantal {

/// Bytes of workspace that the product below wants.
template <class A = simd::native, any_format F>
std::size_t mul_mat_workspace(const weight_view<F>& w, const matrix_view<const float>& x,
                              activation policy) noexcept {
  return mul_mat_workspace<F, A>(args_of(w, x, {}), policy);
}

/// out[t][r] = sum_c w[r][c] * x[t][c] on arch A: x is n x cols, out is n x rows. Views that do not fit each
/// other or their memory are refused before anything is written. Results do not depend on the executor. No
/// allocation.
template <class A = simd::native, any_format F>
status mul_mat(const weight_view<F>& w, const matrix_view<const float>& x, const matrix_view<float>& out,
               const product_options& o) noexcept {
  if (const status s = checks::check_views(checks::row_layout_of<F>, w, x, out); s != status::ok) return s;
  return mul_mat<F, A>(args_of(w, x, out), o.policy, o.executor, o.workspace);
}

}  // namespace quantal
