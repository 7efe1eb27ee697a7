// The formats of this list, for the arch that the compiler was told to build for.
#include <quantal/mul_mat.hpp>

#include "kernels.hpp"

using namespace quantal;
using formats = format_list<bf16, q8_0, q4_K>;
using arch = simd::native;

status multiply(const runtime::weight_view& w, const matrix_view<const float>& x,
                const matrix_view<float>& out, pool& threads) {
  status s = status::unsupported;
  formats::for_each([&]<class F>() {
    if (F::gguf_id != w.gguf_id) return;
    const weight_view<F> typed(w.data, w.rows, w.cols, w.stride);
    std::vector<std::byte> workspace(mul_mat_workspace<arch>(typed, x, activation::q8));
    s = mul_mat<arch>(typed, x, out, {.executor = threads, .workspace = workspace});
  });
  return s;
}
