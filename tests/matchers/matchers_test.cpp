// The GoogleTest assertions accept what is good, refuse what is bad, and say why.
#include <gtest/gtest-spi.h>

#include <cmath>

#include "quantal/testing/gtest.hpp"
#include "quantal/testing/round_trip.hpp"

namespace quantal::testing {
namespace {

std::vector<float> waves(std::size_t n) {
  std::vector<float> v(n);
  for (std::size_t i = 0; i < n; ++i) v[i] = static_cast<float>(std::sin(0.7 * static_cast<double>(i)));
  return v;
}

TEST(Matchers, AcceptAGoodFormat) {
  const auto x = waves(512);
  const std::vector<float> importance(256, 2.0f);
  const auto y = round_trip<q8_0>(x, importance);
  EXPECT_QUANT_NMSE_LE(x, y, 1e-4);
  EXPECT_QUANT_WEIGHTED_NMSE_LE(x, y, importance, 1e-4);
  EXPECT_QUANT_COSINE_GE(x, y, 0.9999);
  EXPECT_QUANT_MAX_ERROR_LE(x, y, 0.01);
  ASSERT_QUANT_NMSE_LE(x, y, 1e-4);
}

TEST(Matchers, ShowTheWorstWeight) {
  static const std::vector<float> x{1, 2, 3, 4}, y{1, 2, 0, 4};
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_NMSE_LE(x, y, 0.1),
                          "NMSE is 0.3, wanted <= 0.1; worst weight [2]: 3 became 0");
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_COSINE_GE(x, y, 0.9), "wanted >= 0.9");
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_MAX_ERROR_LE(x, y, 2), "largest error is 3");
  EXPECT_FATAL_FAILURE(ASSERT_QUANT_NMSE_LE(x, y, 0.1), "NMSE is 0.3");
}

TEST(Matchers, ImportanceCounts) {
  static const std::vector<float> x{1, 1, 1, 1}, y{1, 0, 1, 1}, first{1, 0}, second{0, 1};
  EXPECT_QUANT_WEIGHTED_NMSE_LE(x, y, first, 0);
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_WEIGHTED_NMSE_LE(x, y, second, 0.4), "weighted NMSE is 0.5");
}

TEST(Matchers, RefuseOtherLengthsAndNaN) {
  static const std::vector<float> x{1, 2}, y{1}, three{1, 1, 1}, nan{1, NAN};
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_NMSE_LE(x, y, 1), "2 weights against 1");
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_WEIGHTED_NMSE_LE(x, x, three, 1), "whole rows of 3");
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_NMSE_LE(x, nan, 1e9), "NMSE is nan");
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_MAX_ERROR_LE(x, nan, 1e9), "largest error is inf");
  EXPECT_NONFATAL_FAILURE(EXPECT_QUANT_COSINE_GE(x, nan, -2), "cosine is");
}

TEST(Accuracy, AddsUp) {
  const auto x = waves(256), y = round_trip<q4_0>(x);
  accuracy parts;
  for (std::size_t at = 0; at < 256; at += 64)
    parts += compare(std::span(x).subspan(at, 64), std::span(y).subspan(at, 64));
  const auto whole = compare(x, y);
  EXPECT_NEAR(parts.nmse(), whole.nmse(), 1e-12);
  EXPECT_NEAR(parts.cosine(), whole.cosine(), 1e-12);
  EXPECT_EQ(parts.max_error, whole.max_error);
  EXPECT_EQ(parts.worst, whole.worst);
}

TEST(RoundTrip, RefusesWhatDoesNotFit) {
  EXPECT_TRUE(round_trip<q4_K>(waves(100)).empty());
  EXPECT_TRUE(round_trip<q8_0>(waves(64), waves(48)).empty());
}

}  // namespace
}  // namespace quantal::testing
