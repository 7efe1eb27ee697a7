#include <gtest/gtest.h>

#include <array>

#include "dot4_table.hpp"

namespace quantal::test {
namespace {

class Dot4Archs : public testing::TestWithParam<dot4_arch> {};

TEST_P(Dot4Archs, EveryPairOfBytesIsExact) {
  if (!GetParam().supported) GTEST_SKIP() << "this machine does not run " << GetParam().name;
  const dot4_failures f = GetParam().errors();
  EXPECT_EQ(f.wide, 0);
  EXPECT_EQ(f.narrow, 0);
  EXPECT_EQ(f.with_sign, 0);
}

INSTANTIATE_TEST_SUITE_P(Simd, Dot4Archs, testing::ValuesIn(dot4_archs()),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace quantal::test
