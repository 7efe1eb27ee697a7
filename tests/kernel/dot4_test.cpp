// Every u8 x s8 pair, in every lane position, against integers. The test unit is built for the baseline arch,
// so the vector archs are reached through the products; here the definition and its use of the lanes are
// checked.
#include "quantal/simd/dot4.hpp"

#include <gtest/gtest.h>

namespace quantal::simd {
namespace {

using arch = scalar;

TEST(Dot4, EveryPairOfBytes) {
  constexpr int n = static_cast<int>(u8<arch>::size);
  alignas(64) std::uint8_t u[n];
  alignas(64) std::int8_t s[n];
  alignas(64) std::int32_t r[n / 4];
  for (int x = 0; x < 256; ++x)
    for (int y = -128; y < 128; ++y) {
      for (int i = 0; i < n; ++i) {
        u[i] = static_cast<std::uint8_t>(i % 4 == x % 4 ? x : 0);
        s[i] = static_cast<std::int8_t>(y);
      }
      dot4<arch>(i32<arch>(5), u8<arch>::load_aligned(u), s8<arch>::load_aligned(s)).store_aligned(r);
      for (const int v : r) ASSERT_EQ(v, 5 + x * y);
    }
}

TEST(Dot4, ExtremesDoNotSaturate) {
  const auto r = dot4<arch>(i32<arch>(0), u8<arch>(std::uint8_t{255}), s8<arch>(std::int8_t{-128}));
  EXPECT_EQ(r.get(0), -4 * 255 * 128);
}

TEST(Broadcast4, RepeatsFourBytes) {
  const std::int8_t four[4] = {1, -2, 3, -128};
  alignas(64) std::int8_t out[s8<arch>::size];
  broadcast4<arch>(four).store_aligned(out);
  for (std::size_t i = 0; i < s8<arch>::size; ++i) EXPECT_EQ(out[i], four[i % 4]);
}

}  // namespace
}  // namespace quantal::simd
