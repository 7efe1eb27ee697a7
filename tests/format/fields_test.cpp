// Encoders against decoders: a value written to a field is read back, and nothing else in the block changes.
#include <cmath>
#include <cstring>
#include <random>

#include "format_case.hpp"

namespace quantal::test {
namespace {

using rng = std::mt19937;

template <class Block>
Block random_bytes_of(rng& g) {
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
  auto b = random_bytes_of<typename F::block>(g);
  content<F> before(b);
  set(b);
  before.codes[e] = want;
  ASSERT_TRUE(content<F>(b) == before) << F::name << " element " << e << " value " << want;
}

template <class F>
void check_fields(rng& g) {
  if constexpr (requires(typename F::block & b) { F::set_code(b, 0, 0); })
    for (int e = 0; e < F::layout.elements; ++e)
      for (int c = F::min_code; c <= F::max_code; c += F::max_code > 100 ? 13 : 1)
        expect_code_written<F>(
            g, e, [&](auto& b) { F::set_code(b, e, c); }, c);
}

template <class F>
concept has_tables = requires(typename F::block& b) {
  F::set_table(b, 0, 0);
};

template <class F>
void check_indices(rng& g) {
  if constexpr (requires(typename F::block & b) { F::set_index(b, 0, 0); })
    for (int e = 0; e < F::layout.elements; ++e)
      for (int i = 0; i < F::levels; ++i) {
        auto b = random_bytes_of<typename F::block>(g);
        content<F> before(b);
        F::set_index(b, e, i);
        ASSERT_EQ(F::index(b, e), i);
        if constexpr (has_tables<F>)
          before.codes[e] = F::level(i, F::table(b, e / F::layout.group));
        else
          before.codes[e] = F::level(i);
        ASSERT_TRUE(content<F>(b) == before) << F::name << " element " << e << " index " << i;
      }
}

/// Writes v through set, expects get to return it, and all groups but g and all codes to stay.
template <class F, class Get, class Set>
void expect_group_field(rng& r, int group, int v, Get get, Set set) {
  auto b = random_bytes_of<typename F::block>(r);
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
  if constexpr (requires(typename F::block & b) { F::set_sub_scale(b, 0, 0); }) {
    constexpr int lowest = [] {
      if constexpr (requires { F::min_sub_scale; })
        return F::min_sub_scale;
      else
        return 0;
    }();
    constexpr int step = [] {
      if constexpr (requires { F::sub_scale_step; })
        return F::sub_scale_step;
      else
        return 1;
    }();
    for (int g = 0; g < F::layout.groups(); ++g)
      for (int v = lowest; v <= F::max_sub_scale; v += step)
        expect_group_field<F>(
            r, g, v, [](const auto& b, int i) { return F::sub_scale(b, i); },
            [](auto& b, int i, int x) { F::set_sub_scale(b, i, x); });
  }
  if constexpr (requires(typename F::block & b) { F::set_sub_min(b, 0, 0); })
    for (int g = 0; g < F::layout.groups(); ++g)
      for (int v = 0; v <= F::max_sub_min; ++v) {
        auto b = random_bytes_of<typename F::block>(r);
        expect_group_field<F>(
            r, g, v, [](const auto& x, int i) { return F::sub_min(x, i); },
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
  auto b = random_bytes_of<typename F::block>(r);
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

/// Fields that select codes or scales, one per unit of `weights` elements: read back, other units untouched.
template <class F, class Get, class Set>
void expect_values(rng& r, int weights, const std::vector<int>& values, Get get, Set set) {
  const int units = F::layout.elements / weights;
  for (int u = 0; u < units; ++u)
    for (const int v : values) {
      auto b = random_bytes_of<typename F::block>(r);
      content<F> before(b);
      std::vector<int> want;
      for (int i = 0; i < units; ++i) want.push_back(get(b, i));
      want[u] = v;
      set(b, u, v);
      const content<F> after(b);
      for (int i = 0; i < units; ++i)
        ASSERT_EQ(get(b, i), want[i]) << F::name << " unit " << i << " of " << u;
      for (int e = 0; e < F::layout.elements; ++e) {
        if (e / weights == u) continue;
        ASSERT_EQ(after.codes[e], before.codes[e]) << F::name << " element " << e;
      }
    }
}

std::vector<int> up_to(int count) {
  std::vector<int> v;
  for (int i = 0; i < count; ++i) v.push_back(i);
  return v;
}

template <class F>
void check_selectors(rng& r) {
  constexpr int group = F::layout.group;
  if constexpr (has_tables<F>)
    expect_values<F>(
        r, group, {0, 1}, [](const auto& b, int g) { return F::table(b, g); },
        [](auto& b, int g, int v) { F::set_table(b, g, v); });
  if constexpr (requires { F::scale_levels; })
    expect_values<F>(
        r, group, up_to(F::scale_levels), [](const auto& b, int g) { return F::scale_index(b, g); },
        [](auto& b, int g, int v) { F::set_scale_index(b, g, v); });
  if constexpr (requires { F::max_scale_code; })
    expect_values<F>(
        r, group, up_to(F::max_scale_code + 1), [](const auto& b, int g) { return F::scale_code(b, g); },
        [](auto& b, int g, int v) { F::set_scale_code(b, g, v); });
  if constexpr (requires { F::max_exponent; })
    expect_values<F>(
        r, group, up_to(F::max_exponent + 1), [](const auto& b, int) { return F::exponent(b); },
        [](auto& b, int, int v) { F::set_exponent(b, v); });
  if constexpr (requires { F::shift_group; })
    expect_values<F>(
        r, F::shift_group, {-1, 1}, [](const auto& b, int i) { return F::shift(b, i); },
        [](auto& b, int i, int v) { F::set_shift(b, i, v); });
  if constexpr (requires(typename F::block & b) { F::set_seed_bit(b, 0, 0); })
    expect_values<F>(
        r, group, {0, 1}, [](const auto& b, int g) { return F::seed_bit(b, g); },
        [](auto& b, int g, int v) { F::set_seed_bit(b, g, v); });
}

/// What code() gives for component k of a grid entry in the place of element e.
template <class F>
int grid_code(const typename F::block& b, int e, int index, int k) {
  if constexpr (requires { F::shift_group; })
    return 8 * F::grid_value(index, k) + F::shift(b, e / F::shift_group);
  else if constexpr (requires { F::seed_bit(b, 0); })
    return F::grid_value(index, k, F::seed_bit(b, e / 32));
  else
    return F::grid_value(index, k);
}

/// An index per trial: all of a small grid, random ones of a large grid.
template <class F>
int trial_index(rng& r, int trial) {
  return F::grid_size <= 512 ? trial % F::grid_size : static_cast<int>(r() % F::grid_size);
}

int even_parity(int signs) { return signs ^ __builtin_parity(static_cast<unsigned>(signs)); }

/// Grid formats: index and signs of one vector; parity formats take signs with an even number of set bits.
template <class F>
void check_vectors(rng& r) {
  if constexpr (requires { F::grid_size; })
    for (int v = 0; v < F::layout.elements / F::vector; ++v)
      for (int trial = 0; trial < 512; ++trial) {
        auto b = random_bytes_of<typename F::block>(r);
        const int index = trial_index<F>(r, trial);
        int signs = static_cast<int>(r() & 255);
        if constexpr (requires { F::even_signs; })
          signs = F::even_signs ? even_parity(signs) : signs;
        else
          signs = 0;
        const int first = F::vector * v;
        if constexpr (requires { F::set_signs(b, 0, 0); }) F::set_signs(b, first / 8, signs);
        content<F> want(b);
        if constexpr (requires { F::set_vector(b, 0, 0, 0); })
          F::set_vector(b, v, index, signs);
        else
          F::set_grid(b, v, index);
        for (int e = first; e < first + F::vector; ++e) {
          const int value = grid_code<F>(b, e, index, e - first);
          want.codes[e] = signs >> (e % 8) & 1 ? -value : value;
        }
        ASSERT_TRUE(content<F>(b) == want) << F::name << " vector " << v << " index " << index;
      }
}

/// Kernels size their accumulators by these bounds. Ternary codes decode one more value than encoders write.
template <class F>
void check_code_bounds(rng& r) {
  if constexpr (requires { F::min_code + F::max_code; })
    for (int trial = 0; trial < 200; ++trial)
      for (const int code : content<F>(random_bytes_of<typename F::block>(r)).codes) {
        ASSERT_GE(code, F::min_code - (F::min_code == -127)) << F::name;
        ASSERT_LE(code, F::max_code + (F::max_code == 1)) << F::name;
      }
}

template <class F>
void check_row_scale() {
  if constexpr (F::layout.row_meta > 0)
    for (int shift = 0; shift < 4; ++shift) {
      std::byte row[16] = {};
      F::set_row_scale(row + shift, -0.375f);
      EXPECT_EQ(F::row_scale(row + shift), -0.375f);
      for (int i = 0; i < 16; ++i) {
        const bool inside = i >= shift && i < shift + F::layout.row_meta;
        if (!inside) {
          EXPECT_EQ(row[i], std::byte{0}) << i;
        }
      }
    }
}

class fields : public testing::TestWithParam<std::uint32_t> {};

TEST_P(fields, read_back_what_was_written) {
  rng g(GetParam());
  visit_format(GetParam(), [&]<class F>() {
    if constexpr (block_format<F>) {
      check_fields<F>(g);
      check_indices<F>(g);
      check_sub_scales<F>(g);
      check_block_scales<F>(g);
      check_selectors<F>(g);
      check_vectors<F>(g);
      check_row_scale<F>();
      check_code_bounds<F>(g);
    } else {
      for (const float v : {0.0f, -0.0f, 1.0f, -2.5f}) EXPECT_EQ(F::value(F::from_float(v)), v);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(formats, fields, testing::ValuesIn(all_format_ids()), format_name);

TEST(iq4_kss, writes_four_indices_of_even_parity_at_once) {
  rng g(1);
  for (int w = 0; w < 64; ++w)
    for (int indices = 0; indices < 65536; ++indices) {
      if (__builtin_parity(static_cast<unsigned>(indices))) continue;
      auto b = random_bytes_of<iq4_kss::block>(g);
      const int group = w / 8, scale = iq4_kss::sub_scale(b, group), table = iq4_kss::table(b, group);
      iq4_kss::set_word(b, w, indices);
      const int first = 32 * group + 2 * (w % 8);
      const int places[] = {first, first + 16, first + 1, first + 17};
      for (int i = 0; i < 4; ++i) ASSERT_EQ(iq4_kss::index(b, places[i]), indices >> (4 * i) & 15);
      ASSERT_EQ(iq4_kss::sub_scale(b, group), scale);
      ASSERT_EQ(iq4_kss::table(b, group), table);
    }
}

TEST(ternary, unused_digits_stay_zero_and_bytes_canonical) {
  rng g(2);
  tq1_0::block a{};
  iq1_bn::block b{};
  for (int trial = 0; trial < 2000; ++trial) {
    tq1_0::set_code(a, static_cast<int>(g() % 256), static_cast<int>(g() % 3) - 1);
    iq1_bn::set_code(b, static_cast<int>(g() % 64), static_cast<int>(g() % 3) - 1);
  }
  for (const auto& byte : a.qh) EXPECT_EQ(byte.get(4), 0);
  EXPECT_EQ(b.extra.get(0), 0);
  for (const auto& byte : a.qs) {
    int n = 0;
    for (int p = 0; p < 5; ++p) n = 3 * n + byte.get(p);
    EXPECT_EQ(byte.code, (256 * n + 242) / 243);
  }
}

TEST(nvfp4, scale_values_increase_with_their_code) {
  EXPECT_EQ(nvfp4::scale_value(0), 0.0f);
  for (int c = 0; c < nvfp4::max_scale_code; ++c) EXPECT_LT(nvfp4::scale_value(c), nvfp4::scale_value(c + 1));
  EXPECT_EQ(nvfp4::scale_value(nvfp4::max_scale_code), 224.0f);
}

TEST(mxfp4, scales_are_powers_of_two_down_to_subnormals) {
  mxfp4::block b{};
  for (int x = 0; x <= mxfp4::max_exponent; ++x) {
    mxfp4::set_exponent(b, x);
    EXPECT_EQ(mxfp4::scale(b, 1.0f, 0), std::ldexp(1.0f, x - 128));
  }
}

TEST(activations, keep_their_sums) {
  q8_1::block a{};
  q8_1::set_sum(a, -12.5f);
  EXPECT_EQ(q8_1::sum(a), -12.5f);
  q8_K::block b{};
  for (int h = 0; h < 16; ++h) q8_K::set_sum(b, h, 127 * 16 - 300 * h);
  for (int h = 0; h < 16; ++h) EXPECT_EQ(q8_K::sum(b, h), 127 * 16 - 300 * h);
  EXPECT_EQ(find_format("q8_1")->usage, role::activation);
  EXPECT_EQ(find_format("q8_K")->usage, role::activation);
}

TEST(iq3_kt, negates_zeros) {
  iq3_kt::block b{};
  iq3_kt::set_sub_scale(b, 0, 1);
  int index = 0;
  while (iq3_kt::grid_value(index, 0) != 0) ++index;
  iq3_kt::set_grid(b, 0, index);
  iq3_kt::set_signs(b, 0, 1);
  EXPECT_EQ(detail::bits_from_float(weight<iq3_kt>(b, 1.0f, 0)), 0x80000000u);
}

}  // namespace
}  // namespace quantal::test
