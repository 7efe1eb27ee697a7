// Second moments as the model runs: those of the inputs, whatever the threads; shared inputs once.
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "moments_collector.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::mla {
namespace {

constexpr std::int64_t cols = 40, tokens = 300;

std::vector<float> inputs() {
  std::vector<float> x(static_cast<std::size_t>(tokens * cols));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(static_cast<int>(i * 7919 % 201) - 100) / 64.0f;
  return x;
}

matrix_input dense(const char* name, const float* x) { return {name, x, cols, tokens, cols}; }

imatrix::moments_store collect(executor_ref threads, moments_options o,
                               const std::function<void(moments_collector&)>& feed) {
  moments_collector c(o, runtime::dispatcher::best().product(), threads);
  feed(c);
  return c.take();
}

double sum(const std::vector<float>& x, std::int64_t i, std::int64_t j, std::int64_t first,
           std::int64_t last) {
  double s = 0;
  for (std::int64_t t = first; t < last; ++t)
    s += double{x[static_cast<std::size_t>(t * cols + i)]} * x[static_cast<std::size_t>(t * cols + j)];
  return s;
}

TEST(MomentsCollector, SumsAreThoseOfTheInputsWhateverTheThreads) {
  const auto x = inputs();
  const auto feed = [&](moments_collector& c) {
    EXPECT_TRUE(c.on_mul_mat(dense("blk.0.attn_output.weight", x.data())));
  };
  serial_executor serial;
  thread_pool pool(3);
  const auto one = collect(serial, {std::size_t{1} << 30, 270}, feed),
             many = collect(pool, {std::size_t{1} << 30, 270}, feed);
  EXPECT_TRUE(one == many);
  const auto& m = one.entries.at("blk.0.attn_output.weight");
  EXPECT_EQ(m.counts, std::vector<double>{270});
  EXPECT_EQ(m.held_counts, std::vector<double>{30});
  std::size_t at = 0;
  for (std::int64_t i = 0; i < cols; ++i)
    for (std::int64_t j = 0; j <= i; ++j, ++at) {
      ASSERT_NEAR(m.sums[at], sum(x, i, j, 0, 270), 1e-3);
      ASSERT_NEAR(m.held_out[at], sum(x, i, j, 270, tokens), 1e-3);
    }
}

TEST(MomentsCollector, SameInputsAreStoredOnce) {
  const auto x = inputs(), y = inputs();
  serial_executor serial;
  const auto s = collect(serial, {}, [&](moments_collector& c) {
    for (int pass = 0; pass < 2; ++pass) {
      c.start_at(pass * tokens);
      EXPECT_TRUE(c.on_mul_mat(dense("blk.0.ffn_gate.weight", x.data())));
      EXPECT_TRUE(c.on_mul_mat(dense("blk.0.ffn_up.weight", x.data())));
      EXPECT_TRUE(c.on_mul_mat(dense("blk.0.attn_q_a.weight", x.data())));
      EXPECT_TRUE(
          c.on_mul_mat(dense("blk.0.attn_kv_a_mqa.weight", y.data())));  // not the same numbers in memory
      EXPECT_TRUE(c.on_mul_mat(dense("output.weight", x.data())));
    }
  });
  EXPECT_EQ(s.entries.size(), 3u);
  EXPECT_EQ(s.same.at("blk.0.ffn_up.weight"), "blk.0.ffn_gate.weight");
  EXPECT_EQ(s.entries.at("blk.0.ffn_gate.weight").counts[0], 2.0 * tokens);
}

TEST(MomentsCollector, ExpertsHaveTheirOwnWhereMemoryAllows) {
  const auto x = inputs();
  std::vector<std::int32_t> ids(tokens);
  for (std::size_t t = 0; t < ids.size(); ++t) ids[t] = static_cast<std::int32_t>(t % 5 == 0 ? 2 : 0);
  const expert_input in{"blk.1.ffn_down_exps.weight", x.data(), cols, tokens, cols, 0, ids.data(), 1, 4};
  serial_executor serial;
  const auto feed = [&](moments_collector& c) { EXPECT_TRUE(c.on_mul_mat_id(in)); };
  const auto own = collect(serial, {}, feed).entries.at("blk.1.ffn_down_exps.weight");
  EXPECT_EQ(own.counts, (std::vector<double>{240, 0, 60, 0}));
  const auto pooled = collect(serial, {1000}, feed).entries.at("blk.1.ffn_down_exps.weight");
  EXPECT_EQ(pooled.counts, std::vector<double>{300});
  EXPECT_NEAR(pooled.sums[0], own.sums[0] + own.sums[static_cast<std::size_t>(2 * imatrix::triangle(cols))],
              1e-3);
}

TEST(MomentsCollector, BadInputsNameTheTensor) {
  auto x = inputs();
  x[77] = std::numeric_limits<float>::infinity();
  serial_executor serial;
  moments_collector c({}, runtime::dispatcher::best().product(), serial);
  const auto r = c.on_mul_mat(dense("blk.0.attn_output.weight", x.data()));
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("blk.0.attn_output.weight"), std::string::npos);
}

}  // namespace
}  // namespace quantal::mla
