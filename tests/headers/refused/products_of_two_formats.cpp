// refused: (no matching function for call to .*array.quantal::matrix_product<|no viable constructor or deduction guide .*array)
#include <quantal/mul_mat_many.hpp>

using namespace quantal;

status both(const weight_view<q4_K>& gate, const weight_view<q8_0>& up, matrix_view<const float> x,
            matrix_view<float> out) {
  return mul_mat_many<simd::scalar>(std::array{matrix_product{gate, out}, matrix_product{up, out}}, x, {});
}
