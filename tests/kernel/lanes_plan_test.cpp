// What the lane decoders of avx512_vnni make of random blocks is what code(), scale() and offset() say, for
// the weights that the decoders' maps name.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>

#include "lanes_plan_ops.hpp"
#include "quantal/code_bias.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {
namespace {

bool runs_here() {
  return __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512bw");
}
bool same_number(float x, float y) {
  return (x != x && y != y) || std::bit_cast<std::uint32_t>(x) == std::bit_cast<std::uint32_t>(y);
}

/// The first weights of a row, `count` of 256, as a decoder should give them.
template <block_format F>
void check(const std::byte* row, int count, const lane_weights& got) {
  const float row_factor = row_scale<F>(row);
  bool seen[256] = {};
  for (int p = 0; p < 256; ++p) {
    const int w = got.weight[p];
    ASSERT_FALSE(seen[w]) << F::name << " names weight " << w << " twice";
    seen[w] = true;
    if (w >= count) continue;
    const auto& b = row_blocks<F>(row)[w / F::layout.elements];
    const int e = w % F::layout.elements, g = e / F::layout.group;
    ASSERT_EQ(got.code[p] - code_bias<F>, F::code(b, e)) << F::name << ", weight " << w << ", position " << p;
    const float scale = F::scale(b, row_factor, g);
    ASSERT_TRUE(same_number(got.scale[p], scale))
        << F::name << ", weight " << w << ": " << got.scale[p] << ", not " << scale;
    if constexpr (F::layout.has_offset) {
      const float offset = F::offset(b, row_factor, g);
      ASSERT_TRUE(same_number(got.offset[p], offset))
          << F::name << ", weight " << w << ": " << got.offset[p] << ", not " << offset;
    }
  }
}

/// A slice at the end of its memory: a decoder that reads past it is seen by sanitizers.
template <block_format F>
std::vector<std::byte> random_slice(rng& g, int count, bool any_scales) {
  const std::int64_t bytes = row_bytes<F>(count);
  auto row = random_rows<F>(g, 1, count, bytes);
  if (any_scales)
    std::generate(row.begin() + F::layout.row_meta, row.end(), [&] { return static_cast<std::byte>(g()); });
  return row;
}

template <block_format F>
void check_format(lane_decode decode) {
  rng g(17);
  constexpr int n = 256 / F::layout.elements;
  for (int round = 0; round < 64; ++round) {
    lane_weights got;
    auto row = random_slice<F>(g, 256, false);
    decode(row.data(), 256, got);
    check<F>(row.data(), 256, got);
    if (testing::Test::HasFatalFailure()) return;
    if (!got.by_plan) continue;  // grids multiply infinite scales in another order
    row = random_slice<F>(g, 256, true);
    decode(row.data(), 256, got);
    check<F>(row.data(), 256, got);
    if (testing::Test::HasFatalFailure()) return;
  }
  for (int blocks = 1; blocks < n; ++blocks) {
    lane_weights got;
    const auto row = random_slice<F>(g, blocks * F::layout.elements, false);
    decode(row.data(), blocks * F::layout.elements, got);
    check<F>(row.data(), blocks * F::layout.elements, got);
    if (testing::Test::HasFatalFailure()) return;
  }
}

std::vector<std::string_view> names() {
  std::vector<std::string_view> v;
  for_each_lane_format([&]<class F>() { v.push_back(F::name); });
  return v;
}

class LanesPlan : public testing::TestWithParam<std::string_view> {};

TEST_P(LanesPlan, LanesHoldWhatTheFormatSays) {
  const lane_decode decode = find_lane_decode(GetParam());
  if (!decode || !runs_here()) GTEST_SKIP() << "no AVX-512 VNNI here";
  for_each_lane_format([&]<class F>() {
    if (F::name == GetParam()) check_format<F>(decode);
  });
}

TEST_P(LanesPlan, SlicesHoldWhatTheFormatSays) {
  const lane_decode decode = find_slice_decode(GetParam());
  if (!decode || !runs_here()) GTEST_SKIP() << "no AVX-512 VNNI here, or no slice_codes";
  for_each_lane_format([&]<class F>() {
    if (F::name != GetParam()) return;
    rng g(18);
    for (int round = 0; round < 64; ++round) {
      lane_weights got;
      const auto row = random_slice<F>(g, 256, round % 2 == 0);
      decode(row.data(), 256, got);
      check<F>(row.data(), 256, got);
      if (HasFatalFailure()) return;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Kernel, LanesPlan, testing::ValuesIn(names()),
                         [](const auto& param) { return std::string(param.param); });

}  // namespace
}  // namespace quantal::test
