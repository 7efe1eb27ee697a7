#include "quantal/imatrix/io.hpp"

#include <gtest/gtest.h>

#include "support/temp_dir.hpp"

namespace quantal::imatrix {
namespace {

using test::read_file;
using test::temp_dir;
using test::write_file;

entry make(std::int64_t cols, std::int64_t slices, double seed, bool equal = false) {
  entry e(cols, slices);
  for (std::size_t i = 0; i < e.sums.size(); ++i) e.sums[i] = seed + 0.1 * static_cast<double>(i) + 1e-9;
  for (std::size_t i = 0; i < e.counts.size(); ++i)
    e.counts[i] = equal ? 1024 : 100 + static_cast<std::int64_t>(i);
  return e;
}

store sample(double seed) {
  store s;
  s.datasets = {"text-" + std::to_string(seed)};
  s.entries["blk.0.attn_output.weight"] = make(6, 1, seed);
  s.entries["blk.0.attn_k_b.weight"] = make(3, 4, seed, true);
  s.entries["blk.1.ffn_up_exps.weight"] = make(5, 3, seed);
  return s;
}

TEST(ImatrixGguf, ReloadIsExact) {
  temp_dir dir;
  const auto s = sample(1.0 / 3);
  ASSERT_TRUE(save_gguf(s, dir / "a.gguf"));
  const auto r = load(dir / "a.gguf");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_TRUE(*r == s);
  ASSERT_TRUE(save_gguf(*r, dir / "b.gguf"));
  EXPECT_EQ(read_file(dir / "a.gguf"), read_file(dir / "b.gguf"));
}

TEST(ImatrixGguf, OtherReadersSeeTheSpecifiedTensors) {
  temp_dir dir;
  ASSERT_TRUE(save_gguf(sample(2), dir / "a.gguf"));
  const auto r = gguf::reader::open(dir / "a.gguf");
  ASSERT_TRUE(r);
  EXPECT_EQ(r->find("blk.0.attn_k_b.weight.in_sum2")->ne[0], 12);
  EXPECT_EQ(r->find("blk.0.attn_k_b.weight.counts")->ne[1], 1);
  EXPECT_EQ(r->find("blk.1.ffn_up_exps.weight.in_sum2")->ne, (std::array<std::int64_t, 4>{5, 3, 1, 1}));
  EXPECT_EQ(r->find("blk.1.ffn_up_exps.weight.counts")->ne, (std::array<std::int64_t, 4>{1, 3, 1, 1}));
  for (std::size_t i = 1; i < r->tensors().size(); ++i)
    EXPECT_LT(r->tensors()[i - 1].name, r->tensors()[i].name);
}

TEST(ImatrixGguf, LoadsFilesWithoutTheExactKeys) {
  temp_dir dir;
  ASSERT_TRUE(save_gguf(sample(2), dir / "a.gguf"));
  const auto r = gguf::reader::open(dir / "a.gguf");
  gguf::metadata plain;
  for (const auto& [k, v] : r->meta().items())
    if (!k.starts_with("quantal.")) plain.set(k, v);
  auto w = gguf::writer::create(dir / "b.gguf", plain, r->tensors());
  for (const auto& t : r->tensors()) ASSERT_TRUE(w->append(*r->data(t)));
  ASSERT_TRUE(w->finish());
  const auto s = load(dir / "b.gguf");
  ASSERT_TRUE(s) << s.error().message;
  EXPECT_EQ(s->entries.at("blk.0.attn_k_b.weight").slices, 1);
  EXPECT_NEAR(s->entries.at("blk.0.attn_k_b.weight").sums[11], 2 + 1.1, 1e-6);
}

TEST(ImatrixGguf, ChangedTensorsContradictTheExactKeys) {
  temp_dir dir;
  ASSERT_TRUE(save_gguf(sample(2), dir / "a.gguf"));
  const auto r = gguf::reader::open(dir / "a.gguf");
  for (const float bad : {NAN, -1.0f, 77.0f}) {
    auto w = gguf::writer::create(dir / "b.gguf", r->meta(), r->tensors());
    for (const auto& t : r->tensors()) {
      const auto data = *r->data(t);
      std::vector<std::byte> bytes(data.begin(), data.end());
      if (t.name == "blk.0.attn_output.weight.in_sum2") std::memcpy(bytes.data(), &bad, sizeof bad);
      ASSERT_TRUE(w->append(bytes));
    }
    ASSERT_TRUE(w->finish());
    const auto s = load(dir / "b.gguf");
    ASSERT_FALSE(s);
    EXPECT_NE(s.error().message.find("blk.0.attn_output.weight"), std::string::npos) << s.error().message;
  }
}

TEST(ImatrixDat, RoundTripsMeans) {
  temp_dir dir;
  const auto s = sample(3);
  ASSERT_TRUE(save_dat(s, dir / "a.dat"));
  const auto r = load(dir / "a.dat");
  ASSERT_TRUE(r) << r.error().message;
  EXPECT_TRUE(r->approximate_counts);
  EXPECT_EQ(r->datasets, s.datasets);
  const auto& e = s.entries.at("blk.1.ffn_up_exps.weight");
  const auto& got = r->entries.at("blk.1.ffn_up_exps.weight");
  for (std::size_t i = 0; i < e.sums.size(); ++i)
    EXPECT_NEAR(got.sums[i] / static_cast<double>(got.counts[0]),
                e.sums[i] / static_cast<double>(e.counts[i / 5]), 1e-6);
}

TEST(ImatrixDat, PoolsHeadsForTwoDimensionalTensors) {
  temp_dir dir;
  const auto s = sample(3);
  ASSERT_TRUE(save_dat(s, dir / "a.dat", dat_heads::mean));
  const auto r = load(dir / "a.dat");
  ASSERT_TRUE(r) << r.error().message;
  const auto& e = s.entries.at("blk.0.attn_k_b.weight");
  const auto& got = r->entries.at("blk.0.attn_k_b.weight");
  ASSERT_EQ(got.sums.size(), 3u);
  for (std::size_t c = 0; c < 3; ++c) {
    const double mean = (e.sums[c] + e.sums[c + 3] + e.sums[c + 6] + e.sums[c + 9]) / (4 * 1024.0);
    EXPECT_NEAR(got.sums[c] / static_cast<double>(got.counts[0]), mean, 1e-9);
  }
  EXPECT_EQ(r->entries.at("blk.1.ffn_up_exps.weight").sums.size(), 15u);  // experts stay apart
}

TEST(ImatrixMerge, IsExactAndOrderIndependent) {
  auto ab = sample(1), ba = sample(2);
  ASSERT_TRUE(merge(ab, sample(2)));
  ASSERT_TRUE(merge(ba, sample(1)));
  EXPECT_EQ(ab.entries, ba.entries);
  EXPECT_EQ(ab.datasets.size(), 2u);
  EXPECT_EQ(ab.entries.at("blk.0.attn_k_b.weight").counts[2], 2048);
}

TEST(ImatrixMerge, ReplicatesCountsNeverSums) {
  store a, b;
  a.entries["w"] = make(3, 4, 1, true);
  b.entries["w"] = entry(12, 1);
  b.entries["w"].counts[0] = 7;
  ASSERT_TRUE(merge(a, b));
  EXPECT_EQ(a.entries["w"].slices, 4);
  EXPECT_EQ(a.entries["w"].counts[3], 1031);
  b.entries["w"] = entry(13, 1);
  const auto before = a;
  const auto r = merge(a, b);
  ASSERT_FALSE(r);
  EXPECT_NE(r.error().message.find("'w'"), std::string::npos);
  EXPECT_TRUE(a == before);
}

TEST(ImatrixMerge, OverflowIsAnError) {
  for (const bool of_counts : {false, true}) {
    store a = sample(1), b = sample(1);
    for (auto* s : {&a, &b}) {
      auto& e = s->entries["blk.0.attn_output.weight"];
      if (of_counts)
        e.counts[0] = std::numeric_limits<std::int64_t>::max() - 1;
      else
        e.sums[3] = std::numeric_limits<double>::max();
    }
    const auto before = a;
    const auto r = merge(a, b);
    ASSERT_FALSE(r);
    EXPECT_NE(r.error().message.find("'blk.0.attn_output.weight'"), std::string::npos);
    EXPECT_TRUE(a == before);
  }
}

TEST(ImatrixNames, AreCanonical) {
  EXPECT_EQ(canonical_name("blk.0.attn_k_b.weight (reshaped)"), "blk.0.attn_k_b.weight");
  EXPECT_EQ(canonical_name("CUDA0#blk.3.ffn_up.weight#0"), "blk.3.ffn_up.weight");
  EXPECT_EQ(canonical_name("blk.0.attn_v_b.weight (view) (cont)"), "blk.0.attn_v_b.weight");
  EXPECT_EQ(canonical_name("blk.0.attn_v_b.weight (resh"), "blk.0.attn_v_b.weight");
  EXPECT_EQ(canonical_name("blk.0.ffn_up.weight.3"), "blk.0.ffn_up.weight");
  EXPECT_EQ(canonical_name("output.weight"), "output.weight");
}

TEST(ImatrixDamage, TruncationsAndBitFlipsNeverCrash) {
  temp_dir dir;
  ASSERT_TRUE(save_dat(sample(1), dir / "a.dat"));
  ASSERT_TRUE(save_gguf(sample(1), dir / "a.gguf"));
  for (const auto* name : {"a.dat", "a.gguf"}) {
    const auto bytes = read_file(dir / name);
    const bool dat = name[2] == 'd';
    const std::size_t trailer = 8 + sample(1).datasets[0].size();
    for (std::size_t n = 0; n < bytes.size() - 32; ++n) {
      write_file(dir / "x", bytes.substr(0, n));
      const auto r = load(dir / "x");
      if (!(dat && n == bytes.size() - trailer)) {
        EXPECT_FALSE(r) << name << " " << n;
      }
    }
    for (std::size_t i = 0; i<bytes.size(); i += bytes.size()> 2000 ? 3 : 1) {
      auto damaged = bytes;
      damaged[i] = static_cast<char>(damaged[i] ^ (1 << (i % 8)));
      write_file(dir / "x", damaged);
      (void)load(dir / "x").ok();
    }
  }
}

TEST(ImatrixDamage, BadValuesAreRefusedOnSaveAndLoad) {
  temp_dir dir;
  auto s = sample(1);
  s.entries["blk.0.attn_output.weight"].sums[2] = NAN;
  EXPECT_FALSE(save_gguf(s, dir / "a.gguf"));
  EXPECT_FALSE(save_dat(s, dir / "a.dat"));
  EXPECT_EQ(dir.files(), 0u);
  EXPECT_FALSE(load(dir / "missing"));
  s = sample(1);
  s.entries["blk.0.attn_output.weight"].sums[2] = 1e39;  // beyond float32
  EXPECT_FALSE(save_gguf(s, dir / "a.gguf"));
  s.entries["blk.0.attn_output.weight"].counts[0] = 1;
  EXPECT_FALSE(save_dat(s, dir / "a.dat"));
  EXPECT_FALSE(save_gguf(store{}, dir / "a.gguf"));
  EXPECT_FALSE(save_dat(store{}, dir / "a.dat"));
  s = sample(1);
  s.entries[std::string(60, 'x')] = make(2, 1, 1);
  EXPECT_FALSE(save_gguf(s, dir / "a.gguf"));
  EXPECT_EQ(dir.files(), 0u);
  write_file(dir / "empty", "");
  EXPECT_FALSE(load(dir / "empty"));
}

}  // namespace
}  // namespace quantal::imatrix
