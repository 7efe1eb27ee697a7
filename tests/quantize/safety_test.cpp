// Any input gives a valid block or a status.
#include <gtest/gtest.h>

#include <cstring>
#include <limits>

#include "quantal/dequantize.hpp"
#include "quantal/quantize/quantize.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/random_weights.hpp"

namespace quantal {
namespace {

class Safety : public testing::TestWithParam<std::uint32_t> {
 protected:
  std::vector<float> round_trip(const std::vector<float>& x, const std::vector<float>& w = {}) {
    const auto& f = *find_format(GetParam());
    std::vector<std::byte> row(static_cast<std::size_t>(f.row_bytes(static_cast<std::int64_t>(x.size()))));
    std::vector<float> y(x.size(), NAN);
    EXPECT_EQ(runtime::quantize_row(GetParam(), x.data(), w.empty() ? nullptr : w.data(), row.data(),
                                    static_cast<std::int64_t>(x.size())),
              status::ok);
    EXPECT_EQ(dequantize_row(GetParam(), row.data(), y.data(), static_cast<std::int64_t>(x.size())),
              status::ok);
    return y;
  }
  status run(const std::vector<float>& x, const float* w) {
    std::vector<std::byte> row(4 * x.size() + 64);
    return runtime::quantize_row(GetParam(), x.data(), w, row.data(), static_cast<std::int64_t>(x.size()));
  }
};

TEST_P(Safety, DegenerateRowsStayFinite) {
  test::rng g(1);
  const std::vector<float> random = test::gaussian(g, 256);
  std::vector<std::vector<float>> rows = {std::vector<float>(256, 0.0f),   std::vector<float>(256, -0.0f),
                                          std::vector<float>(256, 3.5f),   std::vector<float>(256, -1e-3f),
                                          std::vector<float>(256, 1e-42f), test::gaussian(g, 256, 1e-38f),
                                          test::gaussian(g, 256, 1e-8f),   random};
  rows.push_back(random);
  rows.back()[17] = 1e4f;
  for (const auto& x : rows)
    for (const float y : round_trip(x)) EXPECT_TRUE(std::isfinite(y));
  for (const float y : round_trip(rows[0])) EXPECT_EQ(y, 0.0f);
}

TEST_P(Safety, OneHotAndZeroImportance) {
  test::rng g(2);
  const auto x = test::gaussian(g, 256);
  std::vector<float> w(256, 0.0f);
  for (const float y : round_trip(x, w)) EXPECT_TRUE(std::isfinite(y));
  w[100] = 1e-30f;
  for (const float y : round_trip(x, w)) EXPECT_TRUE(std::isfinite(y));
  w[100] = 1e30f;
  const auto y = round_trip(x, w);
  EXPECT_NEAR(y[100], x[100], 0.26f * std::fabs(x[100]) + 1e-6f);
}

TEST_P(Safety, BadInputIsAStatus) {
  std::vector<float> x(256, 1.0f), w(256, 1.0f);
  for (const float bad : {NAN, INFINITY, -INFINITY}) {
    auto y = x;
    y[200] = bad;
    EXPECT_EQ(run(y, w.data()), status::not_finite);
    auto v = w;
    v[3] = bad;
    EXPECT_EQ(run(x, v.data()), status::bad_importance);
  }
  w[3] = -1.0f;
  EXPECT_EQ(run(x, w.data()), status::bad_importance);
  if (!find_format(GetParam())->is_float) {
    x.resize(255);
    w[3] = 1.0f;
    EXPECT_EQ(run(x, w.data()), status::bad_shape);
  }
}

TEST_P(Safety, SameBytesEveryTime) {
  test::rng g(6);
  const auto x = test::gaussian(g, 256);
  EXPECT_EQ(round_trip(x), round_trip(x));
}

TEST_P(Safety, SameBytesOnEveryArch) {
  test::rng g(8);
  const auto x = test::gaussian(g, 1024);
  auto w = test::gaussian(g, 1024);
  for (auto& v : w) v = std::exp(v);
  const auto& f = *find_format(GetParam());
  std::vector<std::byte> first;
  for (const auto arch : runtime::dispatcher::compiled()) {
    const auto d = runtime::dispatcher::named(arch);
    if (!d) continue;
    std::vector<std::byte> row(static_cast<std::size_t>(f.row_bytes(1024)));
    ASSERT_NE(d->find_quantizer(f.gguf_id), nullptr);
    ASSERT_EQ(d->find_quantizer(f.gguf_id)(x.data(), w.data(), row.data(), 1024), status::ok);
    if (first.empty()) first = row;
    EXPECT_EQ(first, row) << arch;
  }
}

std::vector<std::uint32_t> all_ids() {
  std::vector<std::uint32_t> ids;
  for (const auto& f : format_table)
    if (can_quantize(f.gguf_id)) ids.push_back(f.gguf_id);
  return ids;
}

INSTANTIATE_TEST_SUITE_P(Format, Safety, testing::ValuesIn(all_ids()),
                         [](const auto& info) { return std::string(find_format(info.param)->name); });

TEST(QuantizeRow, UnknownFormat) {
  EXPECT_EQ(runtime::quantize_row(9999, nullptr, nullptr, nullptr, 0), status::unknown_format);
  EXPECT_FALSE(can_quantize(9999));
}

/// Conversions equal those of the format, from any address, and find bad input at every place, on every arch.
template <class F>
void check_conversion() {
  test::rng g(5);
  for (const auto arch : runtime::dispatcher::compiled()) {
    const auto d = runtime::dispatcher::named(arch);
    if (!d) continue;
    const auto quantize = d->find_quantizer(F::gguf_id);
    ASSERT_TRUE(quantize);
    for (std::size_t cols = 1; cols < 80; cols = cols < 40 ? cols + 1 : cols + 13) {
      std::vector<float> x(cols), w(cols, -0.0f);
      for (auto& v : x) {
        v = quantal::detail::float_from_bits(static_cast<std::uint32_t>(g()));
        if (!std::isfinite(v)) v = 65520.0f;
        if (g() % 2)
          v = std::ldexp(1.0f + static_cast<float>(g() % 4096) / 2048, static_cast<int>(g() % 42) - 26);
      }
      std::vector<std::byte> out(F::layout.bytes * cols + 1);
      const auto run = [&] {
        return quantize(x.data(), w.data(), out.data() + 1, static_cast<std::int64_t>(cols));
      };
      ASSERT_EQ(run(), status::ok);
      for (std::size_t i = 0; i < cols; ++i) {
        const auto want = F::from_float(x[i]);
        EXPECT_EQ(std::memcmp(&want, &out[1 + i * sizeof want], sizeof want), 0) << arch << x[i];
      }
      for (std::size_t i = 0; i < cols; ++i) {
        const float v = x[i];
        for (const float bad : {NAN, INFINITY, -INFINITY}) {
          x[i] = bad;
          EXPECT_EQ(run(), status::not_finite) << arch << i;
          x[i] = v, w[i] = bad;
          EXPECT_EQ(run(), status::bad_importance) << arch << i;
          w[i] = -0.0f;
        }
        w[i] = -1e-40f;
        EXPECT_EQ(run(), status::bad_importance) << arch << i;
        w[i] = 1;
      }
    }
  }
}

TEST(Conversions, AreThoseOfTheFormat) {
  check_conversion<f32>();
  check_conversion<f16>();
  check_conversion<bf16>();
}

}  // namespace
}  // namespace quantal
