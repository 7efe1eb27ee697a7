// The README's gate holds where it should, and fails where it should.
#include "gates.hpp"

#include <gtest/gtest-spi.h>

#include "support/random_weights.hpp"

namespace {

TEST(ReadmeGates, HoldsForWeightsThatTheFormatKeeps) {
  quantal::test::rng g(1);
  const auto weights = quantal::test::gaussian(g, 4 * 512);
  expect_accurate(weights, std::vector<float>(512, 1.0f));
}

TEST(ReadmeGates, FailsForOthers) {
  static std::vector<float> weights(512);
  for (std::size_t i = 0; i < weights.size(); ++i)
    weights[i] = i % 32 ? 1e-3f * static_cast<float>(i % 7) : 100.0f;
  static std::vector<float> importance(512, 1.0f);
  for (std::size_t i = 0; i < importance.size(); i += 32) importance[i] = 1e-12f, weights[i + 1] = -100.0f;
  EXPECT_NONFATAL_FAILURE(expect_accurate(weights, importance), "");
}

}  // namespace
