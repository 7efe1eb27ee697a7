// Families with plain attention: where every tensor and key of a checkpoint ends up, and what is refused.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "converting.hpp"
#include "family_checkpoint.hpp"
#include "hf_config.hpp"
#include "support/paths.hpp"

namespace quantal::test {
namespace {

using at_checkpoint = std::function<float(std::int64_t row, std::int64_t col)>;

class Families : public converting {
 protected:
  void open(const fake_checkpoint& c, const std::string& type = "") {
    const auto done = convert(c, "out.gguf", type);
    ASSERT_TRUE(done) << done.error().message;
    auto r = gguf::reader::open(dir / "out.gguf");
    ASSERT_TRUE(r) << r.error().message;
    got.emplace(std::move(*r));
  }
  std::vector<float> values(const std::string& name) {
    const auto* t = got->find(name);
    EXPECT_TRUE(t) << name;
    if (!t) return {};
    const auto bytes = got->data(*t);
    const std::int64_t rows = t->rows() * t->slices();
    const auto row = bytes->size() / static_cast<std::size_t>(rows);
    std::vector<float> out(static_cast<std::size_t>(t->elements()));
    for (std::int64_t i = 0; i < rows; ++i)
      EXPECT_TRUE(dequantize_row(t->type, bytes->data() + static_cast<std::size_t>(i) * row,
                                 out.data() + i * t->cols(), t->cols()) == status::ok);
    return out;
  }
  /// The tensor has these extents and, row by row, these values.
  void expect_values(const std::string& name, std::array<std::int64_t, 3> ne, const at_checkpoint& want) {
    const auto* t = got->find(name);
    ASSERT_TRUE(t) << name;
    EXPECT_EQ(t->ne, (std::array<std::int64_t, 4>{ne[0], ne[1], ne[2], 1})) << name;
    const auto v = values(name);
    ASSERT_EQ(static_cast<std::int64_t>(v.size()), ne[0] * ne[1] * ne[2]) << name;
    for (std::int64_t i = 0; i < ne[0] * ne[1] * ne[2]; ++i)
      ASSERT_EQ(v[static_cast<std::size_t>(i)], want(i / ne[0], i % ne[0])) << name << " " << i;
  }
  /// The stored tensor, as it is.
  void expect_same(family_checkpoint& c, const std::string& name, const std::string& stored) {
    const auto& shape = c.at(stored).shape;
    const std::int64_t cols = shape.back(), rows = shape.size() > 1 ? shape[0] : 1;
    expect_values(name, {cols, rows, 1},
                  [&](std::int64_t r, std::int64_t k) { return c.at(stored, r * cols + k); });
  }
  /// Rows 2i and 2i + 1 of a head are rows i and i + 16 of the stored one.
  static std::int64_t turned(std::int64_t row) { return row / 32 * 32 + row % 2 * 16 + row % 32 / 2; }
  void expect_turned(family_checkpoint& c, const std::string& name, const std::string& stored) {
    const auto& shape = c.at(stored).shape;
    if (shape.size() == 1)
      return expect_values(name, {shape[0], 1, 1},
                           [&](std::int64_t, std::int64_t k) { return c.at(stored, turned(k)); });
    expect_values(name, {shape[1], shape[0], 1},
                  [&](std::int64_t r, std::int64_t k) { return c.at(stored, turned(r) * shape[1] + k); });
  }

  std::int64_t integer(const std::string& key) {
    const auto n = got->meta().integer(key);
    return n ? *n : -1;
  }
  double number(const std::string& key) {
    const auto x = got->meta().number(key);
    return x ? *x : -1;
  }
  std::string string(const std::string& key) {
    const auto s = got->meta().string(key);
    return s ? std::string(*s) : "none";
  }

