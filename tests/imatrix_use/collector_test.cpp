// One pass records every entry, the same in every attention mode and for both tensor layouts.
#include "collector.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "coverage.hpp"
#include "quantal/imatrix/io.hpp"
#include "session.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace quantal::mla {
namespace {

const std::string fixtures = test::data_file("/fixtures/fixture-");

std::vector<std::int32_t> some_tokens(int n, int seed) {
  std::vector<std::int32_t> t;
  for (int i = 0; i < n; ++i) t.push_back((i * 37 + seed * 101) % 500);
  return t;
}

void feed(collector& c, const model& m, run_options how, const std::vector<std::int32_t>& tokens,
          int workers = 2, std::vector<float>* logits = nullptr) {
  thread_pool pool(workers);
  session s(m, runtime::dispatcher::best(), pool, static_cast<std::int64_t>(tokens.size()), how);
  if (logits) logits->resize(tokens.size() * static_cast<std::size_t>(m.hyper.vocabulary));
  const auto r = s.evaluate(tokens, logits ? std::span<float>(*logits) : std::span<float>(), 0, &c);
  ASSERT_TRUE(r) << r.error().message;
}

imatrix::store collect(const std::string& file, run_options how, int workers = 2) {
  const auto m = load_model(fixtures + file);
  EXPECT_TRUE(m);
  collector c;
  feed(c, *m, how, some_tokens(160, 1), workers);
  return c.statistics();
}

void expect_close(const imatrix::store& a, const imatrix::store& b, const std::string& what) {
  ASSERT_EQ(a.entries.size(), b.entries.size()) << what;
  for (const auto& [name, e] : a.entries) {
    ASSERT_TRUE(b.entries.contains(name)) << what << " " << name;
    const auto& o = b.entries.at(name);
    EXPECT_EQ(e.counts, o.counts) << what << " " << name;
    ASSERT_EQ(e.sums.size(), o.sums.size());
    double diff = 0, norm = 0;
    for (std::size_t i = 0; i < e.sums.size(); ++i)
      diff += std::pow(e.sums[i] - o.sums[i], 2), norm += e.sums[i] * e.sums[i];
    EXPECT_LT(std::sqrt(diff / norm), 1e-4) << what << " " << name;
  }
}

TEST(Collector, SameEntriesInEveryModeAndLayout) {
  for (const std::string name : {"v3", "v2lite"}) {
    const auto want = collect(name + "-mainline-bf16.gguf", {1, false});
    EXPECT_EQ(want.entries.at("blk.0.attn_k_b.weight").slices, 4);
    EXPECT_EQ(want.entries.at("blk.0.attn_v_b.weight").slices, 4);
    EXPECT_TRUE(want.entries.contains("blk.0.attn_kv_b.weight"));
    for (const std::string layout : {"-mainline-bf16.gguf", "-ik-bf16.gguf"})
      for (const int mla : {0, 1, 2, 3})
        for (const bool flash : {false, true})
          expect_close(want, collect(name + layout, {mla, flash}),
                       name + layout + " " + std::to_string(mla) + (flash ? " fa" : ""));
  }
}

TEST(Collector, NothingIsMissingForEitherLayout) {
  for (const std::string layout : {"v3-mainline", "v3-ik"}) {
    const auto s = collect(layout + "-bf16.gguf", {1, false});
    const auto file = gguf::reader::open(fixtures + layout + "-bf16.gguf");
    const auto rows = check_coverage(s, *file);
    ASSERT_TRUE(rows) << rows.error().message;
    for (const auto& r : *rows) EXPECT_FALSE(r.gap()) << layout << " " << r.name;
  }
}

TEST(Collector, ThreadsDoNotMatter) {
  EXPECT_TRUE(collect("v3-ik-bf16.gguf", {1, false}, 1) == collect("v3-ik-bf16.gguf", {1, false}, 3));
}

TEST(Collector, MergingAndResumingAreExact) {
  const auto m = load_model(fixtures + "v3-ik-bf16.gguf");
  ASSERT_TRUE(m);
  test::temp_dir dir;
  collector first, second, both, resumed;
  feed(first, *m, {}, some_tokens(64, 1));
  feed(second, *m, {}, some_tokens(64, 2));
  feed(both, *m, {}, some_tokens(64, 1));
  ASSERT_TRUE(imatrix::save_gguf(both.statistics(), dir / "half.gguf"));
  const auto before = both.statistics();
  EXPECT_TRUE(before == first.statistics()) << "saving changed live statistics";
  feed(both, *m, {}, some_tokens(64, 2));
  resumed.resume(*imatrix::load(dir / "half.gguf"));
  feed(resumed, *m, {}, some_tokens(64, 2));
  EXPECT_TRUE(resumed.statistics() == both.statistics());
  auto merged = first.statistics();
  ASSERT_TRUE(imatrix::merge(merged, second.statistics()));
  expect_close(merged, both.statistics(), "merged");
}

TEST(Collector, AllExpertsLeaveTheOutputAlone) {
  const auto m = load_model(fixtures + "v3-ik-bf16.gguf");
  ASSERT_TRUE(m);
  collector routed, all({.all_experts = true});
  std::vector<float> a, b;
  feed(routed, *m, {}, some_tokens(20, 3), 2, &a);
  feed(all, *m, {}, some_tokens(20, 3), 2, &b);
  EXPECT_EQ(a, b);
  for (const auto c : all.statistics().entries.at("blk.1.ffn_down_exps.weight").counts) EXPECT_EQ(c, 20);
}

TEST(Collector, NamesTheTensorWithBadActivations) {
  collector c;
  const float x[4] = {1, NAN, 2, 3};
  const auto r = c.on_mul_mat({"blk.0.attn_output.weight", x, 4, 1, 4});
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("blk.0.attn_output.weight"), std::string::npos);
  const std::int32_t id = 7;
  EXPECT_FALSE(c.on_mul_mat_id({"blk.1.ffn_up_exps.weight", x, 4, 1, 4, 0, &id, 1, 4}));
}

TEST(Collector, OutputOnlyOnRequest) {
  const float x[2] = {1, 2};
  collector without, with({.output = true});
  ASSERT_TRUE(without.on_mul_mat({"output.weight", x, 2, 1, 2}));
  ASSERT_TRUE(with.on_mul_mat({"output.weight", x, 2, 1, 2}));
  EXPECT_TRUE(without.statistics().entries.empty());
  EXPECT_EQ(with.statistics().entries.at("output.weight").sums[1], 4.0);
}

}  // namespace
}  // namespace quantal::mla
