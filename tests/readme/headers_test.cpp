// The README's function of views is mul_mat.
#include "headers.hpp"

#include <gtest/gtest.h>

#include "quantal/dequantize.hpp"
#include "quantal/runtime/cpu.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

TEST(ReadmeHeaders, Multiplies) {
  if (!runtime::cpu_supports<simd::avx2>()) GTEST_SKIP() << "this machine does not run avx2";
  constexpr std::int64_t rows = 5, cols = 256, n = 2;
  rng g(1);
  const auto weights = random_rows<q4_K>(g, rows, cols, row_bytes<q4_K>(cols));
  const auto x = gaussian(g, n * cols);
  std::vector<float> out(n * rows);
  std::vector<std::byte> workspace(
      mul_mat_workspace<simd::avx2>(weight_view<q4_K>(weights, rows, cols), {x, n, cols}, activation::exact));
  ASSERT_EQ(product({weights, rows, cols}, {x, n, cols}, {out, n, rows},
                    {.policy = activation::exact, .workspace = workspace}),
            status::ok);
  for (int t = 0; t < n; ++t)
    for (int r = 0; r < rows; ++r) {
      std::vector<float> row(cols);
      dequantize_row<q4_K>(weights.data() + r * row_bytes<q4_K>(cols), row.data(), cols);
      double want = 0;
      for (int c = 0; c < cols; ++c) want += double{row[c]} * x[t * cols + c];
      EXPECT_NEAR(out[t * rows + r], want, 1e-3);
    }
}

}  // namespace
}  // namespace quantal::test