  std::optional<gguf::reader> got;
};

TEST_F(Families, LlamaTurnsItsRotaryPairs) {
  auto c = llama();
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(got->tensors().size(), 3u + 2 * 9);
  expect_same(c, "token_embd.weight", "model.embed_tokens.weight");
  expect_same(c, "output.weight", "lm_head.weight");
  expect_same(c, "output_norm.weight", "model.norm.weight");
  expect_turned(c, "blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight");
  expect_turned(c, "blk.1.attn_k.weight", "model.layers.1.self_attn.k_proj.weight");
  expect_same(c, "blk.1.attn_v.weight", "model.layers.1.self_attn.v_proj.weight");
  expect_same(c, "blk.1.attn_output.weight", "model.layers.1.self_attn.o_proj.weight");
  expect_same(c, "blk.1.attn_norm.weight", "model.layers.1.input_layernorm.weight");
  expect_same(c, "blk.1.ffn_norm.weight", "model.layers.1.post_attention_layernorm.weight");
  expect_same(c, "blk.1.ffn_gate.weight", "model.layers.1.mlp.gate_proj.weight");
  expect_same(c, "blk.1.ffn_up.weight", "model.layers.1.mlp.up_proj.weight");
  expect_same(c, "blk.1.ffn_down.weight", "model.layers.1.mlp.down_proj.weight");
  EXPECT_EQ(string("general.architecture"), "llama");
  for (const auto& [key, value] : std::map<std::string, std::int64_t>{{"block_count", 2},
                                                                      {"context_length", 4096},
                                                                      {"embedding_length", 64},
                                                                      {"feed_forward_length", 96},
                                                                      {"attention.head_count", 4},
                                                                      {"attention.head_count_kv", 2},
                                                                      {"attention.key_length", 32},
                                                                      {"attention.value_length", 32},
                                                                      {"rope.dimension_count", 32},
                                                                      {"vocab_size", 40}})
    EXPECT_EQ(integer("llama." + key), value) << key;
  EXPECT_EQ(number("llama.rope.freq_base"), 10000);
  EXPECT_NEAR(number("llama.attention.layer_norm_rms_epsilon"), 1e-5, 1e-12);
}

TEST_F(Families, BiasesOfLlama) {
  auto c = llama("qkvo");
  c.config["attention_bias"] = true;
  ASSERT_NO_FATAL_FAILURE(open(c));
  expect_turned(c, "blk.0.attn_q.bias", "model.layers.0.self_attn.q_proj.bias");
  expect_turned(c, "blk.0.attn_k.bias", "model.layers.0.self_attn.k_proj.bias");
  expect_same(c, "blk.0.attn_v.bias", "model.layers.0.self_attn.v_proj.bias");
  expect_same(c, "blk.0.attn_output.bias", "model.layers.0.self_attn.o_proj.bias");
  c.config["attention_bias"] = false;
  expect_failure(c, {"_proj.bias", "no place in a llama model"});
  auto none = llama();
  none.config["mlp_bias"] = true;
  expect_failure(none, {"model.layers.0.mlp.gate_proj.bias", "is missing"});
}

TEST_F(Families, ScaledRotaryPositions) {
  auto c = llama();
  c.config["rope_scaling"] = {{"type", "linear"}, {"factor", 4}};
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(string("llama.rope.scaling.type"), "linear");
  EXPECT_EQ(number("llama.rope.scaling.factor"), 4);
  c.config["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 8}, {"original_max_position_embeddings", 512}, {"beta_fast", 24}};
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(string("llama.rope.scaling.type"), "yarn");
  EXPECT_EQ(integer("llama.rope.scaling.original_context_length"), 512);
  EXPECT_EQ(number("llama.rope.scaling.yarn_beta_fast"), 24);
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8},
                       {"low_freq_factor", 1},
                       {"high_freq_factor", 4},
                       {"original_max_position_embeddings", 1024}};
  c.config["rope_scaling"] = llama3;
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(string("llama.rope.scaling.type"), "none");
  const auto f = values("rope_freqs.weight");
  ASSERT_EQ(f.size(), 16u);
  for (std::size_t i = 0; i < f.size(); ++i) {
    const double wave = 2 * 3.14159265358979 * std::pow(10000.0, static_cast<double>(i) / 16);
    const double share = std::clamp((1024 / wave - 1) / 3, 0.0, 1.0);
    EXPECT_NEAR(f[i], 1 / ((1 - share) / 8 + share), 1e-5) << i;
  }
  EXPECT_EQ(f.front(), 1);
  EXPECT_EQ(f.back(), 8);
  const auto refused = [&](const char* key, const json& value, const std::string& part) {
    auto bad = llama3;
    bad[key] = value;
    c.config["rope_scaling"] = bad;
    expect_failure(c, {"config.json", part});
  };
  refused("high_freq_factor", 1, "high_freq_factor");
  refused("factor", nullptr, "factor");
  refused("rope_type", "longrope", "longrope");
  c.config["rope_scaling"] = 3;
  expect_failure(c, {"rope_scaling"});
}

TEST_F(Families, RotaryFactorsNeedATensor) {
  const json llama3 = {{"rope_type", "llama3"},
                       {"factor", 8},
                       {"low_freq_factor", 1},
                       {"high_freq_factor", 4},
                       {"original_max_position_embeddings", 1024}};
  for (auto c : {qwen(2, false), qwen(3, true), gemma(), gpt_oss(false)}) {
    c.config["rope_scaling"] = llama3;
    expect_failure(c, {"config.json: rope scaling", "'llama3' is not supported, only linear and yarn"});
  }
  auto c = mixtral();
  c.config["rope_scaling"] = llama3;
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(values("rope_freqs.weight").size(), 16u);
}

TEST_F(Families, BothNamesOfRotaryScalingSayTheSame) {
  auto c = llama();
  const json linear = {{"rope_type", "linear"}, {"type", "default"}, {"factor", 4}};
  c.config["rope_scaling"] = c.config["rope_parameters"] = linear;
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(string("llama.rope.scaling.type"), "linear");
  c.config["rope_parameters"] = {{"rope_type", "default"}};
  expect_failure(c, {"config.json", "'rope_scaling'", "'rope_parameters'"});
  c.config["rope_scaling"] = nullptr;
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(string("llama.rope.scaling.type"), "none");
  c.config["rope_parameters"] = 3;
  expect_failure(c, {"'rope_parameters' is no object"});
}

TEST_F(Families, MixtralStacksItsExperts) {
  auto c = mixtral();
  ASSERT_NO_FATAL_FAILURE(open(c));
  const std::map<std::string, std::string> names = {{"gate", "w1"}, {"down", "w2"}, {"up", "w3"}};
  for (const auto& [out, stored] : names) {
    const bool down = out == "down";
    const std::int64_t rows = down ? 64 : 96, cols = down ? 96 : 64;
    expect_values("blk.1.ffn_" + out + "_exps.weight", {cols, rows, 4},
                  [&, &name = stored](std::int64_t r, std::int64_t k) {
                    return c.at("model.layers.1.block_sparse_moe.experts." + std::to_string(r / rows) + "." +
                                    name + ".weight",
                                r % rows * cols + k);
                  });
  }
  expect_same(c, "blk.1.ffn_gate_inp.weight", "model.layers.1.block_sparse_moe.gate.weight");
  EXPECT_EQ(got->find("blk.1.ffn_gate_inp.weight")->type, f32::gguf_id);
  EXPECT_EQ(integer("llama.expert_count"), 4);
  EXPECT_EQ(integer("llama.expert_used_count"), 2);
  c.config["num_experts_per_tok"] = 5;
  expect_failure(c, {"num_experts_per_tok"});
}

TEST_F(Families, QwenKeepsItsPairs) {
  auto two = qwen(2, false);
  ASSERT_NO_FATAL_FAILURE(open(two));
  EXPECT_EQ(string("general.architecture"), "qwen2");
  expect_same(two, "blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight");
  expect_same(two, "blk.1.attn_k.bias", "model.layers.1.self_attn.k_proj.bias");
  EXPECT_FALSE(got->meta().contains("qwen2.attention.key_length"));
  auto three = qwen(3, false);
  ASSERT_NO_FATAL_FAILURE(open(three));
  EXPECT_EQ(string("general.architecture"), "qwen3");
  expect_same(three, "blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight");
  expect_same(three, "blk.1.attn_q_norm.weight", "model.layers.1.self_attn.q_norm.weight");
  expect_same(three, "blk.1.attn_k_norm.weight", "model.layers.1.self_attn.k_norm.weight");
  EXPECT_EQ(integer("qwen3.attention.key_length"), 32);
}

TEST_F(Families, QwenWithExperts) {
  auto two = qwen(2, true);
  ASSERT_NO_FATAL_FAILURE(open(two));
  EXPECT_EQ(string("general.architecture"), "qwen2moe");
  EXPECT_EQ(integer("qwen2moe.expert_shared_feed_forward_length"), 96);
  EXPECT_EQ(integer("qwen2moe.expert_feed_forward_length"), 32);
  expect_same(two, "blk.0.ffn_gate_inp_shexp.weight", "model.layers.0.mlp.shared_expert_gate.weight");
  EXPECT_EQ(got->find("blk.0.ffn_gate_inp_shexp.weight")->n_dims, 1);
  expect_same(two, "blk.0.ffn_down_shexp.weight", "model.layers.0.mlp.shared_expert.down_proj.weight");
  auto three = qwen(3, true);
  ASSERT_NO_FATAL_FAILURE(open(three));
  EXPECT_EQ(string("general.architecture"), "qwen3moe");
  expect_values("blk.1.ffn_up_exps.weight", {64, 32, 4}, [&](std::int64_t r, std::int64_t k) {
    return three.at("model.layers.1.mlp.experts." + std::to_string(r / 32) + ".up_proj.weight",
                    r % 32 * 64 + k);
  });
  three.config["num_local_experts"] = three.config["num_experts"], three.config.erase("num_experts");
  ASSERT_NO_FATAL_FAILURE(open(three));
  EXPECT_EQ(integer("qwen3moe.expert_count"), 4);
  three.config["mlp_only_layers"] = {0};
  expect_failure(three, {"mlp_only_layers"});
}

TEST_F(Families, GemmaAddsOneToNorms) {
  auto c = gemma();
  c.config["rope_scaling"] = {{"rope_type", "linear"}, {"factor", 8}};
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(got->find("output.weight"), nullptr);
  const std::map<std::string, std::string> norms = {
      {"output_norm", "model.norm"},
      {"blk.1.attn_norm", "model.layers.1.input_layernorm"},
      {"blk.1.post_attention_norm", "model.layers.1.post_attention_layernorm"},
      {"blk.1.ffn_norm", "model.layers.1.pre_feedforward_layernorm"},
      {"blk.1.post_ffw_norm", "model.layers.1.post_feedforward_layernorm"},
      {"blk.1.attn_q_norm", "model.layers.1.self_attn.q_norm"},
      {"blk.1.attn_k_norm", "model.layers.1.self_attn.k_norm"}};
  for (const auto& [out, stored] : norms)
    expect_values(
        out + ".weight", {c.at(stored + ".weight").shape[0], 1, 1},
        [&, &name = stored](std::int64_t, std::int64_t k) { return c.at(name + ".weight", k) + 1; });
  expect_same(c, "blk.1.attn_q.weight", "model.layers.1.self_attn.q_proj.weight");
  EXPECT_EQ(integer("gemma3.attention.sliding_window"), 512);
  EXPECT_EQ(number("gemma3.rope.freq_base"), 1e6);
  EXPECT_EQ(number("gemma3.rope.freq_base_swa"), 20000);
  EXPECT_EQ(number("gemma3.rope.scaling.factor"), 8);
  for (const char* key : {"rms_norm_eps", "max_position_embeddings", "rope_theta", "rope_local_base_freq"})
    c.config.erase(key);
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(integer("gemma3.context_length"), 131072);
  EXPECT_NEAR(number("gemma3.attention.layer_norm_rms_epsilon"), 1e-6, 1e-12);
  EXPECT_EQ(number("gemma3.rope.freq_base"), 1e6);
  EXPECT_EQ(number("gemma3.rope.freq_base_swa"), 1e4);
  c.config["layer_types"] = {"full_attention", "sliding_attention"};
  expect_failure(c, {"layer_types", "layer 0"});
}

TEST_F(Families, GemmaScalesQueriesByTheWidthThatItsGgufStandsFor) {
  auto c = gemma();
  c.config.erase("query_pre_attn_scalar");
  expect_failure(c, {"config.json", "'query_pre_attn_scalar' is 256", "stands for 32"});
  c.config["query_pre_attn_scalar"] = 16;
  expect_failure(c, {"'query_pre_attn_scalar' is 16", "stands for 32"});
  // The largest model has 62 layers, and the share of a head is 64 / 4 there.
  c.config["num_hidden_layers"] = 62;
  expect_failure(c, {"model.layers.2.", "is missing"});
  c.config["query_pre_attn_scalar"] = 32;
  expect_failure(c, {"'query_pre_attn_scalar' is 32", "stands for 16"});
}

TEST_F(Families, MissingKeysMeanWhatTheirOwnLibraryTakesThemFor) {
  const auto without = [](family_checkpoint c, const char* key) {
    c.config.erase(key);
    return c;
  };
  ASSERT_NO_FATAL_FAILURE(open(without(llama(), "rope_theta")));
  EXPECT_EQ(number("llama.rope.freq_base"), 1e4);
  ASSERT_NO_FATAL_FAILURE(open(without(mixtral(), "rope_theta")));
  EXPECT_EQ(number("llama.rope.freq_base"), 1e6);
  for (const auto& c : {qwen(2, false), qwen(2, true), qwen(3, false), qwen(3, true), gpt_oss(false)})
    expect_failure(without(c, "rope_theta"), {"config.json", "'rope_theta' is missing"});
  expect_failure(without(gpt_oss(false), "rope_scaling"), {"'rope_scaling' is missing"});
  expect_failure(without(qwen(3, true), "norm_topk_prob"), {"'norm_topk_prob' is false"});
  ASSERT_NO_FATAL_FAILURE(open(without(qwen(2, true), "norm_topk_prob")));
}

TEST_F(Families, WhatIsSaidInsideAndOutsideOfRotaryParameters) {
  auto c = llama();
  c.config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 5e5}};
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(number("llama.rope.freq_base"), 5e5);
  c.config["rope_parameters"]["partial_rotary_factor"] = 0.5;
  expect_failure(c, {"'partial_rotary_factor' 0.5"});
  c = llama();
  c.config["partial_rotary_factor"] = 0.5;
  expect_failure(c, {"'partial_rotary_factor' 0.5"});
}

