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
    const float d = search_scale_fast<F>({x.data(), w.data(), wx.data()}, [](float s) { return s; });
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

TEST(GridSearch, EqualsBruteForceWithParity) {
  test::rng g(3);
  for (int round = 0; round < 20; ++round) {
    const auto x = test::gaussian(g, 8);
    auto w = test::gaussian(g, 8);
    for (auto& v : w) v = std::exp(v);
    const float s = 0.05f;
    double best = 1e30, norm = 0;
    for (int k = 0; k < 8; ++k)
      norm +=
          w[static_cast<std::size_t>(k)] * x[static_cast<std::size_t>(k)] * x[static_cast<std::size_t>(k)];
    for (int i = 0; i < 256; ++i)
      for (int signs = 0; signs < 256; ++signs) {
        if (__builtin_popcount(static_cast<unsigned>(signs)) % 2) continue;
        double e = 0;
        for (int k = 0; k < 8; ++k) {
          const double v = (signs >> k & 1 ? -s : s) * iq2_xxs::grid_value(i, k),
                       d = x[static_cast<std::size_t>(k)] - v;
          e += w[static_cast<std::size_t>(k)] * d * d;
        }
        best = std::min(best, e);
      }
    const auto got = detail::nearest_vector<iq2_xxs>(x.data(), w.data(), s);
    EXPECT_EQ(__builtin_popcount(static_cast<unsigned>(got.signs)) % 2, 0);
    EXPECT_NEAR(got.error + norm, best, 1e-4 * norm);
  }
}

}  // namespace
}  // namespace quantal::quantize
