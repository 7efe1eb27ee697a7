// Gaps in the metadata: what is taken, and that it is said (mla.md).
#include "config.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "session.hpp"
#include "support/edited_model.hpp"
#include "support/paths.hpp"
#include "support/temp_dir.hpp"

namespace quantal::mla {
namespace {

const std::string v3 = test::data_file("/fixtures/fixture-v3-mainline-bf16.gguf");
const std::string v2 = test::data_file("/fixtures/fixture-v2lite-mainline-bf16.gguf");

class Gaps : public ::testing::Test {
 protected:
  result<config> read(const std::string& from, const test::model_edit& edit) {
    test::edit_model(from, dir / "m.gguf", edit);
    const auto file = gguf::reader::open(dir / "m.gguf");
    EXPECT_TRUE(file);
    return read_config(*file);
  }
  /// Without the key there is one warning, which names it.
  config without(const std::string& from, const std::string& key) {
    const auto c = read(from, test::without_key("deepseek2." + key));
    EXPECT_TRUE(c) << key << ": " << c.error().message;
    if (!c) return {};
    bool named = false;
    for (const auto& w : c->warnings)
      named |= w.find("'deepseek2." + key + "' is missing") != std::string::npos;
    EXPECT_TRUE(named) << key;
    return *c;
  }
  test::temp_dir dir;
};

TEST_F(Gaps, WholeFilesHaveNoWarnings) {
  for (const auto& path : {v3, v2}) {
    const auto c = read_config(*gguf::reader::open(path));
    ASSERT_TRUE(c);
    EXPECT_TRUE(c->warnings.empty()) << c->warnings[0];
  }
}

TEST_F(Gaps, GatingIsSoftmaxButForTheKnownModel) {
  const auto c = without(v3, "expert_gating_func");
  EXPECT_EQ(c.gate, gating::softmax);
  EXPECT_EQ(c.warnings.size(), 2u);  // the biases of the router contradict softmax
  EXPECT_EQ(without(v2, "expert_gating_func").gate, gating::softmax);
}

TEST_F(Gaps, TensorsDecideCounts) {
  EXPECT_EQ(without(v3, "leading_dense_block_count").dense_layers, 1);
  EXPECT_EQ(without(v3, "expert_shared_count").experts_shared, 1);
  EXPECT_EQ(without(v2, "expert_shared_count").experts_shared, 2);
  EXPECT_EQ(without(v3, "attention.q_lora_rank").q_rank, 64);
}

TEST_F(Gaps, DocumentedDefaults) {
  EXPECT_EQ(without(v3, "expert_weights_scale").weights_scale, 1);
  EXPECT_FALSE(without(v3, "expert_weights_norm").normalise_weights);
  EXPECT_EQ(without(v3, "expert_group_count").groups, 1);
  EXPECT_EQ(without(v3, "expert_group_used_count").groups_used, 4);
  EXPECT_EQ(without(v3, "attention.layer_norm_rms_epsilon").rms_epsilon, 1e-6);
  EXPECT_EQ(without(v3, "rope.scaling.original_context_length").scaling.original_context, 4096);
  EXPECT_EQ(without(v3, "rope.scaling.yarn_beta_fast").scaling.beta_fast, 32);
  EXPECT_EQ(without(v3, "rope.scaling.yarn_beta_slow").scaling.beta_slow, 1);
  EXPECT_EQ(without(v3, "rope.scaling.yarn_log_multiplier").scaling.log_multiplier, 0.1);
  EXPECT_EQ(without(v3, "rope.scaling.type").scaling.ext_factor, 0);
}

TEST_F(Gaps, WhatNothingCanStandForIsAnError) {
  for (const char* key :
       {"rope.scaling.factor", "rope.freq_base", "expert_used_count", "expert_feed_forward_length",
        "expert_count", "feed_forward_length", "attention.kv_lora_rank"}) {
    const auto c = read(v3, test::without_key(std::string("deepseek2.") + key));
    ASSERT_FALSE(c) << key;
    EXPECT_NE(c.error().message.find(key), std::string::npos) << c.error().message;
  }
}

TEST_F(Gaps, ContradictionsAndWrongTypes) {
  const auto refused = [&](const char* key, gguf::value v) {
    const auto c = read(v3, test::with_key(std::string("deepseek2.") + key, std::move(v)));
    ASSERT_FALSE(c) << key;
    EXPECT_NE(c.error().message.find(key), std::string::npos) << c.error().message;
  };
  refused("expert_shared_count", std::uint32_t{0});
  refused("expert_weights_norm", std::string("true"));
  refused("rope.scaling.type", std::uint32_t{2});
  refused("attention.layer_norm_rms_epsilon", std::nanf(""));
  const auto none = read(v3, test::with_key("deepseek2.rope.scaling.type", std::string("none")));
  ASSERT_TRUE(none);
  EXPECT_EQ(none->scaling.factor, 1);
  const auto vocabulary = read(v3, test::with_key("deepseek2.vocab_size", std::uint32_t{500}));
  ASSERT_TRUE(vocabulary);
  EXPECT_EQ(vocabulary->vocabulary, 512);
  EXPECT_EQ(vocabulary->warnings.size(), 1u);
}

TEST_F(Gaps, ValuesThatAreNotFiniteEndTheRun) {
  for (const std::string name :
       {"blk.0.attn_q_b.weight", "blk.1.ffn_up_exps.weight", "output.weight", "blk.2.attn_v_b.weight"}) {
    test::edit_model(v3, dir / "nan.gguf", test::nan_in(name));
    const auto m = load_model(dir / "nan.gguf");
    ASSERT_TRUE(m) << m.error().message;
    serial_executor serial;
    session s(*m, runtime::dispatcher::best(), serial, 64, {});
    std::vector<std::int32_t> tokens;
    for (int i = 0; i < 64; ++i) tokens.push_back(i * 7 % 500 + 1);
    std::vector<float> logits(64 * 512);
    const auto r = s.evaluate(tokens, logits);
    ASSERT_FALSE(r) << name;
    EXPECT_NE(r.error().message.find("tensor '" + name + "'"), std::string::npos) << r.error().message;
    EXPECT_NE(r.error().message.find(" at token "), std::string::npos) << r.error().message;
  }
}

}  // namespace
}  // namespace quantal::mla
