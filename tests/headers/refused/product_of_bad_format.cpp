// refused: a group is 16, 32, 64, 128 or 256 weights
#define GROUP_WEIGHTS 8
#include <quantal/mul_mat.hpp>

#include "format.hpp"

quantal::status product(const quantal::mul_mat_args& a, quantal::executor_ref e, std::span<std::byte> w) {
  return quantal::mul_mat<my_format, quantal::simd::scalar>(a, quantal::activation::q8, e, w);
}
