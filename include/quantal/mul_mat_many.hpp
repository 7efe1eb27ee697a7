// Several matrices of one format times the same activations, with an epilogue, compiled for an arch that the
// caller names; see mul_mat.hpp. Needs xsimd.
#pragma once

#include <array>

#include "quantal/kernel/mul_mat_many.hpp"
#include "quantal/views.hpp"

namespace quantal {

/// One of the matrices and where its results go, n x rows.
template <any_format F>
struct matrix_product {
  weight_view<F> weights;
  matrix_view<float> out;
};
template <any_format F, class Out>
matrix_product(weight_view<F>, Out) -> matrix_product<F>;

/// Bytes of workspace that the products below want.
template <class A = simd::native, any_format F>
std::size_t mul_mat_many_workspace(const matrix_view<const float>& x, activation policy) noexcept {
  return mul_mat_many_workspace<F, A>(shared_activations{x.data.data(), x.rows, x.cols, x.stride}, policy);
}

/// Results of every matrix as mul_mat gives them, bit for bit, then the epilogue; x is n x cols. Otherwise as
/// mul_mat.
template <class A = simd::native, any_format F, std::size_t count, epilogue E = no_epilogue>
status mul_mat_many(const std::array<matrix_product<F>, count>& products, const matrix_view<const float>& x,
                    const product_options& o, const E& finish = {}) noexcept {
  std::array<weight_matrix, count> matrices;
  for (std::size_t i = 0; i < count; ++i) {
    const auto& [w, out] = products[i];
    if (const status s = checks::check_views(checks::row_layout_of<F>, w, x, out); s != status::ok) return s;
    matrices[i] = {w.data.data(), w.rows, w.stride, out.data.data(), out.stride};
  }
  return mul_mat_many<F, A>(matrices, {x.data.data(), x.rows, x.cols, x.stride}, o.policy, o.executor,
                            o.workspace, finish);
}

}  // namespace quantal
