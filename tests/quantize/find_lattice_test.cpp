// Lattices of random codes and scales are found as what they are, however they were stored; other weights lie on none.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "quantal/lattice.hpp"

namespace quantal {
namespace {

constexpr std::int64_t cols = 512, rows = 24;

enum class storage { f32, f16, bf16 };
constexpr std::array storages{storage::f32, storage::f16, storage::bf16};

float stored(float v, storage s) {
  if (s == storage::f16) return detail::half_to_float(detail::float_to_half(v));
  if (s == storage::f32) return v;
  const std::uint32_t u = detail::bits_from_float(v);
  return detail::float_from_bits((u + 0x7fffu + ((u >> 16) & 1u)) & 0xffff0000u);
}

struct source {
  std::mt19937 random;
  std::normal_distribution<float> normal;

  explicit source(unsigned seed) : random(seed) {}
  float draw() { return normal(random); }
  int number(int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); }

  /// Rows of `code()` under a scale per group. 16 bits hold the scales.
  std::vector<float> weights(std::int64_t group, storage s, const std::function<float()>& code,
                             const std::function<float()>& scale) {
    std::vector<float> out;
    float d = 0;
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      if (i % group == 0) d = scale();
      out.push_back(stored(d * code(), s));
    }
    return out;
  }
  float scale() { return stored(0.003f * std::exp(0.3f * draw()), storage::bf16); }
  float integer(float spread, int low, int high) {
    return std::clamp(std::nearbyint(spread * draw()), static_cast<float>(low), static_cast<float>(high));
  }
  float e2m1() { return detail::e2m1_levels.nearest(5 * draw()); }
};

class FindLattice : public testing::TestWithParam<std::int64_t> {};

/// Integers of every width.
TEST_P(FindLattice, Integers) {
  for (int bits = 2; bits <= 8; ++bits)
    for (const auto s : storages) {
      source from(static_cast<unsigned>(bits));
      const int top = (1 << (bits - 1)) - 1;
      const auto x = from.weights(
          GetParam(), s, [&] { return from.integer(0.45f * static_cast<float>(top + 1), -top - 1, top); },
          [&] { return from.scale(); });
      EXPECT_EQ(find_lattice(x, cols), (lattice{level_set::integers, bits, GetParam()}))
          << to_string(find_lattice(x, cols)) << " instead of " << bits << " bits, stored as "
          << static_cast<int>(s);
    }
}

TEST_P(FindLattice, ZeroPoints) {
  for (const auto s : storages) {
    source from(3);
    int zero = 0;
    const auto x = from.weights(
        GetParam(), s,
        [&] { return static_cast<float>(std::clamp(from.number(0, 7) + from.number(0, 8), 0, 15) - zero); },
        [&] { return zero = from.number(1, 12), from.scale(); });
    EXPECT_EQ(find_lattice(x, cols), (lattice{level_set::shifted_integers, 4, GetParam()}));
  }
}

TEST_P(FindLattice, Offsets) {
  for (const auto s : storages) {
    source from(4);
    float offset = 0;
    auto x = from.weights(
        GetParam(), storage::f32, [&] { return static_cast<float>(from.number(0, 15)) + offset; },
        [&] { return offset = -7 + 0.37f * from.draw(), from.scale(); });
    for (auto& v : x) v = stored(v, s);
    EXPECT_EQ(find_lattice(x, cols), (lattice{level_set::offset_integers, 4, GetParam()}));
  }
}

TEST_P(FindLattice, Tables) {
  for (const auto s : storages) {
    source from(5);
    const auto fp4 = from.weights(
        GetParam(), s, [&] { return from.e2m1(); }, [&] { return from.scale(); });
    EXPECT_EQ(find_lattice(fp4, cols), (lattice{level_set::e2m1, 4, GetParam()}));
    const auto nl = from.weights(
        GetParam(), s, [&] { return detail::iq4_nl_levels.nearest(45 * from.draw()); },
        [&] { return from.scale(); });
    EXPECT_EQ(find_lattice(nl, cols), (lattice{level_set::iq4_nl, 4, GetParam()}));
  }
}

INSTANTIATE_TEST_SUITE_P(Group, FindLattice, testing::Values(16, 32, 64, 128, 256, cols));

