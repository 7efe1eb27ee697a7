// The float conversions of the library against the definition, over every 16-bit pattern and random floats.
#include "quantal/format/detail/half.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

namespace quantal::test {
namespace {

using detail::bits_from_float;
using detail::float_from_bits;

/// binary16 by its definition, in double.
double half_value(std::uint16_t h) {
  const int exponent = h >> 10 & 31, mantissa = h & 1023;
  const double magnitude = exponent == 31  ? (mantissa ? NAN : INFINITY)
                           : exponent == 0 ? std::ldexp(mantissa, -24)
                                           : std::ldexp(1024 + mantissa, exponent - 25);
  return h & 0x8000 ? -magnitude : magnitude;
}

TEST(half, every_pattern_decodes_exactly) {
  for (unsigned h = 0; h < 65536; ++h) {
    const auto bits = static_cast<std::uint16_t>(h);
    if ((bits & 0x7fff) > 0x7c00) continue;  // NaN scales do not occur in valid blocks
    ASSERT_EQ(bits_from_float(detail::half_to_float(bits)),
              bits_from_float(static_cast<float>(half_value(bits))))
        << h;
  }
}

TEST(half, every_pattern_survives_a_round_trip) {
  for (unsigned h = 0; h < 65536; ++h) {
    const auto bits = static_cast<std::uint16_t>(h);
    if ((bits & 0x7fff) > 0x7c00) continue;
    ASSERT_EQ(detail::float_to_half(detail::half_to_float(bits)), bits);
  }
}

TEST(half, rounds_to_nearest_even) {
  for (unsigned h = 0; h < 0x7bff; ++h) {
    const float low = detail::half_to_float(static_cast<std::uint16_t>(h));
    const float high = detail::half_to_float(static_cast<std::uint16_t>(h + 1));
    const float middle = static_cast<float>((static_cast<double>(low) + high) / 2);
    ASSERT_EQ(detail::float_to_half(middle), h + (h & 1)) << h;
    ASSERT_EQ(detail::float_to_half(std::nextafter(middle, 0.0f)), h);
    ASSERT_EQ(detail::float_to_half(std::nextafter(middle, INFINITY)), h + 1);
    ASSERT_EQ(detail::float_to_half(-std::nextafter(middle, INFINITY)), 0x8000 | (h + 1));
  }
  EXPECT_EQ(detail::float_to_half(65519.996f), 0x7bff);
  EXPECT_EQ(detail::float_to_half(65520.0f), 0x7c00);
  EXPECT_EQ(detail::float_to_half(-INFINITY), 0xfc00);
  EXPECT_EQ(detail::float_to_half(1e-30f), 0);
  EXPECT_GT(detail::float_to_half(NAN) & 0x7fff, 0x7c00);
}

TEST(bfloat16, every_pattern_survives_a_round_trip) {
  for (unsigned h = 0; h < 65536; ++h) {
    const auto bits = static_cast<std::uint16_t>(h);
    const float f = detail::bfloat16_to_float(bits);
    ASSERT_EQ(bits_from_float(f), h << 16);
    ASSERT_EQ(detail::float_to_bfloat16(f), std::isnan(f) ? bits | 64 : bits) << h;
  }
}

TEST(bfloat16, rounds_to_nearest_even) {
  for (unsigned h = 0; h < 0x7f80; ++h) {
    ASSERT_EQ(detail::float_to_bfloat16(float_from_bits(h << 16 | 0x7fff)), h);
    ASSERT_EQ(detail::float_to_bfloat16(float_from_bits(h << 16 | 0x8000)), h + (h & 1));
    ASSERT_EQ(detail::float_to_bfloat16(float_from_bits(h << 16 | 0x8001)), h + 1);
  }
  EXPECT_TRUE(std::isnan(detail::bfloat16_to_float(detail::float_to_bfloat16(float_from_bits(0x7f800001u)))));
}

}  // namespace
}  // namespace quantal::test
