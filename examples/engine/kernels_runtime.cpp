// Every format, for the best arch of the machine that runs the engine.
#include "kernels.hpp"

using namespace quantal;

status multiply(const runtime::weight_view& w, const matrix_view<const float>& x,
                const matrix_view<float>& out, pool& threads) {
  std::vector<std::byte> workspace(runtime::mul_mat_workspace(w, x, activation::q8));
  return runtime::mul_mat(w, x, out, {.executor = threads, .workspace = workspace});
}
