// A format that a user adds has a header and a place in a list, nothing else: it must be multiplied, quantized and
// decoded right on every arch.
#include "kernel_case.hpp"
#include "quantal/quantize/quantize.hpp"
#include "support/made_up_formats.hpp"
#include "support/made_up_ops.hpp"

namespace quantal::test {
namespace {

struct made_up_case {
  const format_info* format;
  std::string_view arch;
};
std::vector<made_up_case> made_up_cases() {
  std::vector<made_up_case> cases;
  for (const auto& f : made_up_table)
    for (const auto arch : runtime::dispatcher::compiled()) cases.push_back({&f, arch});
  return cases;
}
std::string made_up_name(const testing::TestParamInfo<made_up_case>& info) {
  return std::string(info.param.format->name) + "_" + std::string(info.param.arch);
}

class MadeUp : public testing::TestWithParam<made_up_case> {
 protected:
  const format_info& format() const { return *GetParam().format; }
  const runtime::format_ops* ops() const { return made_up_ops(format().gguf_id, GetParam().arch); }

  std::vector<std::byte> rows(rng& g, std::int64_t n, std::int64_t cols) const {
    std::vector<std::byte> w;
    visit_any_format(format().gguf_id,
                     [&]<class F>() { w = random_rows<F>(g, n, cols, format().row_bytes(cols)); });
    return w;
  }
  std::vector<float> decoded(const std::vector<std::byte>& w, std::int64_t n, std::int64_t cols) const {
    std::vector<float> x(static_cast<std::size_t>(n * cols));
    visit_any_format(format().gguf_id, [&]<class F>() {
      for (std::int64_t r = 0; r < n; ++r)
        quantal::dequantize_row<F>(w.data() + r * format().row_bytes(cols), x.data() + r * cols, cols);
    });
    return x;
  }
  /// Relative error of the product against float64, given activations as the policy sees them.
  void check_product(activation policy, const product_shape& s) const {
    rng g(static_cast<unsigned>(format().gguf_id + s.rows + s.n));
    const std::int64_t cols = s.blocks * format().layout.elements;
    const auto w = rows(g, s.rows, cols);
    const auto weights = decoded(w, s.rows, cols);
    const auto x = gaussian(g, static_cast<std::size_t>(s.n * cols));
    std::vector<float> out(static_cast<std::size_t>(s.n * s.rows), NAN);
    const mul_mat_args a{w.data(), s.rows,     cols,  format().row_bytes(cols), x.data(), s.n,
                         cols,     out.data(), s.rows};
    std::vector<std::byte> workspace(ops()->mul_mat_workspace(a, policy));
    serial_executor serial;
    ASSERT_EQ(ops()->mul_mat(a, policy, serial, workspace), status::ok);
    double error = 0, norm = 0;
    for (std::int64_t t = 0; t < s.n; ++t) {
      std::vector<float> seen(x.begin() + t * cols, x.begin() + (t + 1) * cols);
      if (policy == activation::q8) seen = reference::round_activations(seen, kernel::q8_block);
      for (std::int64_t r = 0; r < s.rows; ++r) {
        double want = 0, size = 0;
        for (std::int64_t c = 0; c < cols; ++c) {
          const double product =
              double{weights[static_cast<std::size_t>(r * cols + c)]} * seen[static_cast<std::size_t>(c)];
          want += product;
          size += product * product;
        }
        const double e = out[static_cast<std::size_t>(t * s.rows + r)] - want;
        error += e * e;
        norm += size;
      }
    }
    EXPECT_LT(std::sqrt(error / norm), 1e-6) << "rows " << s.rows << " cols " << cols << " n " << s.n;
  }
};

TEST_P(MadeUp, DecodesToItsDefinition) {
  if (!ops()) GTEST_SKIP() << "this machine does not run " << GetParam().arch;
  rng g(1);
  const std::int64_t cols = 1024;
  const auto w = rows(g, 1, cols);
  std::vector<float> got(cols, NAN);
  ops()->dequantize_row(w.data(), got.data(), cols);
  const auto want = decoded(w, 1, cols);
  EXPECT_EQ(0, std::memcmp(want.data(), got.data(), cols * sizeof(float)));
}

TEST_P(MadeUp, MultipliesRight) {
  if (!ops()) GTEST_SKIP() << "this machine does not run " << GetParam().arch;
  for (const activation policy : {activation::exact, activation::q8})
    for (const product_shape& s : ragged_shapes) check_product(policy, s);
}

INSTANTIATE_TEST_SUITE_P(Kernel, MadeUp, testing::ValuesIn(made_up_cases()), made_up_name);

TEST(MadeUpQuantizer, RoundsToTheNearestOfItsCodes) {
  rng g(2);
  const auto x = gaussian(g, 4096);
  std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<q5_64>(4096)));
  ASSERT_EQ(quantize_row<q5_64>(x.data(), nullptr, row.data(), 4096), status::ok);
  std::vector<float> y(4096);
  dequantize_row<q5_64>(row.data(), y.data(), 4096);
  double error = 0, norm = 0;
  for (std::size_t i = 0; i < x.size(); ++i) error += (x[i] - y[i]) * (x[i] - y[i]), norm += x[i] * x[i];
  EXPECT_LT(error / norm, 2.5e-3);
}

}  // namespace
}  // namespace quantal::test
