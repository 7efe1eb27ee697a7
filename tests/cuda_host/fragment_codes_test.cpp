// Readers of codes and scales against the formats' own definitions, at every alignment that rows can have:
// formats of the list, and formats that are made up to lie in their blocks as none of the list does.
#include "quantal/cuda/fragment_codes.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <random>
#include <string>
#include <utility>

#include "quantal/cuda/fragments/lanes.hpp"
#include "support/q5_64.hpp"

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
    const fragment_codes o = fragment_reader<F>::template codes<C>(bytes, t);
    for (int i = 0; i < 8; ++i) {
      const int e = 32 * C + fragment_element(fragment_reader<F>::order, t, i);
      const int want = F::code(bytes.template block<F>(e / n), e % n) + fragment_reader<F>::bias;
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

/// The same for the scale and the offset of four groups.
template <class F, int Run, int Align>
std::string wrong_scale(const group_bytes<Align>& bytes, float row_scale) {
  constexpr int per_block = F::layout.groups(), groups = group_weights / F::layout.group;
  for (int t = 0; t < 4 && 4 * Run + t < groups; ++t) {
    const int g = 4 * Run + t;
    const auto& block = bytes.template block<F>(g / per_block);
    affine want{F::scale(block, row_scale, g % per_block), 0};
    if constexpr (F::layout.has_offset) want.offset = F::offset(block, row_scale, g % per_block);
    const affine got = scale_reader<F>::template get<Run>(bytes, row_scale, t);
    if (!same(got.scale, want.scale) || !same(got.offset, want.offset))
      return "group " + std::to_string(g) + " has " + std::to_string(got.scale) + ", " +
             std::to_string(got.offset) + ", not " + std::to_string(want.scale) + ", " +
             std::to_string(want.offset);
  }
  return "";
}

template <class F, int Align>
std::string wrong_scales(const group_bytes<Align>& bytes, float row_scale) {
  std::string wrong;
  [&]<int... Run>(std::integer_sequence<int, Run...>) {
    (void)((wrong = wrong_scale<F, Run>(bytes, row_scale), wrong.empty()) && ...);
  }
  (std::make_integer_sequence<int, (group_weights / F::layout.group + 3) / 4>());
  return wrong;
}

/// Adds up what a lane reader hands out.
struct lane_codes {
  int codes[64] = {};
  template <int W>
  void add(std::uint32_t word) {
    sum(W, word, 1);
  }
  template <int W>
  void subtract(std::uint32_t word) {
    sum(W, word, -1);
  }

 private:
  void sum(int w, std::uint32_t word, int sign) {
    for (int i = 0; i < 4; ++i)
      codes[4 * w + i] += sign * static_cast<std::int8_t>(static_cast<std::uint8_t>(word >> (8 * i)));
  }
};

/// A description of the first weight of a lane's quarter that differs, or nothing.
template <lane_readable F, int Align>
std::string wrong_quarter(const group_bytes<Align>& bytes, float row_scale, int t) {
  using reader = lane_reader<F>;
  constexpr int n = F::layout.elements, group = F::layout.group;
  lane_codes got;
  const typename reader::tables tables(0, 0);
  reader::codes(bytes, t, tables, got);
  const auto scales = reader::scales(bytes, row_scale, t);
  for (int i = 0; i < 64; ++i) {
    const int run = reader::run(t, i / 16), q = run % 2 * 2 + i % 16 / 8;
    const int e = run / 2 * 32 + reader::order.element(q, i % 8);
    const auto& block = bytes.template block<F>(e / n);
    const int want = F::code(block, e % n) + reader::bias;
    if (got.codes[i] != want)
      return "weight " + std::to_string(e) + " is " + std::to_string(got.codes[i]) + ", not " +
             std::to_string(want);
    const float scale = F::scale(block, row_scale, e % n / group);
    const float g = scales.scale * static_cast<float>(scales.factors[i / group]);
    if (!(std::abs(g - scale) <= 1e-6f * std::abs(scale)) && std::isfinite(scale))
      return "the scale of weight " + std::to_string(e) + " is " + std::to_string(g) + ", not " +
             std::to_string(scale);
    if constexpr (F::layout.has_offset) {
      const float offset = F::offset(block, row_scale, e % n / group);
      const float o = scales.offset * static_cast<float>(scales.offset_factors[i / group]);
      if (!(std::abs(o - offset) <= 1e-6f * std::abs(offset)) && std::isfinite(offset))
        return "the offset of weight " + std::to_string(e) + " is " + std::to_string(o) + ", not " +
               std::to_string(offset);
    }
  }
  return "";
}

template <class F, int Align>
void check(const row_buffer& buffer, int skew) {
  const group_bytes<Align> bytes{reinterpret_cast<const std::uint32_t*>(buffer.data()), skew};
  ASSERT_EQ((wrong_codes<F>(bytes)), "") << "alignment " << Align << ", skew " << skew;
  ASSERT_EQ((wrong_scales<F>(bytes, -0.37f)), "") << "alignment " << Align << ", skew " << skew;
  if constexpr (lane_readable<F>) {
    for (int t = 0; t < 4; ++t) {
      ASSERT_EQ((wrong_quarter<F>(bytes, -0.37f, t)), "") << "lane " << t << ", alignment " << Align;
    }
  }
}

// Formats that are made up.

/// Six bits in three planes: three bits of a byte between others, packed bits, packed pairs. Sub-scales
/// of 16.
struct three_planes : quantal::detail::super_scaled<three_planes> {
  static constexpr std::string_view name = "three_planes";
  static constexpr std::uint32_t gguf_id = 901;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 128, .bytes = 122, .group = 16};
  static constexpr int min_code = -32, max_code = 31, min_sub_scale = -128;

  struct block {
    std::uint8_t bits[16], pairs[32];
    std::int8_t scales[8];
    quantal::detail::half_bits d;
    std::uint8_t low[64];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return (b.low[e % 64] >> (1 + 3 * (e / 64)) & 7) + 8 * (b.bits[e / 8] >> e % 8 & 1) +
           16 * (b.pairs[e / 4] >> 2 * (e % 4) & 3) - 32;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept { return b.scales[g]; }
};

/// Indices into 32 levels, stored as index ^ 5, in runs that follow each other backwards. A scale and a
/// formula of its own.
struct backwards {
  static constexpr std::string_view name = "backwards";
  static constexpr std::uint32_t gguf_id = 902;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 41, .group = 32};
  static constexpr int min_code = -112, max_code = 105, levels = 32;

  struct block {
    std::uint8_t nibbles[32], fifth[8], exponent;
  };

  QUANTAL_HD static constexpr int level(int index) noexcept { return 7 * index - 112; }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    const int nibble = b.nibbles[8 * (3 - e % 32 / 8) + e % 8] >> 4 * (e / 32) & 15;
    return (nibble | (b.fifth[e / 8] >> e % 8 & 1) << 4) ^ 5;
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return level(index(b, e)); }
  QUANTAL_HD static constexpr float scale(const block& b, float, int g) noexcept {
    return static_cast<float>(1 << (b.exponent >> 4 * g & 15));
  }
};

