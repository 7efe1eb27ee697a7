// GoogleTest assertions for accuracy gates in your own tests:
//
//   const auto decoded = quantal::testing::round_trip<quantal::q4_K>(weights, importance);  // round_trip.hpp
//   EXPECT_QUANT_NMSE_LE(weights, decoded, 5e-3);
//   EXPECT_QUANT_WEIGHTED_NMSE_LE(weights, decoded, importance, 3e-3);
//   EXPECT_QUANT_COSINE_GE(weights, decoded, 0.997);
//   EXPECT_QUANT_MAX_ERROR_LE(weights, decoded, 0.2);
//
// Weights are anything contiguous of float. A failure shows the measured value, its bound and the worst
// weight. ASSERT_ spellings end the test.
#pragma once

#include <gtest/gtest.h>

#include <cstdio>
#include <string>
#include <vector>

#include "quantal/testing/accuracy.hpp"

namespace quantal::testing {

enum class measure : std::uint8_t { nmse, weighted_nmse, cosine, max_error };

namespace detail {

inline double value_of(const accuracy& a, measure m) noexcept {
  switch (m) {
    case measure::nmse:
      return a.nmse();
    case measure::weighted_nmse:
      return a.nmse_weighted();
    case measure::cosine:
      return a.cosine();
    case measure::max_error:
      return a.max_error;
  }
  return std::numeric_limits<double>::quiet_NaN();
}

constexpr const char* name_of(measure m) noexcept {
  constexpr const char* names[] = {"NMSE", "weighted NMSE", "cosine", "largest error"};
  return names[static_cast<int>(m)];
}

inline std::string shown(double v) {
  char text[32];
  std::snprintf(text, sizeof text, "%g", v);
  return text;
}

}  // namespace detail

/// Success if the measure is at most (cosine: at least) `bound`; NaN never is.
inline ::testing::AssertionResult within(measure m, std::span<const float> original,
                                         std::span<const float> decoded, std::span<const float> importance,
                                         double bound) {
  if (original.size() != decoded.size())
    return ::testing::AssertionFailure()
           << original.size() << " weights against " << decoded.size() << " decoded ones";
  if (!importance.empty() && original.size() % importance.size() != 0)
    return ::testing::AssertionFailure()
           << original.size() << " weights are not whole rows of " << importance.size() << " importances";
  const accuracy a = compare(original, decoded, importance);
  const double value = detail::value_of(a, m);
  if (m == measure::cosine ? value >= bound : value <= bound) return ::testing::AssertionSuccess();
  auto failure = ::testing::AssertionFailure();
  failure << detail::name_of(m) << " is " << detail::shown(value) << ", wanted "
          << (m == measure::cosine ? ">= " : "<= ") << detail::shown(bound);
  if (a.worst >= 0) {
    const auto i = static_cast<std::size_t>(a.worst);
    failure << "; worst weight [" << i << "]: " << detail::shown(original[i]) << " became "
            << detail::shown(decoded[i]);
  }
  return failure;
}

}  // namespace quantal::testing

#define EXPECT_QUANT_NMSE_LE(original, decoded, bound) \
  EXPECT_TRUE(::quantal::testing::within(::quantal::testing::measure::nmse, original, decoded, {}, bound))
#define ASSERT_QUANT_NMSE_LE(original, decoded, bound) \
  ASSERT_TRUE(::quantal::testing::within(::quantal::testing::measure::nmse, original, decoded, {}, bound))
#define EXPECT_QUANT_WEIGHTED_NMSE_LE(original, decoded, importance, bound)                             \
  EXPECT_TRUE(::quantal::testing::within(::quantal::testing::measure::weighted_nmse, original, decoded, \
                                         importance, bound))
#define ASSERT_QUANT_WEIGHTED_NMSE_LE(original, decoded, importance, bound)                             \
  ASSERT_TRUE(::quantal::testing::within(::quantal::testing::measure::weighted_nmse, original, decoded, \
                                         importance, bound))
#define EXPECT_QUANT_COSINE_GE(original, decoded, bound) \
  EXPECT_TRUE(::quantal::testing::within(::quantal::testing::measure::cosine, original, decoded, {}, bound))
#define ASSERT_QUANT_COSINE_GE(original, decoded, bound) \
  ASSERT_TRUE(::quantal::testing::within(::quantal::testing::measure::cosine, original, decoded, {}, bound))
#define EXPECT_QUANT_MAX_ERROR_LE(original, decoded, bound) \
  EXPECT_TRUE(                                              \
      ::quantal::testing::within(::quantal::testing::measure::max_error, original, decoded, {}, bound))
#define ASSERT_QUANT_MAX_ERROR_LE(original, decoded, bound) \
  ASSERT_TRUE(                                              \
      ::quantal::testing::within(::quantal::testing::measure::max_error, original, decoded, {}, bound))
