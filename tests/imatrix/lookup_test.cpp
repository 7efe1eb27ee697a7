#include <gtest/gtest.h>

#include "quantal/gguf/writer.hpp"
#include "quantal/imatrix/model.hpp"
#include "support/temp_dir.hpp"

namespace quantal::imatrix {
namespace {

entry constant(std::int64_t cols, std::vector<std::pair<std::int64_t, double>> slices) {
  entry e(cols, static_cast<std::int64_t>(slices.size()));
  for (std::size_t s = 0; s < slices.size(); ++s) {
    e.counts[s] = slices[s].first;
    for (std::int64_t c = 0; c < cols; ++c)
      e.sums[s * static_cast<std::size_t>(cols) + static_cast<std::size_t>(c)] =
          static_cast<double>(slices[s].first) * slices[s].second * static_cast<double>(c + 1);
  }
  return e;
}

const model_shape model{.heads = 2, .experts = 3, .nope = 4, .value = 4};

TEST(Lookup, OwnEntry) {
  store s;
  s.entries["blk.0.attn_output.weight"] = constant(4, {{10, 2.0}});
  const auto r = resolve(s, {"blk.0.attn_output.weight", 4, 7, 1}, model);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->from, source::own);
  EXPECT_FLOAT_EQ(r->row(0, 6, 7)[3], 8.0f);
}

TEST(Lookup, BothLayoutsOfTheUpProjections) {
  store s;
  s.entries["blk.0.attn_k_b.weight"] = constant(4, {{10, 1.0}, {10, 5.0}});
  const auto three = resolve(s, {"blk.0.attn_k_b.weight", 4, 6, 2}, model),
             two = resolve(s, {"blk.0.attn_k_b.weight", 4, 12, 1}, model);
  ASSERT_TRUE(three);
  ASSERT_TRUE(two);
  EXPECT_EQ(three->from, source::own);
  EXPECT_EQ(two->from, source::layout);
  for (std::int64_t row = 0; row < 12; ++row)
    EXPECT_FLOAT_EQ(two->row(0, row, 12)[1], three->row(row / 6, row % 6, 6)[1]) << row;
  EXPECT_FLOAT_EQ(two->row(0, 6, 12)[0], 5.0f);
  // The same as one vector with a single count, as other programs store it.
  entry joined = s.entries["blk.0.attn_k_b.weight"];
  joined.cols = 8, joined.slices = 1, joined.counts = {10};
  s.entries["blk.0.attn_k_b.weight"] = joined;
  const auto again = resolve(s, {"blk.0.attn_k_b.weight", 4, 6, 2}, model);
  ASSERT_TRUE(again);
  EXPECT_FLOAT_EQ(again->row(1, 0, 6)[0], 5.0f);
}

TEST(Lookup, Aliases) {
  store s;
  s.entries["blk.0.ffn_up_shexp.weight"] = constant(4, {{10, 2.0}});
  s.entries["blk.0.attn_kv_a_mqa.weight"] = constant(4, {{10, 3.0}});
  EXPECT_EQ(resolve(s, {"blk.0.ffn_gate_shexp.weight", 4, 3, 1}, model)->from, source::alias);
  EXPECT_EQ(resolve(s, {"blk.0.attn_q_a.weight", 4, 3, 1}, model)->from, source::alias);
  EXPECT_EQ(resolve(s, {"blk.0.attn_q.weight", 4, 3, 1}, model)->detail, "blk.0.attn_kv_a_mqa.weight");
  EXPECT_EQ(resolve(s, {"blk.1.attn_q.weight", 4, 3, 1}, model)->from, source::none);
  EXPECT_EQ(resolve(s, {"blk.0.attn_q.weight", 4, 3, 1}, model)->row(0, 0, 3)[0], 3.0f);
}

TEST(Lookup, ProxiesBetweenLatentTensors) {
  store s;
  s.entries["blk.0.attn_kv_b.weight"] = constant(4, {{10, 2.0}});
  EXPECT_EQ(resolve(s, {"blk.0.attn_v_b.weight", 4, 3, 2}, model)->from, source::proxy);
  s.entries.clear();
  s.entries["blk.0.attn_v_b.weight"] = constant(4, {{10, 2.0}, {10, 4.0}});
  const auto r = resolve(s, {"blk.0.attn_kv_b.weight", 4, 16, 1}, model);
  EXPECT_EQ(r->from, source::proxy);
  EXPECT_FLOAT_EQ(r->row(0, 15, 16)[0], 3.0f);
}

TEST(Lookup, KeyProjectionFromTheQueryProjection) {
  // Two heads of 3 + 1 query rows over 2 inputs; row r of attn_q_b holds (r, 1).
  test::temp_dir dir;
  gguf::metadata meta;
  meta.set("general.architecture", std::string("deepseek2"));
  meta.set("deepseek2.attention.head_count", std::uint32_t{2});
  std::vector<gguf::tensor_info> tensors(2);
  tensors[0].name = "blk.0.attn_q_b.weight", tensors[0].ne = {2, 8, 1, 1};
  tensors[1].name = "blk.0.attn_k_b.weight", tensors[1].ne = {3, 5, 2, 1};
  auto w = gguf::writer::create(dir / "m.gguf", meta, tensors);
  ASSERT_TRUE(w);
  std::vector<float> values;
  for (int r = 0; r < 8; ++r) values.push_back(static_cast<float>(r)), values.push_back(1.0f);
  values.resize(values.size() + 30);
  ASSERT_TRUE(w->append(std::as_bytes(std::span(values))));
  ASSERT_TRUE(w->finish());
  const auto file = gguf::reader::open(dir / "m.gguf");
  ASSERT_TRUE(file) << file.error().message;
  const auto shape = shape_of(file->meta());
  const auto& k_b = *file->find("blk.0.attn_k_b.weight");
  store s;
  EXPECT_EQ(resolve(s, *file, k_b, shape)->from, source::none);
  s.entries["blk.0.attn_q_b.weight"] = constant(2, {{10, 1.5}});  // weights 1.5 and 3
  const auto r = resolve(s, *file, k_b, shape);
  ASSERT_TRUE(r);
  EXPECT_EQ(r->from, source::proxy);
  EXPECT_EQ(r->vectors, 2);
  for (int head = 0; head < 2; ++head)
    for (int n = 0; n < 3; ++n) {
      const int row = head * 4 + n;
      EXPECT_FLOAT_EQ(r->row(head, 4, 5)[n], 1.5f * static_cast<float>(row * row) + 3.0f);
    }
  s.entries["blk.0.attn_k_b.weight"] = constant(3, {{10, 1.0}, {10, 2.0}});
  EXPECT_EQ(resolve(s, *file, k_b, shape)->from, source::own);
}

TEST(Lookup, UnderSeenExpertsShrinkTowardThePool) {
  store s;
  s.entries["blk.0.ffn_up_exps.weight"] = constant(4, {{1000, 2.0}, {0, 0.0}, {1, 50.0}});
  const auto r = resolve(s, {"blk.0.ffn_up_exps.weight", 4, 5, 3}, model, {.shrinkage = 100});
  ASSERT_TRUE(r);
  EXPECT_EQ(r->unseen(), 1);
  const double pool = (2000.0 + 50.0) / 1001.0;
  EXPECT_NEAR(r->row(1, 0, 5)[0], pool, 1e-5);
  EXPECT_NEAR(r->row(2, 0, 5)[0], (50 + 100 * pool) / 101, 1e-4);
  EXPECT_NEAR(r->row(0, 0, 5)[0], 2.0, 0.01);
}

TEST(Lookup, UnderSeenDownExpertsShrinkTowardEqualWeights) {
  store s;
  s.entries["blk.0.ffn_down_exps.weight"] = constant(4, {{1000, 2.0}, {0, 0.0}, {1, 1.0}});
  const auto r = resolve(s, {"blk.0.ffn_down_exps.weight", 4, 5, 3}, model, {.shrinkage = 100});
  ASSERT_TRUE(r);
  EXPECT_EQ(r->row(1, 0, 5)[0], r->row(1, 0, 5)[3]);
  EXPECT_NEAR(r->row(2, 0, 5)[3] / r->row(2, 0, 5)[0], 1.0, 0.05);
  EXPECT_NEAR(r->row(0, 0, 5)[3] / r->row(0, 0, 5)[0], 4.0, 0.7);
}

TEST(Lookup, WrongShapesAreErrorsThatNameBoth) {
  store s;
  s.entries["blk.0.attn_output.weight"] = constant(4, {{10, 2.0}});
  const auto r = resolve(s, {"blk.0.attn_output.weight", 8, 7, 1}, model);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("[8, 7, 1]"), std::string::npos);
  s.entries["blk.0.attn_output.weight"] = constant(4, {{10, 2.0}, {10, 1.0}, {3, 1.0}, {1, 1.0}, {1, 1.0}});
  EXPECT_FALSE(resolve(s, {"blk.0.attn_output.weight", 4, 10, 1}, model));
}

}  // namespace
}  // namespace quantal::imatrix
