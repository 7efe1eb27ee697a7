// Decoders of octets against the formats' own definitions, at every alignment that rows can have.
#include "quantal/cuda/octets.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>

namespace quantal::cuda {
namespace {

using row_buffer = std::array<std::uint8_t, 1024>;

/// Random bytes, the same for a seed.
void fill(row_buffer& b, std::mt19937& random) {
  for (auto& x : b) x = static_cast<std::uint8_t>(random());
}

/// A description of the first weight of chunk C that differs, or nothing.
template <class F, int C, int Align>
std::string wrong_code(const group_bytes<Align>& bytes) {
  constexpr int n = F::layout.elements;
  for (int t = 0; t < 4; ++t) {
    const octet o = octets<F>::template codes<C>(bytes, t);
    for (int i = 0; i < 8; ++i) {
      const int e = 32 * C + octet_element(octets<F>::order, t, i);
      const int want = F::code(bytes.template block<F>(e / n), e % n) + octets<F>::bias;
      const int got = static_cast<int>((i < 4 ? o.low : o.high) >> (8 * (i % 4)) & 255);
      if (got != want)
        return "weight " + std::to_string(e) + " is " + std::to_string(got) + ", not " + std::to_string(want);
    }
  }
  return "";
}

template <class F, int Align>
std::string wrong_codes(const group_bytes<Align>& bytes) {
  std::string wrong;
  [&]<int... C>(std::integer_sequence<int, C...>) {
    (void)((wrong = wrong_code<F, C>(bytes), wrong.empty()) && ...);
  }
  (std::make_integer_sequence<int, 8>());
  return wrong;
}

/// Equal bit for bit; any NaN equals any other, for operands of a product may be swapped.
bool same(float a, float b) { return std::memcmp(&a, &b, sizeof a) == 0 || (std::isnan(a) && std::isnan(b)); }

template <class F, int Align>
std::string wrong_scale(const group_bytes<Align>& bytes, float row_scale) {
  constexpr int n = F::layout.groups();
  for (int g = 0; g < group_weights / F::layout.group; ++g) {
    const auto& block = bytes.template block<F>(g / n);
    affine want{F::scale(block, row_scale, g % n), 0};
    if constexpr (F::layout.has_offset) want.offset = F::offset(block, row_scale, g % n);
    const affine got = octets<F>::scale(bytes, row_scale, g);
    if (!same(got.scale, want.scale) || !same(got.offset, want.offset))
      return "group " + std::to_string(g) + " has " + std::to_string(got.scale) + ", " +
             std::to_string(got.offset) + ", not " + std::to_string(want.scale) + ", " +
             std::to_string(want.offset);
  }
  return "";
}

template <class F, int Align>
void check(const row_buffer& buffer, int skew) {
  const group_bytes<Align> bytes{reinterpret_cast<const std::uint32_t*>(buffer.data()), skew};
  ASSERT_EQ((wrong_codes<F>(bytes)), "") << "alignment " << Align << ", skew " << skew;
  ASSERT_EQ((wrong_scale<F>(bytes, -0.37f)), "") << "alignment " << Align << ", skew " << skew;
}

template <class F>
class Octets : public testing::Test {};

/// The block formats of a list.
template <class Types, class... F>
struct tested {
  using types = Types;
};
template <class... T, class First, class... F>
struct tested<testing::Types<T...>, First, F...>
    : tested<std::conditional_t<block_format<First>, testing::Types<T..., First>, testing::Types<T...>>,
             F...> {};
template <class... F>
tested<testing::Types<>, F...> tested_of(format_list<F...>);

struct format_name {
  template <class F>
  static std::string GetName(int) {
    return std::string(F::name);
  }
};
TYPED_TEST_SUITE(Octets, decltype(tested_of(all_formats{}))::types, format_name);

TYPED_TEST(Octets, AgreeWithTheFormat) {
  using F = TypeParam;
  constexpr int natural = natural_alignment<F>(), group = group_alignment<F>();
  alignas(16) row_buffer buffer;
  std::mt19937 random(F::gguf_id);
  for (int repetition = 0; repetition < 60; ++repetition) {
    fill(buffer, random);
    check<F, group>(buffer, 0);
    check<F, natural>(buffer, 0);
    if constexpr (group < 4)
      for (int skew = group; skew < 4; skew += group) check<F, group>(buffer, skew);
    if constexpr (natural < 4)
      for (int skew = natural; skew < 4; skew += natural) check<F, natural>(buffer, skew);
  }
}

}  // namespace
}  // namespace quantal::cuda
