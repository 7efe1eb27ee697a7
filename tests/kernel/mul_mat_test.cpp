#include "kernel_case.hpp"

namespace quantal::test {
namespace {

class MulMat : public testing::TestWithParam<kernel_case> {};

TEST_P(MulMat, MatchesFloat64Reference) {
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const auto* ops = arch->find(GetParam().format);
  for (const product_shape& s : ragged_shapes) check_mul_mat(GetParam(), *ops, s);
}

/// Columns of long rows are read a part at a time, so that they stay in the first-level cache.
TEST_P(MulMat, LongRows) {
  if (!rounds_activations(GetParam())) return;
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const std::int64_t block = find_format(GetParam().format)->layout.elements;
  for (const auto& [weights, n] : {std::pair{16896, 1}, {4608, 4}, {2560, 8}})
    check_mul_mat(GetParam(), *arch->find(GetParam().format), {3, weights / block + 1, n});
}

TEST_P(MulMat, SameBitsForAnyNumberOfWorkers) {
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const auto* ops = arch->find(GetParam().format);
  const auto& info = *find_format(GetParam().format);
  rng g(7);
  const std::int64_t rows = 131, cols = 512, n = 9;
  std::vector<std::byte> weights;
  visit_format(GetParam().format,
               [&]<class F>() { weights = random_rows<F>(g, rows, cols, info.row_bytes(cols)); });
  const auto x = gaussian(g, n * cols);
  std::vector<float> first;
  for (const int workers : {1, 2, 5}) {
    std::vector<float> out(n * rows, NAN);
    const mul_mat_args a{weights.data(), rows,       cols, info.row_bytes(cols), x.data(), n,
                         cols,           out.data(), rows};
    std::vector<std::byte> workspace(ops->mul_mat_workspace(a, GetParam().policy));
    thread_pool pool(workers);
    ASSERT_EQ(ops->mul_mat(a, GetParam().policy, pool, workspace), status::ok);
    if (first.empty()) first = out;
    EXPECT_EQ(0, std::memcmp(first.data(), out.data(), out.size() * sizeof(float))) << workers << " workers";
  }
}

TEST_P(MulMat, DequantizeEqualsDefinition) {
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const auto& info = *find_format(GetParam().format);
  rng g(11);
  const std::int64_t cols = 768;
  for (const std::size_t shift : {0u, 1u, 3u}) {
    std::vector<std::byte> row;
    visit_format(GetParam().format,
                 [&]<class F>() { row = random_rows<F>(g, 1, cols, info.row_bytes(cols), shift); });
    std::vector<float> want(cols), got(cols, NAN);
    ASSERT_EQ(dequantize_row(GetParam().format, row.data() + shift, want.data(), cols), status::ok);
    arch->find(GetParam().format)->dequantize_row(row.data() + shift, got.data(), cols);
    EXPECT_EQ(0, std::memcmp(want.data(), got.data(), cols * sizeof(float)));
  }
}

TEST_P(MulMat, LargeActivationsDoNotOverflow) {
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const auto& info = *find_format(GetParam().format);
  rng g(5);
  const std::int64_t rows = 5, cols = 256, n = 8;
  std::vector<std::byte> weights;
  visit_format(GetParam().format,
               [&]<class F>() { weights = random_rows<F>(g, rows, cols, info.row_bytes(cols)); });
  auto x = gaussian(g, n * cols, 1e6f);
  for (std::int64_t i = 0; i < cols; ++i) x[static_cast<std::size_t>(i)] = i % 2 ? 3e7f : -3e7f;
  std::vector<float> out(n * rows, NAN);
  const mul_mat_args a{weights.data(), rows, cols, info.row_bytes(cols), x.data(), n, cols, out.data(), rows};
  std::vector<std::byte> workspace(arch->find(GetParam().format)->mul_mat_workspace(a, GetParam().policy));
  serial_executor serial;
  ASSERT_EQ(arch->find(GetParam().format)->mul_mat(a, GetParam().policy, serial, workspace), status::ok);
  const auto seen = seen_by(GetParam(), x, n, cols, cols);
  auto exact = a;
  exact.activations = seen.data();
  EXPECT_LT(relative_error(out, reference::mul_mat(GetParam().format, exact)), arithmetic_tolerance);
}

TEST_P(MulMat, ErrorOfThePolicy) {
  QUANTAL_REQUIRE_ARCH(arch, GetParam().arch);
  const auto& ops = *arch->find(GetParam().format);
  const auto& info = *find_format(GetParam().format);
  rng g(3);
  const std::int64_t rows = 64, cols = 512, n = 48;
  std::vector<std::byte> weights;
  visit_format(GetParam().format,
               [&]<class F>() { weights = random_rows<F>(g, rows, cols, info.row_bytes(cols)); });
  const auto x = gaussian(g, n * cols);
  std::vector<float> out(n * rows, NAN);
  const mul_mat_args a{weights.data(), rows, cols, info.row_bytes(cols), x.data(), n, cols, out.data(), rows};
  std::vector<std::byte> workspace(ops.mul_mat_workspace(a, GetParam().policy));
  serial_executor serial;
  ASSERT_EQ(ops.mul_mat(a, GetParam().policy, serial, workspace), status::ok);
  const double e = relative_error(out, reference::mul_mat(GetParam().format, a));
  EXPECT_LE(e * e, rounds_activations(GetParam()) ? 5e-5 : rounds_to_bf16(GetParam(), n) ? 5e-6 : 1e-12);
}

/// One test for each arch in the binary, so that a report shows which of them this machine could not run.
class Arch : public testing::TestWithParam<std::string_view> {};
TEST_P(Arch, RunsHere) { QUANTAL_REQUIRE_ARCH(arch, GetParam()); }
INSTANTIATE_TEST_SUITE_P(Kernel, Arch, testing::ValuesIn(runtime::dispatcher::compiled()),
                         [](const auto& param) { return std::string(param.param); });

INSTANTIATE_TEST_SUITE_P(Kernel, MulMat, testing::ValuesIn(all_kernel_cases()), name_of);

}  // namespace
}  // namespace quantal::test
