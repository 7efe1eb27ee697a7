// A user's unit compiled, and linked, with -ffast-math: quantizers as good as without, bad input still
// refused.
#include <gtest/gtest.h>

#include <vector>

#include "quantal/dequantize.hpp"
#include "quantal/kernel/mul_mat.hpp"
#include "quantal/quantize/quantize.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

static_assert(__FINITE_MATH_ONLY__, "compile this test with -ffast-math");

constexpr int cols = 2048;

std::vector<float> weights() {
  rng g(3);
  std::normal_distribution<float> normal;
  std::vector<float> x(cols);
  for (float& v : x) v = normal(g);
  std::fill(x.begin() + 512, x.begin() + 576, 0.0f);
  return x;
}

/// Normalised squared error of a row of normal weights.
template <class F>
double row_error() {
  const auto x = weights();
  std::vector<float> y(cols);
  std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<F>(cols)));
  EXPECT_EQ(quantize_row<F>(x.data(), nullptr, row.data(), cols), status::ok);
  dequantize_row<F>(row.data(), y.data(), cols);
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) {
    const double e = x[i] - y[i];
    error += e * e, norm += static_cast<double>(x[i]) * x[i];
  }
  return error / norm;
}

TEST(FastMath, QuantizersAreAsGood) {
  EXPECT_LT(row_error<q4_0>(), 0.0075);
  EXPECT_LT(row_error<q2_0>(), 0.14);
  EXPECT_LT(row_error<q4_K>(), 0.0055);
  EXPECT_LT(row_error<q6_K>(), 0.00031);
  EXPECT_LT(row_error<mxfp4>(), 0.0135);
}

TEST(FastMath, WeightsThatAreNoNumbersAreRefused) {
  for (const std::uint32_t bits : {0x7f800000u, 0xff800000u, 0x7fc00000u, 0x7f800001u}) {
    auto x = weights();
    __builtin_memcpy(&x[77], &bits, 4);
    std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<q4_0>(cols)));
    EXPECT_EQ(quantize_row<q4_0>(x.data(), nullptr, row.data(), cols), status::not_finite);
    const auto w = weights();
    for (float& v : x) v = v < 0 ? -v : v;
    __builtin_memcpy(&x[77], &bits, 4);
    EXPECT_EQ(quantize_row<q4_0>(w.data(), x.data(), row.data(), cols), status::bad_importance);
  }
}

TEST(FastMath, ActivationsThatAreNoNumbersGiveNone) {
  auto x = weights();
  std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<q4_0>(cols)));
  ASSERT_EQ(quantize_row<q4_0>(x.data(), nullptr, row.data(), cols), status::ok);
  const std::uint32_t infinity = 0x7f800000u;
  __builtin_memcpy(&x[77], &infinity, 4);
  float out = 0;
  const mul_mat_args a{row.data(), 1, cols, row_bytes<q4_0>(cols), x.data(), 1, cols, &out, 1};
  std::vector<std::byte> workspace(mul_mat_workspace<q4_0, simd::scalar>(a, activation::q8));
  serial_executor serial;
  ASSERT_EQ((mul_mat<q4_0, simd::scalar>(a, activation::q8, serial, workspace)), status::ok);
  EXPECT_GE(detail::bits_from_float(out) & 0x7fffffffu, infinity);
}

}  // namespace
}  // namespace quantal::test
