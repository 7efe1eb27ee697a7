// The exact search against brute force over all code assignments, the fast one against the exact one.
#include <gtest/gtest.h>

#include "quantal/quantize/quantize.hpp"
#include "support/random_weights.hpp"

namespace quantal::quantize {
namespace {

/// Largest F over every assignment of levels to n elements.
template <class C>
double brute_force(const float* x, const float* w, int n) {
  std::vector<int> q(static_cast<std::size_t>(n), 0);
  double best = 0;
  for (;;) {
    double xq = 0, qq = 0;
    for (int i = 0; i < n; ++i) {
      const double l = C::level(q[static_cast<std::size_t>(i)]);
      xq += w[i] * static_cast<double>(x[i]) * l, qq += w[i] * l * l;
    }
    if (qq > 0) best = std::max(best, xq * xq / qq);
    int i = 0;
    while (i < n && ++q[static_cast<std::size_t>(i)] == C::size) q[static_cast<std::size_t>(i++)] = 0;
    if (i == n) return best;
  }
}

template <class F>
void check_exact(unsigned seed) {
  using C = codebook<F>;
  test::rng g(seed);
  const int n = C::size > 8 ? 4 : 5;
  const auto x = test::gaussian(g, static_cast<std::size_t>(n));
  auto w = test::gaussian(g, static_cast<std::size_t>(n));
  for (auto& v : w) v = std::exp(v);
  EXPECT_NEAR(search_scale_exact<C>(x.data(), w.data(), n).gain, brute_force<C>(x.data(), w.data(), n), 1e-5);
}

TEST(ExactSearch, EqualsBruteForce) {
  for (unsigned seed = 0; seed < 30; ++seed) {
    check_exact<q4_0>(seed);
    check_exact<iq4_nl>(seed);
    check_exact<q3_K>(seed);
  }
}

/// Error of the fast search over the least possible one, on average over groups of 32.
template <class F>
double fast_over_exact() {
  using C = codebook<F>;
  double found = 0, possible = 0;
  for (unsigned seed = 0; seed < 200; ++seed) {
    test::rng g(seed);
    const auto x = test::gaussian(g, 32);
    auto w = test::gaussian(g, 32), wx = w;
    double norm = 0;
    for (std::size_t i = 0; i < 32; ++i) w[i] = std::exp(w[i]), wx[i] = w[i] * x[i], norm += wx[i] * x[i];
    const float d = search_scale_fast<F>({x.data(), w.data(), wx.data()}, [](const auto& s) { return s; });
    const double error = error_at<C>(x.data(), w.data(), 32, d);
    const double least = norm - search_scale_exact<C>(x.data(), w.data(), 32).gain;
    EXPECT_GE(error, least * 0.999);
    found += error / norm, possible += least / norm;
  }
  return found / possible;
}

TEST(FastSearch, IsNeverBetterAndNearlyAsGoodAsExact) {
  EXPECT_LE(fast_over_exact<q4_0>(), 1.05);
  EXPECT_LE(fast_over_exact<q5_0>(), 1.05);
  EXPECT_LE(fast_over_exact<iq4_nl>(), 1.05);
}

TEST(Codebook, NearestIsNearest) {
  const auto check = [](auto c) {
    using C = decltype(c);
    for (float v = -140; v < 140; v += 0.37f) {
      const int got = C::nearest(v);
      for (int i = 0; i < C::size; ++i)
        EXPECT_LE(std::fabs(v - static_cast<float>(C::level(got))),
                  std::fabs(v - static_cast<float>(C::level(i))))
            << v;
    }
  };
  check(codebook<iq4_nl>{});
  check(codebook<q4_0>{});
  check(codebook<q6_K>{});
}

TEST(Scales, HalvesInLanesAreStoredHalves) {
  using batch = xsimd::batch<float>;
  test::rng g(22);
  for (int i = 0; i < 2000; ++i) {
    const float v = std::ldexp(std::uniform_real_distribution<float>(-2, 2)(g), i % 50 - 30);
    EXPECT_EQ(stored_half(batch(v)).get(0), stored_half(v)) << v;
    if (std::fabs(v) < 65504) {
      EXPECT_EQ(stored_half(v), quantal::detail::half_to_float(quantal::detail::float_to_half(v))) << v;
    }
  }
}

/// Of the sixteen scales of a block of bytes the one whose fractions weigh least.
TEST(ByteSearch, TakesTheBestOfItsScales) {
  for (unsigned seed = 0; seed < 40; ++seed) {
    test::rng g(seed);
    const auto x = test::gaussian(g, 32);
    auto w = test::gaussian(g, 32);
    for (auto& v : w) v = std::exp(v);
    q8_0::block block;
    ASSERT_EQ(quantize_row<q8_0>(x.data(), w.data(), reinterpret_cast<std::byte*>(&block), 32), status::ok);
    float largest = 0;
    for (const float v : x) largest = std::max(largest, std::fabs(v));
    double least = 1e30, got = 0;
    for (int k = 0; k < 16; ++k)
      least = std::min<double>(
          least,
          error_at<codebook<q8_0>>(x.data(), w.data(), 32,
                                   stored_half(largest / 127 * (1 + 0.1f / 15 * static_cast<float>(k)))));
    for (std::size_t i = 0; i < 32; ++i)
      got += w[i] * std::pow(x[i] - block.d.get() * static_cast<float>(block.qs[i]), 2);
    EXPECT_LE(got, least * 1.01) << seed;
  }
}

double error_of(const mxfp4::block& b, const float* x, const float* w) {
  double e = 0;
  for (int i = 0; i < 32; ++i)
    e += w[i] * std::pow(x[i] - mxfp4::scale(b, 1.0f, 0) * static_cast<float>(mxfp4::code(b, i)), 2);
  return e;
}

/// Of all powers of two the best, also where the largest weight hardly counts; in rows whose blocks go
/// together and one by one.
TEST(PowerScales, AreTheBestOfAll) {
  constexpr int count = 40;
  test::rng g(23);
  auto x = test::gaussian(g, 32 * count), w = test::gaussian(g, 32 * count);
  for (auto& v : w) v = std::exp(3 * v);
  for (std::size_t b = 0; b < count; b += 3) x[32 * b + b % 32] *= 30, w[32 * b + b % 32] *= 1e-6f;
  std::vector<mxfp4::block> blocks(count);
  ASSERT_EQ(quantize_row<mxfp4>(x.data(), w.data(), reinterpret_cast<std::byte*>(blocks.data()), 32 * count),
            status::ok);
  for (std::size_t b = 0; b < count; ++b) {
    double least = 1e30;
    for (int exponent = 110; exponent < 140; ++exponent) {
      mxfp4::block tried{};
      mxfp4::set_exponent(tried, exponent);
      const float d = mxfp4::scale(tried, 1.0f, 0);
      for (int i = 0; i < 32; ++i)
        codebook<mxfp4>::store(tried, i,
                               codebook<mxfp4>::nearest(x[32 * b + static_cast<std::size_t>(i)] / d));
      least = std::min(least, error_of(tried, &x[32 * b], &w[32 * b]));
    }
    EXPECT_LE(error_of(blocks[b], &x[32 * b], &w[32 * b]), least * 1.0001) << b;
  }
}

/// Blocks without importance among others count all their weights.
TEST(PowerScales, BlocksWithoutImportanceCountAllWeights) {
  constexpr std::size_t count = 400;
  test::rng g(24);
  const auto x = test::gaussian(g, 32 * count);
  std::vector<float> w(32 * count, 1.0f);
  for (std::size_t b = 0; b < count; b += 2) std::fill_n(&w[32 * b], 32, 0.0f);
  const auto blocks = [&](const float* importance) {
    std::vector<std::byte> out(sizeof(mxfp4::block) * count);
    EXPECT_EQ(quantize_row<mxfp4>(x.data(), importance, out.data(), 32 * count), status::ok);
    return out;
  };
  EXPECT_EQ(blocks(w.data()), blocks(nullptr));
}

/// Sums of the pairs that are nearest in the weighted metric.
TEST(PairSearch, EqualsBruteForce) {
  using coder = group_coder<iq2_kl>;
  test::rng g(21);
  const auto x = test::gaussian(g, 32);
  auto w = test::gaussian(g, 32), wx = w;
  for (std::size_t i = 0; i < 32; ++i) w[i] = std::exp(2 * w[i]), wx[i] = w[i] * x[i];
  float inverse[lane_count], xq[lane_count], qq[lane_count];
  for (int k = 0; k < lane_count; ++k) inverse[k] = 4.0f * static_cast<float>(k - 7);
  coder::sums<lane_count>({x.data(), w.data(), wx.data()}, inverse, nullptr, xq, qq);
  for (int k = 0; k < lane_count; ++k) {
    double want_xq = 0, want_qq = 0;
    for (std::size_t i = 0; i < 32; i += 2) {
      double least = 1e30, q[2] = {};
      for (int c = 0; c < iq2_kl::grid_size; ++c) {
        const double a = iq2_kl::grid_value(c, 0), b = iq2_kl::grid_value(c, 1);
        const double e =
            w[i] * std::pow(x[i] * inverse[k] - a, 2) + w[i + 1] * std::pow(x[i + 1] * inverse[k] - b, 2);
        if (e < least) least = e, q[0] = a, q[1] = b;
      }
      for (std::size_t j = 0; j < 2; ++j) {
        want_xq += static_cast<double>(wx[i + j]) * q[j];
        want_qq += static_cast<double>(w[i + j]) * q[j] * q[j];
      }
    }
    EXPECT_NEAR(xq[k], want_xq, 1e-4 * want_qq) << k;
    EXPECT_NEAR(qq[k], want_qq, 1e-4 * want_qq) << k;
  }
}

/// Least error of 8 weights at scale s over every sign pattern that the format can store.
template <class F>
double brute_force(const float* x, const float* w, float s, int shift) {
  double best = 1e30;
  for (int signs = 0; signs < (detail::shifted_grid<F> ? 1 : 256); ++signs) {
    if constexpr (!detail::shifted_grid<F>)
      if (F::even_signs && __builtin_popcount(static_cast<unsigned>(signs)) % 2) continue;
    double error = 0;
    for (int v = 0; v < 8; v += F::vector) {
      double least = 1e30;
      for (int i = 0; i < F::grid_size; ++i) {
        double e = 0;
        for (int k = 0; k < F::vector; ++k) {
          const int g = F::grid_value(i, k);
          const double q = detail::shifted_grid<F> ? 8 * g + shift : signs >> (v + k) & 1 ? -g : g;
          e += w[v + k] * std::pow(x[v + k] - s * q, 2);
        }
        least = std::min(least, e);
      }
      error += least;
    }
    best = std::min(best, error);
  }
  return best;
}

template <class F>
class GridSearch : public testing::Test {};
using grids = testing::Types<iq1_s, iq1_m, iq2_xxs, iq2_xs, iq2_s, iq3_xxs, iq3_s>;
TYPED_TEST_SUITE(GridSearch, grids);

TYPED_TEST(GridSearch, EqualsBruteForce) {
  using F = TypeParam;
  test::rng g(3);
  for (int round = 0; round < 6; ++round) {
    const auto x = test::gaussian(g, 8);
    auto w = test::gaussian(g, 8);
    for (auto& v : w) v = std::exp(v);
    const float s = 0.02f + 0.03f * static_cast<float>(round % 3);
    const int shift = round % 2 ? 1 : -1;
    detail::unit_choice<F> got;
    if constexpr (detail::shifted_grid<F>)
      got = detail::choose_shifted<F>(x.data(), w.data(), s, shift);
    else
      got = detail::choose_signed<F>(x.data(), w.data(), s);
    double norm = 0, error = 0;
    for (int k = 0; k < 8; ++k) {
      const auto e = static_cast<std::size_t>(k);
      norm += w[e] * x[e] * x[e];
      error += w[e] * std::pow(x[e] - s * got.code(k), 2);
    }
    EXPECT_NEAR(error, brute_force<F>(x.data(), w.data(), s, shift), 1e-5 * norm);
    EXPECT_NEAR(got.error + norm, error, 1e-4 * norm);
    if constexpr (!detail::shifted_grid<F>) {
      if (F::even_signs) {
        EXPECT_EQ(__builtin_popcount(static_cast<unsigned>(got.signs)) % 2, 0);
      }
    }
  }
}

template <int n>
void check_tiles() {
  test::rng g(7);
  for (int round = 0; round < 200; ++round) {
    code_tile<n> tile;
    float target[n], root[n];
    std::int16_t fixed_target[n], fixed_root[n];
    int code[tile_codes][n];
    for (int k = 0; k < n; ++k) {
      target[k] = std::uniform_real_distribution<float>(-60, 60)(g);
      root[k] = std::uniform_real_distribution<float>(0.01f, 1)(g);
      fixed_target[k] = target_of(target[k]);
      fixed_root[k] = static_cast<std::int16_t>(largest_root * root[k]);
      for (int c = 0; c < tile_codes; ++c) tile.set(c, k, code[c][k] = static_cast<int>(g() % 121) - 60);
    }
    const auto distance = [&](int c, int flipped) {
      double sum = 0;
      for (int k = 0; k < n; ++k)
        sum += std::pow(root[k] * (code[c][k] - (k == flipped ? -target[k] : target[k])), 2);
      return sum;
    };
    const auto plain = distances<xsimd::default_arch>(tile, fixed_target, fixed_root);
    const auto flipped = flipped_distances<xsimd::default_arch>(tile, fixed_target, fixed_root);
    constexpr double unit = 16384.0 / (largest_root * largest_root);
    double best = 1e30, best_flipped = 1e30;
    for (int c = 0; c < tile_codes; ++c) {
      alignas(64) std::int32_t got[tile_codes], got_flipped[tile_codes];
      for (int r = 0; r < plain.registers; ++r) {
        plain.part[r].store_aligned(got + r * plain.width);
        flipped.part[r].store_aligned(got_flipped + r * plain.width);
      }
      double least = 1e30;
      for (int k = 0; k < n; ++k) least = std::min(least, distance(c, k));
      EXPECT_NEAR(got[c] * unit, distance(c, -1), 0.5 + 2e-3 * distance(c, -1));
      EXPECT_NEAR(got_flipped[c] * unit, least, 0.5 + 2e-3 * least);
      best = std::min(best, distance(c, -1)), best_flipped = std::min(best_flipped, least);
      std::int8_t bytes[n];
      tile.get(c, bytes);
      for (int k = 0; k < n; ++k) EXPECT_EQ(bytes[k], code[c][k]);
    }
    EXPECT_NEAR(distance(nearest_of(plain).code, -1), best, 0.5 + 2e-3 * best);
  }
}

TEST(CodeTiles, DistancesAreThoseOfTheFormula) {
  check_tiles<4>();
  check_tiles<8>();
}

/// Codes farther than half a byte's range from the target saturate instead of wrapping around.
TEST(CodeTiles, FarCodesStayFar) {
  code_tile<4> tile;
  for (int c = 0; c < tile_codes; ++c)
    for (int k = 0; k < 4; ++k) tile.set(c, k, c == 5 ? 100 : -126);
  std::int16_t target[4], root[4];
  for (int k = 0; k < 4; ++k) target[k] = target_of(1e30f), root[k] = 16383;
  EXPECT_EQ(nearest_of(distances<xsimd::default_arch>(tile, target, root)).code, 5);
}

template <class F>
class TiledGrid : public testing::Test {};
using tiled_grids = testing::Types<iq2_xxs, iq3_xxs, iq3_s>;
TYPED_TEST_SUITE(TiledGrid, tiled_grids);

/// What the tiles find is valid, never better than the full search, and on average hardly worse.
TYPED_TEST(TiledGrid, NearlyAsGoodAsTheFullSearch) {
  using F = TypeParam;
  constexpr int n = F::layout.group, units = n / detail::unit_weights;
  double found = 0, possible = 0;
  for (unsigned seed = 0; seed < 100; ++seed) {
    test::rng g(seed);
    const auto x = test::gaussian(g, n);
    auto w = test::gaussian(g, n);
    double norm = 0;
    for (int e = 0; e < n; ++e) {
      const auto i = static_cast<std::size_t>(e);
      w[i] = std::exp(w[i]), norm += w[i] * x[i] * x[i];
    }
    detail::grid_group<F> group;
    group.load(x.data(), w.data());
    const float s = 3.0f / static_cast<float>(F::max_code) * (0.5f + 0.005f * static_cast<float>(seed));
    detail::unit_choice<F> fast[units], exact[units];
    const double fast_error = norm + detail::choose_units<F>(group, s, false, fast).error(s);
    const double exact_error = norm + detail::choose_units<F>(group, s, true, exact).error(s);
    double error = 0;
    for (int e = 0; e < n; ++e) {
      const auto i = static_cast<std::size_t>(e);
      error += w[i] * std::pow(x[i] - s * static_cast<float>(fast[e / 8].code(e % 8)), 2);
      if (F::even_signs) {
        EXPECT_EQ(__builtin_popcount(static_cast<unsigned>(fast[e / 8].signs)) % 2, 0);
      }
    }
    EXPECT_NEAR(fast_error, error, 1e-4 * norm);
    EXPECT_GE(fast_error, exact_error - 1e-4 * norm);
    found += fast_error, possible += exact_error;
  }
  EXPECT_LE(found / possible, 1.02);
}

template <class F>
class TrellisSearch : public testing::Test {};
using trellises = testing::Types<iq1_kt, iq2_kt, iq3_kt, iq4_kt>;
TYPED_TEST_SUITE(TrellisSearch, trellises);

TYPED_TEST(TrellisSearch, FullReachEqualsBruteForce) {
  using F = TypeParam;
  test::rng g(5);
  for (int round = 0; round < 4; ++round) {
    const auto x = test::gaussian(g, F::layout.group);
    auto w = test::gaussian(g, F::layout.group);
    for (auto& v : w) v = std::exp(v);
    const float s = 0.03f + 0.01f * static_cast<float>(round);
    const int seed = detail::seeded_trellis<F> ? round % 2 : 0;
    detail::trellis_group<F> group;
    group.load(x.data(), w.data());
    const auto got = detail::choose_codewords<F>(group, detail::trellis_targets<F>(group, s), seed, 1.01f);
    double error = 0, best = 0, norm = 0;
    for (int e = 0; e < F::layout.group; ++e) {
      const auto at = static_cast<std::size_t>(e);
      int code = detail::codeword_component<F>(got.index[e / F::vector], e % F::vector, seed);
      if (detail::signed_trellis<F> && x[at] < 0) code = -code;
      error += w[at] * std::pow(x[at] - s * code, 2);
      norm += w[at] * x[at] * x[at];
    }
    for (int v = 0; v < F::layout.group; v += F::vector) {
      double least = 1e30;
      for (int i = 0; i < F::grid_size; ++i) {
        double e = 0;
        for (int k = 0; k < F::vector; ++k) {
          const auto at = static_cast<std::size_t>(v + k);
          const double target = detail::signed_trellis<F> ? std::fabs(x[at]) : x[at];
          e += w[at] * std::pow(target - s * detail::codeword_component<F>(i, k, seed), 2);
        }
        least = std::min(least, e);
      }
      best += least;
    }
    EXPECT_NEAR(error, best, 2e-3 * best);
    EXPECT_NEAR(got.sums.error(s) + norm, error, 1e-4 * norm);
  }
}

}  // namespace
}  // namespace quantal::quantize
