// Output-aware codes: the loss that is reported is the loss of the bytes, it never exceeds the plain
// quantizer's, and it is close to what a search through all codes finds.
#include "quantal/quantize/output_aware.hpp"

#include <gtest/gtest.h>

#include "quantal/quantize/output_codes.hpp"
#include "quantal/quantize/row_product.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/random_weights.hpp"

namespace quantal {
namespace {

using matrix = std::vector<float>;

/// Sums of x x^T over `count` inputs with a few common directions.
matrix moments(std::int64_t cols, int count, unsigned seed) {
  test::rng g(seed);
  const auto n = static_cast<std::size_t>(cols);
  const auto directions = test::gaussian(g, 4 * n);
  matrix sums(n * n);
  for (int t = 0; t < count; ++t) {
    const auto z = test::gaussian(g, 4), noise = test::gaussian(g, n);
    std::vector<float> x(n);
    for (std::size_t c = 0; c < n; ++c) {
      x[c] = 0.5f * noise[c];
      for (std::size_t k = 0; k < 4; ++k) x[c] += z[k] * directions[k * n + c];
    }
    for (std::size_t i = 0; i < n; ++i)
      for (std::size_t j = 0; j < n; ++j) sums[i * n + j] += x[i] * x[j];
  }
  return sums;
}

output_metric prepared(std::int64_t cols, double count, const matrix& sums,
                       const output_metric_options& o = {}) {
  output_metric m;
  serial_executor serial;
  EXPECT_EQ(m.prepare({cols, count, sums}, serial, o), status::ok);
  return m;
}

/// e P e^T in float64, P as the metric holds it.
double loss_of(const output_metric& m, const float* w, const float* decoded) {
  const std::int64_t n = m.cols();
  const auto error = [&](std::int64_t c) { return double{w[c]} - decoded[c]; };
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) sum += error(i) * *m.moments(i, j) * error(j);
  return sum;
}

struct chosen_rows {
  std::vector<std::byte> bytes;
  std::vector<double> loss, plain;
  double total() const { return std::accumulate(loss.begin(), loss.end(), 0.0); }
  double plain_total() const { return std::accumulate(plain.begin(), plain.end(), 0.0); }
};

/// The compiled library's, which takes seconds less to build than one of this unit's own.
template <class F>
const quantize::output_coder& coder() {
  return *runtime::best_variant().find_coder(F::gguf_id);
}

template <class F>
chosen_rows quantized(const output_metric& m, const matrix& w, executor_ref threads,
                      const output_aware_options& o = {},
                      quantize::row_product product = &quantize::add_row_product<xsimd::default_arch, float>,
                      const quantize::output_coder& with = coder<F>()) {
  const std::int64_t cols = m.cols(), rows = static_cast<std::int64_t>(w.size()) / cols;
  chosen_rows r{std::vector<std::byte>(static_cast<std::size_t>(rows * row_bytes<F>(cols))),
                std::vector<double>(static_cast<std::size_t>(rows)),
                std::vector<double>(static_cast<std::size_t>(rows))};
  std::vector<std::byte> workspace(quantize_rows_workspace(with, cols, threads.workers()));
  const output_aware_args a{w.data(),           rows,          cols,          r.bytes.data(),
                            row_bytes<F>(cols), r.loss.data(), r.plain.data()};
  EXPECT_EQ(quantize_rows(with, product, m, a, threads, workspace, o), status::ok);
  return r;
}

template <class F>
class OutputAware : public testing::Test {};
using formats = testing::Types<q4_0, q4_1, q3_K, q4_K, q2_K, iq4_xs, iq3_k, iq2_ks, mxfp4, nvfp4, tq2_0,
                               iq2_xxs, iq2_s, iq3_xxs, iq3_s, iq1_m, iq2_kl, iq4_kss, iq1_kt, iq2_kt, iq3_kt,
                               iq4_kt, q5_K, iq4_ks, iq2_bn>;
TYPED_TEST_SUITE(OutputAware, formats);

TYPED_TEST(OutputAware, LossIsThatOfTheBytesAndBelowThePlainOne) {
  constexpr std::int64_t cols = 256, rows = 5;
  const auto m = prepared(cols, 600, moments(cols, 600, 1), {.run = coder<TypeParam>().run});
  test::rng g(2);
  const auto w = test::gaussian(g, cols * rows);
  serial_executor serial;
  const auto r = quantized<TypeParam>(m, w, serial, {1, 2});
  std::vector<float> decoded(cols), plain(cols);
  std::vector<std::byte> row(static_cast<std::size_t>(row_bytes<TypeParam>(cols)));
  for (std::int64_t i = 0; i < rows; ++i) {
    EXPECT_EQ(runtime::dequantize_row(TypeParam::gguf_id, r.bytes.data() + i * row_bytes<TypeParam>(cols),
                                      decoded.data(), cols),
              status::ok);
    ASSERT_EQ(
        runtime::quantize_row(TypeParam::gguf_id, w.data() + i * cols, m.diagonal().data(), row.data(), cols),
        status::ok);
    EXPECT_EQ(runtime::dequantize_row(TypeParam::gguf_id, row.data(), plain.data(), cols), status::ok);
    const auto at = static_cast<std::size_t>(i);
    const double expected = loss_of(m, w.data() + i * cols, decoded.data()),
                 before = loss_of(m, w.data() + i * cols, plain.data());
    EXPECT_NEAR(r.loss[at], expected, 2e-3 * expected);
    EXPECT_NEAR(r.plain[at], before, 2e-3 * before);
    EXPECT_LE(r.loss[at], r.plain[at]);
  }
  EXPECT_LT(r.total(), 0.85 * r.plain_total());
}

TEST(OutputAwareRows, SameBytesWhateverTheThreadsAndTheArch) {
  constexpr std::int64_t cols = 256;
  const auto m = prepared(cols, 400, moments(cols, 400, 3));
  test::rng g(4);
  const auto w = test::gaussian(g, cols * 61);
  serial_executor serial;
  thread_pool pool(3);
  const auto one = quantized<q3_K>(m, w, serial), many = quantized<q3_K>(m, w, pool);
  EXPECT_EQ(one.bytes, many.bytes);
  const auto plain = quantized<q3_K>(m, w, serial, {}, &quantize::add_row_product<simd::scalar, float>);
  EXPECT_EQ(one.bytes, plain.bytes);
  const matrix last(w.end() - cols, w.end());
  const auto alone = quantized<q3_K>(m, last, serial);
  EXPECT_TRUE(std::equal(alone.bytes.begin(), alone.bytes.end(), one.bytes.end() - row_bytes<q3_K>(cols)));
}

TEST(OutputAwareRows, RuntimeGivesTheSameBytesOnEveryArch) {
  constexpr std::int64_t cols = 256;
  const auto m = prepared(cols, 400, moments(cols, 400, 3));
  test::rng g(4);
  const auto w = test::gaussian(g, cols * 9);
  serial_executor serial;
  const auto compare = [&]<class F>() {
    const auto m = prepared(cols, 400, moments(cols, 400, 3), {.run = coder<F>().run});
    std::optional<chosen_rows> first;
    for (const auto arch : runtime::dispatcher::compiled()) {
      const auto d = runtime::dispatcher::named(arch);
      if (!d) continue;
      const auto* compiled = d->find_coder(F::gguf_id);
      ASSERT_NE(compiled, nullptr);
      const auto r = quantized<F>(m, w, serial, {1, 2}, d->product(), *compiled);
      if (!first) first = r;
      EXPECT_EQ(first->bytes, r.bytes) << arch;
    }
    EXPECT_LT(first->total(), first->plain_total());
  };
  compare.operator()<q3_K>();
  compare.operator()<q4_K>();
  compare.operator()<iq2_xxs>();
  compare.operator()<iq2_kt>();
  compare.operator()<iq3_kt>();
  compare.operator()<iq4_kt>();
  compare.operator()<iq4_kss>();
  compare.operator()<iq2_kl>();
  compare.operator()<nvfp4>();
}

/// One format of each kind of choice.
TEST(OutputAwareRows, HeadersAloneGiveTheBytesOfTheRuntime) {
  constexpr std::int64_t cols = 256;
  test::rng g(4);
  const auto w = test::gaussian(g, cols * 3);
  serial_executor serial;
  const auto compare = [&]<class F>() {
    const auto own = quantize::coder_of<F>();
    const auto m = prepared(cols, 400, moments(cols, 400, 3), {.run = own.run});
    const auto product = &quantize::add_row_product<simd::native, float>;
    EXPECT_EQ(quantized<F>(m, w, serial, {1, 2}, product, own).bytes,
              quantized<F>(m, w, serial, {1, 2}).bytes);
  };
  compare.operator()<q4_K>();
  compare.operator()<iq2_xxs>();
  compare.operator()<iq2_kt>();
}

TEST(OutputAwareRows, RuntimeSaysWhichFormatsHaveNoCoder) {
  const auto best = runtime::dispatcher::best();
  for (const auto id : {f32::gguf_id, q8_K::gguf_id, 4711u}) EXPECT_EQ(best.find_coder(id), nullptr) << id;
}

/// All formats with a coder, at widths with and without a tail behind the last 256 columns.
TEST(OutputAwareRows, NeverAboveThePlainQuantizerInAnyFormatOrWidth) {
  constexpr std::int64_t rows = 2;
  serial_executor serial;
  for (const std::int64_t cols : {128, 512, 576}) {
    const auto sums = moments(cols, 200, 8);
    test::rng g(11);
    const auto w = test::gaussian(g, static_cast<std::size_t>(rows * cols));
    const auto check = [&]<class F>() {
      if constexpr (quantize::output_codable<F>) {
        if (cols % F::layout.elements != 0) return;
        const auto m = prepared(cols, 200, sums, {.run = coder<F>().run});
        const auto r = quantized<F>(m, w, serial, {1, 3});
        std::vector<float> decoded(static_cast<std::size_t>(cols));
        for (std::int64_t i = 0; i < rows; ++i) {
          const auto at = static_cast<std::size_t>(i);
          EXPECT_EQ(runtime::dequantize_row(F::gguf_id, r.bytes.data() + i * row_bytes<F>(cols),
                                            decoded.data(), cols),
                    status::ok);
          const double loss = loss_of(m, w.data() + i * cols, decoded.data());
          EXPECT_LE(r.loss[at], r.plain[at]) << F::name << " " << cols;
          EXPECT_NEAR(r.loss[at], loss, 2e-3 * loss) << F::name << " " << cols;
        }
      }
    };
    all_formats::for_each(check);
  }
}

/// With independent inputs there is nothing to answer: the plain choice of codes stays, and where scales are
/// found anew the loss does not rise.
TEST(OutputAwareRows, IdentityReproducesThePlainCodes) {
  constexpr std::int64_t cols = 256;
  matrix identity(cols * cols);
  for (std::size_t i = 0; i < cols; ++i) identity[i * cols + i] = 10;
  test::rng g(1);
  const auto w = test::gaussian(g, 2 * cols);
  serial_executor serial;
  const auto check = [&]<class F>() {
    const auto m = prepared(cols, 10, identity, {.run = coder<F>().run});
    std::vector<std::byte> plain(static_cast<std::size_t>(2 * row_bytes<F>(cols)));
    for (std::int64_t r = 0; r < 2; ++r)
      ASSERT_EQ(runtime::quantize_row(F::gguf_id, w.data() + r * cols, nullptr,
                                      plain.data() + r * row_bytes<F>(cols), cols),
                status::ok);
    const auto codes = quantized<F>(m, w, serial, {0, 1});
    EXPECT_EQ(codes.bytes, plain) << F::name;
  };
  check.operator()<q4_0>();
  check.operator()<q8_0>();
  check.operator()<iq4_nl>();
  check.operator()<q3_K>();
  check.operator()<q6_K>();
  check.operator()<iq4_xs>();
}

/// Codes that were chosen for a scale suit a better one: what refit adds to descent.
TEST(OutputAwareRows, RefittedScalesLowerTheLoss) {
  constexpr std::int64_t cols = 256;
  serial_executor serial;
  test::rng g(5);
  const auto w = test::gaussian(g, 24 * cols);
  const auto check = [&]<class F>(double share = 0.998) {
    const auto m = prepared(cols, 600, moments(cols, 600, 4), {.run = coder<F>().run});
    EXPECT_LT(quantized<F>(m, w, serial, {0, 6}).total(), share * quantized<F>(m, w, serial, {0, 1}).total())
        << F::name;
  };
  check.operator()<q4_0>();    // a float per block
  check.operator()<q4_1>();    // and an offset
  check.operator()<q4_K>();    // integers under two floats
  check.operator()<iq4_ks>();  // under the float of the row
  check.operator()<iq3_xxs>();
  check.operator()<nvfp4>(0.9995);  // the plain quantizer has tried all scales in reach
  check.operator()<iq2_bn>();
}

/// Eight columns that matter, independent of all others: 256 sign patterns.
TEST(OutputAwareRows, NearlyAsGoodAsAllCodesOfAGroup) {
  constexpr std::int64_t cols = 128;
  double found = 0, best = 0;
  for (unsigned seed = 0; seed < 40; ++seed) {
    const auto eight = moments(8, 200, seed);
    matrix sums(cols * cols);
    for (std::size_t i = 0; i < 8; ++i)
      for (std::size_t j = 0; j < 8; ++j) sums[i * cols + j] = eight[i * 8 + j];
    const auto m = prepared(cols, 1e9, sums, {1.0, 1e-4});
    test::rng g(seed + 100);
    auto w = test::gaussian(g, cols);
    serial_executor serial;
    const auto r = quantized<q1_0>(m, w, serial, {0, 4});
    std::vector<float> q(cols);
    dequantize_row<q1_0>(r.bytes.data(), q.data(), cols);
    const float d = std::fabs(q[0]);
    double least = r.loss[0];
    for (unsigned signs = 0; signs < 256; ++signs) {
      for (unsigned k = 0; k < 8; ++k) q[k] = signs >> k & 1 ? -d : d;
      least = std::min(least, loss_of(m, w.data(), q.data()));
    }
    found += r.loss[0], best += least;
  }
  EXPECT_LE(found, 1.6 * best);
}

TEST(OutputMetric, WithoutInputsOrWithIndependentOnesItIsTheDiagonal) {
  constexpr std::int64_t cols = 64;
  matrix identity(cols * cols);
  for (std::size_t i = 0; i < cols; ++i) identity[i * cols + i] = 10;
  const auto m = prepared(cols, 10, identity), none = prepared(cols, 0, moments(cols, 5, 9));
  for (std::int64_t i = 0; i < cols; ++i)
    for (std::int64_t j = 0; j < cols; ++j) {
      EXPECT_EQ(*m.moments(i, j), i == j ? 1.01f : 0.0f);
      if (i != j) {
        EXPECT_EQ(*none.moments(i, j), 0.0f);
      }
    }
  test::rng g(1);
  const auto w = test::gaussian(g, cols);
  serial_executor serial;
  const auto r = quantized<q4_0>(m, w, serial);
  std::vector<std::byte> plain(static_cast<std::size_t>(row_bytes<q4_0>(cols)));
  ASSERT_EQ(quantize_row<q4_0>(w.data(), nullptr, plain.data(), cols), status::ok);
  EXPECT_EQ(r.bytes, plain);
}

/// U U^T = P, whatever the threads and the product, with more columns than a panel holds.
TEST(OutputMetric, FactorsDoNotDependOnThreadsOrProduct) {
  constexpr std::int64_t cols = 336;
  const auto sums = moments(cols, 500, 12);
  serial_executor serial;
  thread_pool pool(3);
  output_metric plain, fast, scalar;
  ASSERT_EQ(plain.prepare({cols, 500, sums}, serial), status::ok);
  ASSERT_EQ(fast.prepare({cols, 500, sums}, pool, {}, runtime::best_variant().factor_product()), status::ok);
  ASSERT_EQ(scalar.prepare({cols, 500, sums}, serial, {}, &quantize::add_row_product<simd::scalar, double>),
            status::ok);
  const auto column = [&](std::int64_t at) {
    return plain.column_of(plain.group_at(at / output_metric::group),
                           static_cast<int>(at % output_metric::group));
  };
  for (std::int64_t i = 0; i < cols; ++i)
    for (std::int64_t j = i; j < cols; ++j) {
      ASSERT_EQ(*plain.factor(i, j), *fast.factor(i, j));
      ASSERT_EQ(*plain.factor(i, j), *scalar.factor(i, j));
      double product = 0;
      for (std::int64_t k = j; k < cols; ++k) product += double{*plain.factor(i, k)} * *plain.factor(j, k);
      const double scale =
          std::sqrt(double{*plain.moments(column(i), column(i))} * *plain.moments(column(j), column(j)));
      ASSERT_NEAR(product, *plain.moments(column(i), column(j)), 1e-5 * scale);
    }
}

TEST(OutputMetric, GroupsOfTwoRunsNeedWholeGroupsOf32) {
  serial_executor serial;
  output_metric m;
  const auto sums = moments(48, 100, 2), wide = moments(64, 100, 2);
  EXPECT_EQ(m.prepare({48, 100, sums}, serial, {.run = 4}), status::bad_shape);
  EXPECT_EQ(m.prepare({64, 100, wide}, serial, {.run = 3}), status::bad_shape);
  ASSERT_EQ(m.prepare({64, 100, wide}, serial, {.run = 4}), status::ok);
  std::vector<int> seen(64);
  for (std::int64_t g = 0; g < 8; ++g)
    for (int i = 0; i < output_metric::group; ++i) ++seen[static_cast<std::size_t>(m.column_of(g, i))];
  EXPECT_EQ(seen, std::vector<int>(64, 1));
}

TEST(OutputMetric, MomentsOfFewInputsAndOfNoneCanBeFactored) {
  constexpr std::int64_t cols = 64;
  for (const auto& [sums, count] :
       {std::pair{moments(cols, 1, 5), 1.0}, {moments(cols, 1, 5), 1e12}, {matrix(cols * cols), 100.0}}) {
    const auto m = prepared(cols, count, sums);
    for (const float c : m.conditional()) EXPECT_GT(c, 0.0f);
  }
}

TEST(OutputMetric, RefusesWhatIsNoSecondMoment) {
  constexpr std::int64_t cols = 64;
  output_metric m;
  serial_executor serial;
  const auto good = moments(cols, 100, 6);
  const auto with = [&](std::size_t at, float v) {
    auto bad = good;
    bad[at] = v;
    return m.prepare({cols, 100, bad}, serial);
  };
  EXPECT_EQ(with(0, std::numeric_limits<float>::quiet_NaN()), status::bad_moments);
  EXPECT_EQ(with(cols + 2, std::numeric_limits<float>::infinity()), status::bad_moments);
  EXPECT_EQ(with(cols, 1e6f), status::bad_moments);  // not symmetric
  EXPECT_EQ(with(0, -1.0f), status::bad_moments);
  EXPECT_EQ(m.prepare({cols, -1, good}, serial), status::bad_moments);
  EXPECT_EQ(m.prepare({cols + 16, 100, good}, serial), status::bad_shape);
  EXPECT_EQ(m.prepare({40, 100, std::span(good).first(1600)}, serial), status::bad_shape);
}

}  // namespace
}  // namespace quantal