TEST_F(Families, AWindowThatIsUsedIsNoted) {
  const auto noted = [&](family_checkpoint c) {
    std::filesystem::remove_all(dir / "hf");
    c.config["sliding_window"] = 128;
    c.write(dir / "hf");
    const auto m = hf::read_config(dir / "hf", mla::layout::heads);
    EXPECT_TRUE(m) << m.error().message;
    return m && std::any_of(m->notices.begin(), m->notices.end(), [](const std::string& n) {
             return n.find("sliding_window is left out") != std::string::npos;
           });
  };
  auto c = qwen(2, false);
  EXPECT_FALSE(noted(c));
  c.config["use_sliding_window"] = true;
  EXPECT_TRUE(noted(c));
  EXPECT_TRUE(noted(llama()));
}

TEST_F(Families, TheTextPartOfGemmaThatSees) {
  auto plain = gemma();
  ASSERT_TRUE(convert(plain, "plain.gguf"));
  auto c = gemma("language_model.model.");
  const auto text = c.config;
  c.config = {{"architectures", {"Gemma3ForConditionalGeneration"}}, {"model_type", "gemma3"}};
  c.config["text_config"] = text;
  c.config["text_config"].erase("architectures");
  c.config["text_config"]["model_type"] = "gemma3_text";
  c.config["text_config"].erase("rope_theta");
  c.config["text_config"].erase("rope_local_base_freq");
  c.config["text_config"]["rope_parameters"] = {
      {"full_attention", {{"rope_type", "default"}, {"rope_theta", 1e6}}},
      {"sliding_attention", {{"rope_type", "default"}, {"rope_theta", 20000.0}}}};
  c.add("vision_tower.vision_model.embeddings.patch_embedding.weight", {4, 4});
  c.add("multi_modal_projector.mm_soft_emb_norm.weight", {4});
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_TRUE(read_file(dir / "out.gguf") == read_file(dir / "plain.gguf"));
}

