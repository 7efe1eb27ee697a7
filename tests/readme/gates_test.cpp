// The README's gate holds where it should, and fails where it should.
#include "gates.hpp"

#include <gtest/gtest-spi.h>

#include "support/random_weights.hpp"

namespace {

const std::vector<float> importance(512, 1.0f);

TEST(ReadmeGates, HoldsForLevelsThatTheFormatHas) {
  std::vector<float> weights(4 * 512);
  for (std::size_t i = 0; i < weights.size(); ++i) weights[i] = 0.25f * static_cast<float>(i * 7 % 16) - 1.5f;
  expect_accurate(weights, importance);
}

TEST(ReadmeGates, FailsForMore) {
  quantal::test::rng g(1);
  static const std::vector<float> weights = quantal::test::gaussian(g, 4 * 512);  // 5e-3
  EXPECT_NONFATAL_FAILURE(expect_accurate(weights, importance), "weighted NMSE");
}

}  // namespace
