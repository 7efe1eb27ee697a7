// Several matrices at once equal one mul_mat each, and the epilogue sees every result once.
#include "quantal/kernel/mul_mat_many.hpp"

#include <gtest/gtest.h>

#include <array>

#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

using arch = simd::scalar;
using format = q4_K;
constexpr std::int64_t cols = 512, rows[2] = {70, 131};

struct product {
  std::vector<std::byte> weights[2];
  std::vector<float> x, want[2], got[2];
  std::int64_t n;

  explicit product(std::int64_t columns) : n(columns) {
    rng g(static_cast<unsigned>(n));
    x = gaussian(g, static_cast<std::size_t>(n * cols));
    for (int i = 0; i < 2; ++i) {
      weights[i] = random_rows<format>(g, rows[i], cols, row_bytes<format>(cols));
      want[i].assign(static_cast<std::size_t>(n * rows[i]), NAN);
      got[i] = want[i];
    }
  }
  shared_activations activations() const { return {x.data(), n, cols, cols}; }
  std::array<weight_matrix, 2> matrices() {
    const auto of = [&](int i) {
      return weight_matrix{weights[i].data(), rows[i], row_bytes<format>(cols), got[i].data(), rows[i]};
    };
    return {of(0), of(1)};
  }
  void reference(activation policy) {
    serial_executor serial;
    for (int i = 0; i < 2; ++i) {
      const mul_mat_args a{weights[i].data(), rows[i], cols, row_bytes<format>(cols), x.data(), n, cols,
                           want[i].data(),    rows[i]};
      std::vector<std::byte> workspace(mul_mat_workspace<format, arch>(a, policy));
      ASSERT_EQ((mul_mat<format, arch>(a, policy, serial, workspace)), status::ok);
    }
  }
};

TEST(MulMatMany, SameBitsAsOneByOne) {
  for (const auto policy : {activation::q8, activation::exact})
    for (const std::int64_t n : {1, 3, 9, 40}) {
      product p(n);
      p.reference(policy);
      const auto x = p.activations();
      std::vector<std::byte> workspace(mul_mat_many_workspace<format, arch>(x, policy));
      thread_pool pool(2);
      ASSERT_EQ((mul_mat_many<format, arch>(p.matrices(), x, policy, pool, workspace)), status::ok);
      for (int i = 0; i < 2; ++i) EXPECT_EQ(p.got[i], p.want[i]) << n << " columns, matrix " << i;
    }
}

TEST(MulMatMany, ScaleAndBias) {
  product p(5);
  p.reference(activation::q8);
  rng g(1);
  const auto scale = gaussian(g, 70), bias0 = gaussian(g, 70), bias1 = gaussian(g, 131);
  const float* const scales[2] = {scale.data(), nullptr};
  const float* const biases[2] = {bias0.data(), bias1.data()};
  const auto x = p.activations();
  std::vector<std::byte> workspace(mul_mat_many_workspace<format, arch>(x, activation::q8));
  serial_executor serial;
  ASSERT_EQ((mul_mat_many<format, arch>(p.matrices(), x, activation::q8, serial, workspace,
                                        scale_and_bias{scales, biases})),
            status::ok);
  for (std::size_t k = 0; k < p.got[0].size(); ++k)
    EXPECT_FLOAT_EQ(p.got[0][k], p.want[0][k] * scale[k % 70] + bias0[k % 70]);
  for (std::size_t k = 0; k < p.got[1].size(); ++k)
    EXPECT_FLOAT_EQ(p.got[1][k], p.want[1][k] + bias1[k % 131]);
}

TEST(MulMatMany, RefusesBadArguments) {
  product p(2);
  const auto x = p.activations();
  auto m = p.matrices();
  serial_executor serial;
  std::vector<std::byte> workspace(mul_mat_many_workspace<format, arch>(x, activation::q8));
  const auto run = [&](const shared_activations& a) {
    return mul_mat_many<format, arch>(m, a, activation::q8, serial, workspace);
  };
  EXPECT_EQ(run({x.data, x.n, cols + 1, cols + 1}), status::bad_shape);
  EXPECT_EQ(run({x.data, x.n, cols, cols - 1}), status::bad_stride);
  EXPECT_EQ(run({nullptr, x.n, cols, cols}), status::null_pointer);
  m[1].out_stride = rows[1] - 1;
  EXPECT_EQ(run(x), status::bad_stride);
  m[1].out_stride = rows[1];
  workspace.resize(10);
  EXPECT_EQ(run(x), status::small_workspace);
}

}  // namespace
}  // namespace quantal::test