/// Bytes with a gap behind every eight of them, under a scale and an offset.
struct gapped {
  static constexpr std::string_view name = "gapped";
  static constexpr std::uint32_t gguf_id = 903;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 32, .bytes = 40, .group = 32, .has_offset = true};

  struct run {
    std::int8_t codes[8];
    std::uint8_t gap;
  };
  struct block {
    run runs[4];
    quantal::detail::half_bits m, d;
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept { return b.runs[e / 8].codes[e % 8]; }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }
  QUANTAL_HD static constexpr float offset(const block& b, float, int) noexcept { return b.m.get(); }
};

/// Two bits of a byte choose a level of one of two tables; a packed nibble per 16 weights is its scale.
struct two_tables : quantal::detail::row_scale_field<quantal::detail::half_bits> {
  static constexpr std::string_view name = "two_tables";
  static constexpr std::uint32_t gguf_id = 904;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 128, .bytes = 41, .group = 16, .row_meta = 2};
  static constexpr int min_code = -20, max_code = 25, levels = 4;

  struct block {
    std::uint8_t scales[8];
    std::uint8_t table;
    std::uint8_t pairs[32];
  };

  QUANTAL_HD static constexpr int level(int index, int table) noexcept { return 13 * index - 20 + 6 * table; }
  QUANTAL_HD static constexpr int table(const block& b, int g) noexcept { return b.table >> (7 - g) & 1; }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    return b.pairs[e % 32] >> 2 * (3 - e / 32) & 3;
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / 16));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return (b.scales[g / 2] >> 4 * (g % 2) & 15) + 16 * (b.scales[4 + g / 2] >> (g % 2 ? 5 : 0) & 7);
  }
  QUANTAL_HD static constexpr float scale(const block& b, float row_scale, int g) noexcept {
    return row_scale * static_cast<float>(sub_scale(b, g));
  }
};

static_assert(readable_by_plan<q5_64> && readable_by_plan<three_planes> && readable_by_plan<backwards> &&
              readable_by_plan<gapped> && readable_by_plan<two_tables>);
static_assert(fragment_reader<gapped>::order == fragment_order::halves, "its runs do not follow each other");

template <class F>
class FragmentCodes : public testing::Test {};

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
tested<testing::Types<q5_64, three_planes, backwards, gapped, two_tables>, F...> tested_of(format_list<F...>);

struct format_name {
  template <class F>
  static std::string GetName(int) {
    return std::string(F::name);
  }
};
TYPED_TEST_SUITE(FragmentCodes, decltype(tested_of(all_formats{}))::types, format_name);

TYPED_TEST(FragmentCodes, AgreeWithTheFormat) {
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
