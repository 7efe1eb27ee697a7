// Files of second moments: reloading is exact, merging adds up, damage is named.
#include "quantal/imatrix/moments.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "support/temp_dir.hpp"

namespace quantal::imatrix {
namespace {

using test::read_file;
using test::temp_dir;

moments make_moments(std::int64_t cols, std::int64_t slices, float seed) {
  moments m(cols, slices);
  for (auto* part : {&m.sums, &m.mean, &m.held_out})
    for (auto& v : *part) v = seed += 0.25f;
  for (auto& c : m.counts) c = 100;
  for (auto& c : m.held_counts) c = 10;
  return m;
}

moments_store random_inputs(float seed) {
  moments_store s;
  s.datasets = {"text"};
  s.entries["blk.0.attn_output.weight"] = make_moments(6, 1, seed);
  s.entries["blk.0.ffn_gate_exps.weight"] = make_moments(5, 3, seed);
  s.same["blk.0.ffn_up_exps.weight"] = "blk.0.ffn_gate_exps.weight";
  return s;
}

/// A file with some tensors and keys changed.
std::string damaged(const std::function<void(gguf::metadata&, std::vector<gguf::tensor_info>&)>& edit,
                    float value = 1) {
  temp_dir dir;
  EXPECT_TRUE(save_moments(random_inputs(1), dir / "good.gguf"));
  const auto r = gguf::reader::open(dir / "good.gguf");
  auto meta = r->meta();
  auto tensors = r->tensors();
  edit(meta, tensors);
  auto w = gguf::writer::create(dir / "bad.gguf", meta, tensors);
  EXPECT_TRUE(w);
  for (const auto& t : w->tensors()) {
    std::vector<float> v((t.nbytes + sizeof(float) - 1) / sizeof(float), value);
    EXPECT_TRUE(w->append(std::as_bytes(std::span(v)).first(t.nbytes)));
  }
  EXPECT_TRUE(w->finish());
  const auto file = moments_file::open(dir / "bad.gguf");
  if (!file) return file.error().message;
  const auto all = file->read_all();
  return all ? "" : all.error().message;
}

void expect_error(const std::string& message, const std::string& part) {
  EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_NE(message.find("bad.gguf"), std::string::npos) << message;
}

TEST(Moments, ReloadIsExact) {
  temp_dir dir;
  const auto s = random_inputs(1.0f / 3);
  ASSERT_TRUE(save_moments(s, dir / "a.gguf"));
  const auto file = moments_file::open(dir / "a.gguf");
  ASSERT_TRUE(file) << file.error().message;
  const auto all = file->read_all();
  ASSERT_TRUE(all) << all.error().message;
  EXPECT_TRUE(*all == s);
  ASSERT_TRUE(save_moments(*all, dir / "b.gguf"));
  EXPECT_EQ(read_file(dir / "a.gguf"), read_file(dir / "b.gguf"));
  const auto shared = file->read("blk.0.ffn_up_exps.weight");
  ASSERT_TRUE(shared);
  EXPECT_TRUE(*shared == s.entries.at("blk.0.ffn_gate_exps.weight"));
  EXPECT_FALSE(file->read("blk.9.attn_output.weight"));
  EXPECT_EQ(*file->own_name("blk.0.ffn_up_exps.weight"), "blk.0.ffn_gate_exps.weight");
  const auto counts = file->counts("blk.0.ffn_up_exps.weight");
  ASSERT_TRUE(counts);
  EXPECT_EQ(counts->cols, 5);
  EXPECT_EQ(counts->used, shared->counts);
  EXPECT_EQ(counts->held_out, shared->held_counts);
  EXPECT_FALSE(file->counts("blk.9.attn_output.weight"));
}

TEST(Moments, MatrixIsSymmetric) {
  const auto m = make_moments(5, 3, 0);
  const auto a = m.matrix(2);
  std::size_t at = 2 * 15;
  for (std::size_t i = 0; i < 5; ++i)
    for (std::size_t j = 0; j <= i; ++j, ++at) {
      EXPECT_EQ(a[i * 5 + j], m.sums[at]);
      EXPECT_EQ(a[j * 5 + i], m.sums[at]);
    }
}

TEST(Moments, MergingAddsUp) {
  auto a = random_inputs(1);
  const auto b = random_inputs(2);
  ASSERT_TRUE(merge(a, b));
  const auto name = "blk.0.ffn_gate_exps.weight";
  const auto &m = a.entries.at(name), &x = b.entries.at(name);
  EXPECT_EQ(m.counts[1], 200);
  EXPECT_EQ(m.held_counts[1], 20);
  for (std::size_t i = 0; i < m.sums.size(); ++i) {
    EXPECT_EQ(m.sums[i], x.sums[i] + random_inputs(1).entries.at(name).sums[i]);
    EXPECT_EQ(m.held_out[i], x.held_out[i] + random_inputs(1).entries.at(name).held_out[i]);
  }
  for (std::size_t i = 0; i < m.mean.size(); ++i) EXPECT_FLOAT_EQ(m.mean[i], x.mean[i] - 0.5f);
  EXPECT_EQ(a.datasets.size(), 2u);
}

TEST(Moments, MergingRefusesWhatDoesNotFit) {
  auto a = random_inputs(1), b = a;
  const auto before = a;
  b.entries["blk.0.attn_output.weight"] = make_moments(8, 1, 0);
  const auto r = merge(a, b);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("blk.0.attn_output.weight"), std::string::npos);
  b = before;
  b.same.clear(), b.entries["blk.0.ffn_up_exps.weight"] = make_moments(5, 3, 0);
  EXPECT_FALSE(merge(a, b));
  EXPECT_FALSE(merge(b, a));
  EXPECT_TRUE(a == before);
}

TEST(Moments, DamageIsNamed) {
  expect_error(damaged([](auto& meta, auto&) { meta.set("general.type", std::string("model")); }),
               "general.type");
  expect_error(damaged([](auto&, auto& t) { t.erase(t.begin() + 1); }),
               "'blk.0.attn_output.weight': have no mean");
  expect_error(damaged([](auto&, auto& t) { t[2].ne[1] = 7; }), "counts does not fit");
  expect_error(damaged([](auto&, auto& t) { t[3].type = f16::gguf_id; }), "held_out is not f32");
  expect_error(damaged([](auto&, auto& t) { t.clear(); }), "holds no moments");
  expect_error(damaged([](auto& meta, auto&) { meta.set("quantal.moments.same.a", std::string("b")); }),
               "'a': refers to a tensor that has no moments");
  expect_error(damaged([](auto&, auto&) {}, std::numeric_limits<float>::quiet_NaN()), "not finite");
  expect_error(damaged([](auto&, auto&) {}, -1.0f), "negative");
}

}  // namespace
}  // namespace quantal::imatrix
