// A format's plan gives what its code() and sub_scale() give, for every byte of the block.
#include "quantal/format/bit_plan.hpp"

#include <gtest/gtest.h>

#include <set>

#include "support/made_up_formats.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

template <class F>
struct random_block {
  typename F::block block;
  const std::uint8_t* bytes = reinterpret_cast<const std::uint8_t*>(&block);

  explicit random_block(rng& g) {
    for (std::size_t i = 0; i < sizeof block; ++i)
      reinterpret_cast<std::uint8_t*>(&block)[i] = static_cast<std::uint8_t>(g());
  }
};

template <class F>
int stored(const typename F::block& b, int e) {
  if constexpr (has_levels<F>)
    return F::index(b, e);
  else
    return F::code(b, e) + code_bias<F>;
}

template <class F>
void check_codes(rng& g) {
  for (int n = 0; n < 64; ++n) {
    const random_block<F> b(g);
    for (int e = 0; e < F::layout.elements; ++e)
      ASSERT_EQ(code_plan<F>.get(b.bytes, e), stored<F>(b.block, e)) << F::name << ", weight " << e;
  }
}
template <class F>
void check_scales(rng& g) {
  for (int n = 0; n < 64; ++n) {
    const random_block<F> b(g);
    for (int i = 0; i < F::layout.groups(); ++i) {
      if constexpr (sub_scale_plan<F>.found) {
        ASSERT_EQ(sub_scale_plan<F>.get(b.bytes, i), F::sub_scale(b.block, i) - lowest_sub_scale<F>)
            << F::name;
      }
      if constexpr (requires { F::sub_min(b.block, 0); }) {
        ASSERT_TRUE(sub_min_plan<F>.found) << F::name;
        ASSERT_EQ(sub_min_plan<F>.get(b.bytes, i), F::sub_min(b.block, i)) << F::name;
      }
    }
  }
}
template <class F>
void check_tables(rng& g) {
  ASSERT_TRUE(table_plan<F>.found) << F::name;
  for (int n = 0; n < 64; ++n) {
    const random_block<F> b(g);
    for (int i = 0; i < F::layout.groups(); ++i) {
      const int bit = table_plan<F>.bit[static_cast<std::size_t>(i)];
      ASSERT_EQ(b.bytes[bit / 8] >> bit % 8 & 1, F::table(b.block, i)) << F::name;
    }
  }
}

template <class List>
std::set<std::string_view> check_all() {
  std::set<std::string_view> with_plan;
  rng g(1);
  const auto check = [&]<class F>() {
    if constexpr (planar<F>) {
      with_plan.insert(F::name);
      check_codes<F>(g);
    }
    if constexpr (has_sub_scales<F>) check_scales<F>(g);
    if constexpr (has_two_tables<F>) check_tables<F>(g);
  };
  List::for_each(check);
  return with_plan;
}

TEST(BitPlan, GivesWhatTheDefinitionGives) {
  const std::set<std::string_view> planes{
      "q4_0",   "q4_1",   "q5_0",   "q5_1",  "q6_0",  "q8_0",  "q2_K",  "q3_K",  "q4_K",   "q5_K",
      "q6_K",   "iq4_nl", "iq4_xs", "iq2_k", "iq3_k", "iq4_k", "iq5_k", "iq6_k", "iq2_ks", "iq3_ks",
      "iq4_ks", "iq5_ks", "iq2_bn", "tq2_0", "q1_0",  "q2_0",  "mxfp4", "nvfp4", "q8_1",   "q8_K"};
  EXPECT_EQ(check_all<all_formats>(), planes);
}

TEST(BitPlan, OfMadeUpFormats) {
  EXPECT_EQ(check_all<made_up_formats>(),
            (std::set<std::string_view>{"q5_64", "q3_128", "q6_32", "iq3_256", "pairs_and_bits",
                                        "nibbles_and_quads", "two_tables", "sub_scaled_128"}));
}

// Plans are made for the right reason: what is no selection of bits has none.
static_assert(!planar<q4_scattered> && !planar<iq2_xxs> && !planar<iq2_kt> && !planar<tq1_0> &&
              !planar<iq4_kss>);
static_assert(code_plan<q5_0>.planes == 2 && code_plan<q5_0>.at[0][1].packed);
static_assert(code_plan<q6_K>.at[1][0].first[0] == 32 && code_plan<q6_K>.at[1][1].shift[0] == 2);
static_assert(sub_scale_plan<q4_K>.planes == 2);

}  // namespace
}  // namespace quantal::test
