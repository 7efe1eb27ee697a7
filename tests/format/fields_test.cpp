// Encoders against decoders: a value written to a field is read back, and nothing else in the block changes.
#include <cstring>
#include <random>

#include "format_case.hpp"

namespace quantal::test {
namespace {

using rng = std::mt19937;

template <class Block>
Block random_block(rng& g) {
  Block b;
  unsigned char bytes[sizeof b];
  for (auto& x : bytes) x = static_cast<unsigned char>(g());
  std::memcpy(&b, bytes, sizeof b);
  return b;
}

/// Codes and scale bits of a block: everything that decoding sees.
template <block_format F>
struct content {
  std::vector<int> codes;
  std::vector<std::uint32_t> scales, offsets;

  explicit content(const typename F::block& b) {
    for (int e = 0; e < F::layout.elements; ++e) codes.push_back(F::code(b, e));
    for (int g = 0; g < F::layout.groups(); ++g) {
      scales.push_back(bits(F::scale(b, 1.0f, g)));
      if constexpr (F::layout.has_offset) offsets.push_back(bits(F::offset(b, 1.0f, g)));
    }
  }
  static std::uint32_t bits(float f) { return f != f ? 0x7fc00000u : detail::bits_from_float(f); }
  bool operator==(const content&) const = default;
};

/// Sets one element and expects its code alone to change.
template <class F, class Set, class Want>
void expect_code_written(rng& g, int e, Set set, Want want) {
  auto b = random_block<typename F::block>(g);
  content<F> before(b);
  set(b);
  before.codes[e] = want;
  ASSERT_TRUE(content<F>(b) == before) << F::name << " element " << e << " value " << want;
}

template <class F>
void check_codes(rng& g) {
  if constexpr (requires(typename F::block& b) { F::set_code(b, 0, 0); })
    for (int e = 0; e < F::layout.elements; ++e)
      for (int c = F::min_code; c <= F::max_code; c += F::max_code > 100 ? 13 : 1)
        expect_code_written<F>(g, e, [&](auto& b) { F::set_code(b, e, c); }, c);
}

template <class F>
void check_indices(rng& g) {
  if constexpr (requires(typename F::block& b) { F::set_index(b, 0, 0); })
    for (int e = 0; e < F::layout.elements; ++e)
      for (int i = 0; i < F::levels; ++i) {
        auto b = random_block<typename F::block>(g);
        content<F> before(b);
        F::set_index(b, e, i);
        ASSERT_EQ(F::index(b, e), i);
        before.codes[e] = F::level(i);
        ASSERT_TRUE(content<F>(b) == before) << F::name << " element " << e << " index " << i;
      }
}

/// Writes v through set, expects get to return it, and all groups but g and all codes to stay.
template <class F, class Get, class Set>
void expect_group_field(rng& r, int group, int v, Get get, Set set) {
  auto b = random_block<typename F::block>(r);
  content<F> before(b), after(b);
  std::vector<int> fields;
  for (int g = 0; g < F::layout.groups(); ++g) fields.push_back(get(b, g));
  set(b, group, v);
  fields[group] = v;
  for (int g = 0; g < F::layout.groups(); ++g)
    ASSERT_EQ(get(b, g), fields[g]) << F::name << " group " << g << " after writing " << v << " to " << group;
  ASSERT_EQ(content<F>(b).codes, before.codes) << F::name;
}

template <class F>
void check_sub_scales(rng& r) {
  if constexpr (requires(typename F::block& b) { F::set_sub_scale(b, 0, 0); }) {
    constexpr int lowest = [] {
      if constexpr (requires { F::min_sub_scale; }) return F::min_sub_scale;
      else return 0;
    }();
    for (int g = 0; g < F::layout.groups(); ++g)
      for (int v = lowest; v <= F::max_sub_scale; ++v)
        expect_group_field<F>(r, g, v, [](const auto& b, int i) { return F::sub_scale(b, i); },
                              [](auto& b, int i, int x) { F::set_sub_scale(b, i, x); });
  }
  if constexpr (requires(typename F::block& b) { F::set_sub_min(b, 0, 0); })
    for (int g = 0; g < F::layout.groups(); ++g)
      for (int v = 0; v <= F::max_sub_min; ++v) {
        auto b = random_block<typename F::block>(r);
        expect_group_field<F>(r, g, v, [](const auto& x, int i) { return F::sub_min(x, i); },
                              [](auto& x, int i, int m) { F::set_sub_min(x, i, m); });
        const int scale = F::sub_scale(b, g);
        F::set_sub_min(b, g, v);
        ASSERT_EQ(F::sub_scale(b, g), scale) << F::name;
        F::set_sub_scale(b, g, F::max_sub_scale - scale);
        ASSERT_EQ(F::sub_min(b, g), v) << F::name;
      }
}

template <class F>
void check_block_scales(rng& r) {
  auto b = random_block<typename F::block>(r);
  const auto codes = content<F>(b).codes;
  if constexpr (requires { F::set_scale(b, 1.0f); }) {
    F::set_scale(b, -0.375f);
    EXPECT_EQ(F::scale(b, 1.0f, 0), -0.375f) << F::name;
  }
  if constexpr (requires { F::set_offset(b, 1.0f); }) {
    F::set_offset(b, 2.5f);
    EXPECT_EQ(F::offset(b, 1.0f, 0), 2.5f) << F::name;
    EXPECT_EQ(F::scale(b, 1.0f, 0), -0.375f) << F::name;
  }
  if constexpr (requires { F::set_super(b, 1.0f); }) {
    F::set_super(b, -0.375f);
    EXPECT_EQ(F::super(b), -0.375f) << F::name;
  }
  if constexpr (requires { F::set_super_min(b, 1.0f); }) {
    F::set_super_min(b, 2.5f);
    EXPECT_EQ(F::super_min(b), 2.5f) << F::name;
    EXPECT_EQ(F::super(b), -0.375f) << F::name;
  }
  EXPECT_EQ(content<F>(b).codes, codes) << F::name;
}

/// Grid formats: index and signs of one vector; parity formats take signs with an even number of set bits.
template <class F>
void check_vectors(rng& r) {
  if constexpr (requires(typename F::block& b) { F::set_vector(b, 0, 0, 0); }) {
    for (int v = 0; v < F::layout.elements / F::vector; ++v)
      for (int i = 0; i < 2 * F::grid_size; ++i) {
        auto b = random_block<typename F::block>(r);
        content<F> want(b);
        int signs = static_cast<int>(r() & ((1u << F::vector) - 1));
        if (F::even_signs && __builtin_parity(static_cast<unsigned>(signs))) signs ^= 1;
        F::set_vector(b, v, i % F::grid_size, signs);
        for (int k = 0; k < F::vector; ++k) {
          const int value = F::grid_value(i % F::grid_size, k);
          want.codes[F::vector * v + k] = signs >> k & 1 ? -value : value;
        }
        ASSERT_TRUE(content<F>(b) == want) << F::name << " vector " << v << " index " << i;
      }
  }
}

class fields : public testing::TestWithParam<std::uint32_t> {};

TEST_P(fields, read_back_what_was_written) {
  rng g(GetParam());
  visit_format(GetParam(), [&]<class F>() {
    if constexpr (block_format<F>) {
      check_codes<F>(g);
      check_indices<F>(g);
      check_sub_scales<F>(g);
      check_block_scales<F>(g);
      check_vectors<F>(g);
    } else {
      for (const float v : {0.0f, -0.0f, 1.0f, -2.5f}) EXPECT_EQ(F::value(F::from_float(v)), v);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(formats, fields, testing::ValuesIn(all_format_ids()), format_name);

}  // namespace
}  // namespace quantal::test
