// accepted
#include <quantal/mul_mat.hpp>

#include "format.hpp"

using quantal::simd::scalar;
template quantal::status quantal::mul_mat<scalar, my_format>(const quantal::weight_view<my_format>&,
                                                             const quantal::matrix_view<const float>&,
                                                             const quantal::matrix_view<float>&,
                                                             const quantal::product_options&) noexcept;