TEST(NoLattice, OfOtherWeights) {
  for (unsigned seed = 0; seed < 20; ++seed)
    for (const auto s : storages) {
      source from(seed);
      std::vector<float> normal, uniform, sparse;
      std::uniform_real_distribution<float> flat(-1, 1);
      for (std::int64_t i = 0; i < rows * cols; ++i) {
        normal.push_back(stored(0.02f * from.draw(), s));
        uniform.push_back(stored(0.02f * flat(from.random), s));
        sparse.push_back(from.number(0, 1) ? normal.back() : 0.0f);
      }
      for (const auto* x : {&normal, &uniform, &sparse})
        EXPECT_FALSE(find_lattice(*x, cols)) << to_string(find_lattice(*x, cols));
    }
  EXPECT_FALSE(find_lattice(std::vector<float>(static_cast<std::size_t>(rows * cols)), cols)) << "zeros";
  EXPECT_FALSE(find_lattice(std::vector<float>(64, 1.0f), 64)) << "too few";
  EXPECT_FALSE(find_lattice({}, 0));
}

/// One group in a hundred may be off, and the count says so.
TEST(FittingGroups, AreCounted) {
  source from(6);
  auto x = from.weights(
      32, storage::bf16, [&] { return from.integer(2.6f, -7, 7); }, [&] { return from.scale(); });
  for (const std::size_t i : {5u, 3000u}) x[i] = stored(x[i] * 1.07f, storage::bf16);
  const auto l = find_lattice(x, cols);
  EXPECT_EQ(l, (lattice{level_set::integers, 4, 32}));
  lattice_fit_count halves, sum;
  for (std::int64_t r = 0; r < rows; ++r) (r % 2 ? halves : sum).add(l, 0x1p-8f, x.data() + r * cols, cols);
  sum += halves;
  EXPECT_EQ(sum.groups, rows * cols / 32);
  EXPECT_EQ(sum.fitting, sum.groups - 2);
  EXPECT_EQ(sum.half, sum.fitting);
  EXPECT_LT(sum.power_of_two, sum.fitting / 8);
  EXPECT_EQ(sum.low, -7);
  EXPECT_EQ(sum.high, 7);
}

TEST(Scales, OfPowersOfTwoAreSeen) {
  source from(7);
  for (const auto s : storages) {
    const auto x = from.weights(
        32, s, [&] { return from.e2m1(); }, [&] { return std::ldexp(1.0f, from.number(-12, -6)); });
    lattice_fit_count n;
    n.add({level_set::e2m1, 4, 32}, stored_rounding(x), x.data(), rows * cols);
    EXPECT_EQ(n.power_of_two, n.groups);
    EXPECT_EQ(n.groups, rows * cols / 32);
  }
}

/// The scale beside an nvfp4 tensor is found again, or one that is a power of two times it.
TEST(Units, OfE4m3ScalesAreFound) {
  for (const auto s : storages)
    for (const float unit : {1.0f, 1.2345e-4f, 7.7e-6f}) {
      source from(8);
      const auto x = from.weights(
          16, s, [&] { return from.e2m1(); },
          [&] { return unit * nvfp4::scale_value(from.number(40, 120)); });
      float most = 0;
      for (const float v : x) most = std::max(most, std::fabs(v));
      if (s == storage::f16 && unit < 1e-5f) continue;  // below the normal numbers of f16
      const float found = e4m3_unit(largest_of_groups(x), most);
      ASSERT_GT(found, 0.0f) << unit;
      const float times = std::log2(found / unit);
      EXPECT_NEAR(times, std::nearbyint(times), 1e-3f);
      EXPECT_LE(most, 2688 * found * 1.01f);
      EXPECT_GE(most, 0.5f * 1792 * found * 0.99f);
    }
  source from(9);
  std::vector<float> normal(4096);
  for (auto& v : normal) v = from.draw();
  EXPECT_EQ(e4m3_unit(largest_of_groups(normal), 5.0f), 0.0f);
  EXPECT_EQ(e4m3_unit({}, 0.0f), 0.0f);
  EXPECT_EQ(tensor_scale_of(nvfp4::gguf_id, largest_of_groups(normal), 2688.0f), 1.0f);
}

}  // namespace
}  // namespace quantal