/// transformers 5 says that it ties the output of a wrapper whose text part is not tied.
TEST_F(Families, AWrapperThatTiesAnotherWay) {
  auto plain = llama();
  plain.config["architectures"] = {"MistralForCausalLM"};
  ASSERT_TRUE(convert(plain, "untied.gguf"));
  auto tied = plain;
  tied.config["tie_word_embeddings"] = true;
  ASSERT_TRUE(convert(tied, "tied.gguf"));
  for (const bool stored : {true, false}) {
    auto c = plain;
    for (auto& t : c.tensors) t.name = "language_model." + t.name;
    if (!stored) c.erase("language_model.lm_head.weight");
    c.config = {{"architectures", {"Mistral3ForConditionalGeneration"}}, {"text_config", plain.config}};
    c.config["text_config"].erase("architectures");
    c.config["text_config"]["model_type"] = "mistral";
    c.config["tie_word_embeddings"] = true;
    ASSERT_NO_FATAL_FAILURE(open(c));
    EXPECT_TRUE(read_file(dir / "out.gguf") == read_file(dir / (stored ? "untied.gguf" : "tied.gguf")))
        << stored;
  }
}

/// A weight of packed experts: four bits of a block times a power of two.
float packed_value(family_checkpoint& c, const std::string& name, std::int64_t row, std::int64_t cols,
                   std::int64_t col) {
  static const float levels[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  const auto byte = [&](const std::string& suffix, std::int64_t i) {
    return static_cast<unsigned char>(c.at(name + suffix).bytes[static_cast<std::size_t>(i)]);
  };
  const int code = byte("_blocks", (row * cols + col) / 2) >> (col % 2 * 4) & 15;
  return std::ldexp(code & 8 ? -levels[code & 7] : levels[code & 7],
                    byte("_scales", (row * cols + col) / 32) - 127);
}

class GptOss : public Families {
 protected:
  void expect_experts(family_checkpoint& c) {
    const std::string experts = "model.layers.1.mlp.experts.";
    for (const bool up : {false, true})
      expect_values(up ? "blk.1.ffn_up_exps.weight" : "blk.1.ffn_gate_exps.weight", {64, 32, 4},
                    [&](std::int64_t r, std::int64_t k) {
                      return packed_value(c, experts + "gate_up_proj", 2 * r + up, 64, k);
                    });
    expect_values("blk.1.ffn_down_exps.weight", {32, 64, 4}, [&](std::int64_t r, std::int64_t k) {
      return packed_value(c, experts + "down_proj", r, 32, k);
    });
  }
};

TEST_F(GptOss, PackedExpertsAreExactInBothTypes) {
  auto c = gpt_oss(true);
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(got->find("blk.1.ffn_up_exps.weight")->type, bf16::gguf_id);
  expect_experts(c);
  ASSERT_NO_FATAL_FAILURE(open(c, "auto"));
  for (const char* name : {"gate", "up", "down"})
    EXPECT_EQ(gguf::type_name(got->find("blk.1.ffn_" + std::string(name) + "_exps.weight")->type), "mxfp4");
  expect_experts(c);
  EXPECT_EQ(integer("gpt-oss.expert_feed_forward_length"), 32);
  EXPECT_EQ(integer("gpt-oss.attention.sliding_window"), 128);
  EXPECT_EQ(integer("gpt-oss.expert_count"), 4);
  EXPECT_EQ(string("gpt-oss.rope.scaling.type"), "yarn");
  EXPECT_EQ(number("gpt-oss.rope.freq_base"), 10000);
}

TEST_F(GptOss, BiasesAndSinks) {
  auto c = gpt_oss(true);
  ASSERT_NO_FATAL_FAILURE(open(c));
  const std::string l = "model.layers.0.";
  for (const bool up : {false, true})
    expect_values(up ? "blk.0.ffn_up_exps.bias" : "blk.0.ffn_gate_exps.bias", {32, 4, 1},
                  [&](std::int64_t r, std::int64_t k) {
                    return c.at(l + "mlp.experts.gate_up_proj_bias", r * 64 + 2 * k + up);
                  });
  expect_same(c, "blk.0.ffn_down_exps.bias", l + "mlp.experts.down_proj_bias");
  expect_same(c, "blk.0.attn_sinks.weight", l + "self_attn.sinks");
  expect_same(c, "blk.0.ffn_gate_inp.bias", l + "mlp.router.bias");
  expect_same(c, "blk.0.post_attention_norm.weight", l + "post_attention_layernorm.weight");
  for (const std::string n : {"q", "k", "v"})
    expect_same(c, "blk.0.attn_" + n + ".bias", l + "self_attn." + n + "_proj.bias");
  expect_same(c, "blk.0.attn_output.bias", l + "self_attn.o_proj.bias");
}

TEST_F(GptOss, FloatExpertsAreTransposed) {
  auto c = gpt_oss(false);
  ASSERT_NO_FATAL_FAILURE(open(c));
  const std::string experts = "model.layers.1.mlp.experts.";
  for (const bool up : {false, true})
    expect_values(up ? "blk.1.ffn_up_exps.weight" : "blk.1.ffn_gate_exps.weight", {64, 32, 4},
                  [&](std::int64_t r, std::int64_t k) {
                    return c.at(experts + "gate_up_proj", (r / 32 * 64 + k) * 64 + r % 32 * 2 + up);
                  });
  expect_values("blk.1.ffn_down_exps.weight", {32, 64, 4}, [&](std::int64_t r, std::int64_t k) {
    return c.at(experts + "down_proj", (r / 64 * 32 + k) * 64 + r % 64);
  });
  auto half = c;
  ASSERT_NO_FATAL_FAILURE(open(half, "auto"));
  EXPECT_EQ(got->find("blk.1.ffn_up_exps.weight")->type, bf16::gguf_id);
}

TEST_F(GptOss, DamageNamesFileAndTensor) {
  const auto good = gpt_oss(true);
  const std::string up = "model.layers.1.mlp.experts.gate_up_proj";
  auto c = good;
  c.erase(up + "_scales");
  expect_failure(c, {up + "_scales", "is missing"});
  c = good;
  c.erase(up + "_blocks");
  expect_failure(c, {up, "is missing"});
  c = good;
  c.at(up + "_blocks").shape = {4, 64, 1, 32};
  expect_failure(c, {"model-00002-of-00002.safetensors", up + "_blocks", "[4, 64, 2, 16]"});
  c = good;
  c.at(up + "_scales").shape = {4, 128};
  expect_failure(c, {up + "_scales", "[4, 64, 2]"});
  c = good;
  c.at(up + "_blocks").dtype = "I8";
  expect_failure(c, {up + "_blocks", "I8"});
  c = good;
  c.add(up, {4, 64, 64});
  expect_failure(c, {up, "also stored as blocks"});
  c = good;
  c.config["intermediate_size"] = 48;
  expect_failure(c, {"mlp.experts."});
  c = good;
  c.config.erase("quantization_config");
  expect_failure(c, {"_blocks", "no quantization_config"});
  c = good;
  c.at(up + "_scales").bytes[5] = '\xff';
  expect_failure(c, {"blk.1.ffn_", "NaN"});
  c = good;
  c.config["swiglu_limit"] = 5.0;
  expect_failure(c, {"swiglu_limit"});
}

TEST_F(Families, DamageNamesFileAndTensor) {
  const std::string q = "model.layers.1.self_attn.q_proj.weight";
  auto c = llama();
  c.erase(q);
  expect_failure(c, {q, "is missing"});
  c = llama();
  std::swap(c.at(q).shape[0], c.at(q).shape[1]);
  expect_failure(c, {"model-00002-of-00002.safetensors", q, "config.json implies"});
  c = llama();
  c.add("model.layers.1.self_attn.q_norm.weight", {32});
  expect_failure(c, {"q_norm", "no place in a llama model"});
  const auto with = [](const char* key, const json& value) {
    auto changed = llama();
    changed.config[key] = value;
    return changed;
  };
  expect_failure(with("head_dim", 31), {"head_dim", "odd"});
  expect_failure(with("head_dim", -1), {"head_dim"});
  expect_failure(with("num_attention_heads", 0), {"num_attention_heads"});
  expect_failure(with("num_key_value_heads", 3), {"num_key_value_heads"});
  expect_failure(with("num_hidden_layers", 3), {"model.layers.2.", "is missing"});
  expect_failure(with("num_hidden_layers", 1000000), {"num_hidden_layers"});
  expect_failure(with("hidden_act", "gelu"), {"hidden_act"});
  expect_failure(with("max_position_embeddings", nullptr), {"max_position_embeddings", "is missing"});
  expect_failure(with("rms_norm_eps", "small"), {"rms_norm_eps"});
  expect_failure(with("architectures", {"GPT2LMHeadModel"}), {"GPT2LMHeadModel", "LlamaForCausalLM"});
  auto small = gemma();
  small.config["hidden_activation"] = "silu";
  expect_failure(small, {"hidden_activation"});
}

TEST_F(Families, QuantizingOnTheWayIsQuantizingTheBf16File) {
  for (const auto& c : {llama(), mixtral(), qwen(3, true), gemma(), gpt_oss(true)}) {
    ASSERT_TRUE(convert(c, "out.gguf"));
    ASSERT_TRUE(convert(c, "direct.gguf", "Q4_0"));
    plan::run_options q;
    q.in = dir / "out.gguf", q.out = dir / "via.gguf", q.type = "Q4_0", q.threads = 2, q.quiet = true;
    const auto done = plan::run(q);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_TRUE(read_file(dir / "direct.gguf") == read_file(dir / "via.gguf"));
  }
}

TEST_F(Families, TemperatureOfLatentAttention) {
  const auto model = gguf::reader::open(test::data_file("/fixtures/fixture-v3-mainline-bf16.gguf"));
  ASSERT_TRUE(model) << model.error().message;
  auto c = checkpoint_maker(*model).make();
  const auto rope = c.config["rope_scaling"];
  c.config["rope_scaling"]["llama_4_scaling_beta"] = 0.1;
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_NEAR(number("deepseek2.attention.temperature_scale"), 0.1, 1e-7);
  c.config["rope_scaling"] = rope;
  c.config["llama_4_scaling"] = {
      {"beta", 0.25}, {"original_max_position_embeddings", rope["original_max_position_embeddings"]}};
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(number("deepseek2.attention.temperature_scale"), 0.25);
  c.config["llama_4_scaling"]["original_max_position_embeddings"] = 77;
  expect_failure(c, {"llama_4_scaling", "77"});
  c.config["rope_scaling"] = {{"rope_type", "default"}};
  expect_failure(c, {"'llama_4_scaling'", "without yarn"});
  c.config["llama_4_scaling"]["beta"] = 0;
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_EQ(number("deepseek2.attention.temperature_scale"), -1);
  c.config.erase("llama_4_scaling");
  c.config["rope_scaling"]["llama_4_scaling_beta"] = 0.1;
  expect_failure(c, {"'llama_4_scaling_beta'", "0.1"});
  c.config["rope_scaling"]["llama_4_scaling_beta"] = 0;
  ASSERT_NO_FATAL_FAILURE(open(c));
}

TEST_F(Families, UnusedKeysOfLatentRotationAreNamed) {
  const auto model = gguf::reader::open(test::data_file("/fixtures/fixture-v3-mainline-bf16.gguf"));
  ASSERT_TRUE(model) << model.error().message;
  auto c = checkpoint_maker(*model).make();
  c.config["rope_scaling"] = {{"rope_type", "default"}, {"surprise", 3}};
  c.write(dir / "hf");
  const auto m = hf::read_config(dir / "hf", mla::layout::heads);
  ASSERT_TRUE(m) << m.error().message;
  EXPECT_EQ(std::count(m->notices.begin(), m->notices.end(), "rope scaling: key 'surprise' is ignored"), 1);
}

/// Tensors of a Llama under the architecture whose queries grow with their position.
family_checkpoint ministral() {
  auto c = llama();
  c.config["architectures"] = {"Ministral3ForCausalLM"};
  c.config.erase("rope_scaling"), c.config.erase("rope_theta");
  c.config["rope_parameters"] = {{"rope_type", "yarn"},
                                 {"rope_theta", 1e6},
                                 {"factor", 16.0},
                                 {"original_max_position_embeddings", 256},
                                 {"beta_fast", 32.0},
                                 {"beta_slow", 1.0},
                                 {"mscale", 1.0},
                                 {"mscale_all_dim", 1.0},
                                 {"llama_4_scaling_beta", 0.1}};
  return c;
}

TEST_F(Families, Ministral3) {
  auto c = ministral();
  ASSERT_NO_FATAL_FAILURE(open(c));
  EXPECT_NEAR(number("mistral3.attention.temperature_scale"), 0.1, 1e-7);
  EXPECT_EQ(number("mistral3.rope.scaling.yarn_log_multiplier"), 1);
  EXPECT_EQ(number("mistral3.rope.scaling.original_context_length"), 256);
  c.config["architectures"] = {"LlamaForCausalLM"};
  expect_failure(c, {"llama_4_scaling_beta"});
}

/// The multiplier is 1 where cosines and sines stay as they are, 0 where they grow by 0.1 ln(factor).
TEST_F(Families, Ministral3MagnitudeOfRotation) {
  const auto with = [](const json& mscale, const json& all) {
    auto c = ministral();
    auto& r = c.config["rope_parameters"];
    for (const auto& [key, value] : {std::pair("mscale", mscale), std::pair("mscale_all_dim", all)})
      if (value.is_null())
        r.erase(key);
      else
        r[key] = value;
    return c;
  };
  const auto multiplier = [&](family_checkpoint c) {
    open(c);
    return number("mistral3.rope.scaling.yarn_log_multiplier");
  };
  EXPECT_EQ(multiplier(with(1, 1.0)), 1);
  EXPECT_EQ(multiplier(with(0.707, 0.707)), 1);
  EXPECT_EQ(multiplier(with(nullptr, nullptr)), 0);
  EXPECT_EQ(multiplier(with(0, 0)), 0);
  auto own = with(nullptr, nullptr);
  own.config["rope_parameters"]["attention_factor"] = 1.5;
  EXPECT_EQ(multiplier(own), 1);
  EXPECT_EQ(number("mistral3.rope.scaling.yarn_attn_factor"), 1.5);
  expect_failure(with(0.5, 1), {"'mscale'", "0.5", "mscale_all_dim is 1"});
  expect_failure(with(nullptr, 1), {"key 'mscale' is missing"});
  expect_failure(with(0, 1), {"key 'mscale' is missing or 0"});
  expect_failure(with(1, nullptr), {"key 'mscale_all_dim' is missing"});
}

TEST_F(Families, Ministral3TemperatureNeedsYarn) {
  auto c = ministral();
  const json others[] = {{{"rope_type", "default"}, {"rope_theta", 1e6}},
                         {{"rope_type", "linear"}, {"rope_theta", 1e6}, {"factor", 2.0}},
                         {{"rope_type", "llama3"},
                          {"rope_theta", 1e6},
                          {"factor", 8.0},
                          {"low_freq_factor", 1.0},
                          {"high_freq_factor", 4.0},
                          {"original_max_position_embeddings", 256}}};
  for (auto r : others) {
    SCOPED_TRACE(r["rope_type"]);
    r["llama_4_scaling_beta"] = 0.1;
    c.config["rope_parameters"] = r;
    expect_failure(c, {"'llama_4_scaling_beta'", "0.1"});
    r["llama_4_scaling_beta"] = 0.0;
    c.config["rope_parameters"] = r;
    ASSERT_NO_FATAL_FAILURE(open(c));
    EXPECT_EQ(number("mistral3.attention.temperature_scale"), -1);
  }
}

TEST_F(Families, OptionsOfLatentAttentionAreRefused) {
  llama().write(dir / "hf");
  hf::convert_options o;
  o.quantize.in = dir / "hf", o.quantize.out = dir / "refused.gguf", o.quantize.quiet = true;
  o.layout = "2d";
  auto done = hf::convert(o);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("--mla-layout"), std::string::npos) << done.error().message;
  o.layout = "3d", o.quantize.type = "Q4_0", o.imatrix_text = dir / "text.txt";
  write_file(dir / "text.txt", "a text");
  done = hf::convert(o);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("--imatrix-text"), std::string::npos) << done.error().message;
}

}  // namespace
}  // namespace quantal::test
