// Mistral's own layout (params.json, consolidated.safetensors, tekken.json): the same GGUF as from the layout of
// transformers, and what is refused.
#include <gtest/gtest.h>

#include <cmath>
#include <stdexcept>

#include "converting.hpp"
#include "family_checkpoint.hpp"
#include "native_checkpoint.hpp"
#include "support/paths.hpp"
#include "support/same_tensors.hpp"

namespace quantal::test {
namespace {

fake_checkpoint latent() {
  const auto model = gguf::reader::open(test::data_file("/fixtures/fixture-v3-mainline-bf16.gguf"));
  EXPECT_TRUE(model) << model.error().message;
  auto c = checkpoint_maker(*model).make();
  std::erase_if(c.tensors, [](auto& t) { return t.name.find("e_score_correction_bias") != t.name.npos; });
  c.config["architectures"] = {"DeepseekV2ForCausalLM"};
  c.config["scoring_func"] = "softmax", c.config["topk_method"] = "greedy", c.config["norm_topk_prob"] = true;
  c.config["n_group"] = c.config["topk_group"] = 1;
  c.config["rope_scaling"]["llama_4_scaling_beta"] = 0.25;
  widen_vocabulary(c);
  return c;
}

class NativeLayout : public converting {
 protected:
  template <class C>
  result<void> convert_folder(const C& c, const std::string& out, const std::string& type, bool shards) {
    std::filesystem::remove_all(dir / "in");
    c.write(dir / "in", shards);
    hf::convert_options o;
    o.quantize.in = dir / "in", o.quantize.out = dir / out, o.quantize.type = type;
    o.quantize.threads = 2, o.quantize.quiet = true, o.name = "a model";
    return hf::convert(o);
  }
  template <class C>
  gguf::reader converted(const C& c, const std::string& out, const std::string& type = "",
                         bool shards = true) {
    const auto done = convert_folder(c, out, type, shards);
    EXPECT_TRUE(done) << done.error().message;
    auto r = gguf::reader::open(dir / out);
    if (!r) throw std::runtime_error(r.error().message);
    return std::move(*r);
  }
  static std::string shown(const gguf::metadata& meta, const std::string& key) {
    if (const auto n = meta.number(key)) return std::to_string(*n);
    if (const auto s = meta.string(key)) return *s;
    return "nothing";
  }
  /// The same tensors in the same order, and the same keys but the tokenizer's.
  static void expect_same_model(const gguf::reader& a, const gguf::reader& b) {
    ASSERT_NO_FATAL_FAILURE(expect_same_tensors(a, b));
    for (const auto& [key, value] : a.meta().items()) {
      if (!key.starts_with("tokenizer.")) {
        EXPECT_EQ(shown(b.meta(), key), shown(a.meta(), key)) << key;
      }
    }
  }
  void expect_refused(const native_checkpoint& c, const std::vector<std::string>& parts) {
    const auto done = convert_folder(c, "refused.gguf", "", true);
    ASSERT_FALSE(done) << parts[0];
    for (const auto& p : parts)
      EXPECT_NE(done.error().message.find(p), std::string::npos)
          << "got " << done.error().message << "\nwanted " << p;
    EXPECT_FALSE(std::filesystem::exists(dir / "refused.gguf"));
  }
};

TEST_F(NativeLayout, MistralAndMixtralAreThoseOfTransformers) {
  for (auto c : {llama(), mixtral()}) {
    widen_vocabulary(c);
    const auto want = converted(c, "want.gguf"), got = converted(native_llama(c), "got.gguf");
    expect_same_model(want, got);
    expect_same_model(want, converted(native_llama(c), "one.gguf", "", false));
  }
}

TEST_F(NativeLayout, LatentAttentionIsThatOfTransformers) {
  const auto c = latent();
  const auto want = converted(c, "want.gguf"), got = converted(native_latent(c), "got.gguf");
  expect_same_model(want, got);
  EXPECT_EQ(*got.meta().number("deepseek2.attention.temperature_scale"), 0.25);
  EXPECT_EQ(*got.meta().integer("deepseek2.attention.temperature_length"),
            c.config["rope_scaling"]["original_max_position_embeddings"].get<std::int64_t>());
}

/// transformers keeps the experts of Mistral Small 4 in two tensors a layer: gate and up of each in one matrix, and down.
fake_checkpoint with_joined_experts(fake_checkpoint c) {
  const std::int64_t experts = c.config["n_routed_experts"], layers = c.config["num_hidden_layers"];
  for (std::int64_t i = c.config["first_k_dense_replace"]; i < layers; ++i) {
    const std::string all = "model.layers." + std::to_string(i) + ".mlp.experts.";
    raw_tensor up{all + "gate_up_proj", "BF16", {}, {}}, down{all + "down_proj", "BF16", {}, {}};
    for (std::int64_t e = 0; e < experts; ++e)
      for (const std::string part : {"gate", "up", "down"}) {
        const auto name = all + std::to_string(e) + "." + part + "_proj.weight";
        const auto t = c.at(name);
        auto& to = part == "down" ? down : up;
        to.bytes += t.bytes;
        to.shape = {experts, t.shape[0] * (part == "down" ? 1 : 2), t.shape[1]};
        c.erase(name);
      }
    c.tensors.push_back(up), c.tensors.push_back(down);
  }
  c.config["architectures"] = {"Mistral4ForCausalLM"};
  for (const char* key : {"scoring_func", "topk_method", "norm_topk_prob"}) c.config.erase(key);
  return c;
}

TEST_F(NativeLayout, ExpertsThatTransformersJoins) {
  const auto c = latent();
  auto joined = with_joined_experts(c);
  expect_same_model(converted(c, "want.gguf"), converted(joined, "got.gguf"));
  joined.config["n_group"] = 2;
  const auto done = convert_folder(joined, "refused.gguf", "", true);
  ASSERT_FALSE(done);
  EXPECT_NE(done.error().message.find("'n_group' 2"), std::string::npos) << done.error().message;
}

/// How the scales of a stack of fp8 experts are laid out.
enum class stack_scales { blocks, slices, halves };

/// Both stacks of a layer as random e4m3 numbers; `plain` has the bf16 that they stand for. Scales are powers of two.
fake_checkpoint with_fp8_stacks(const fake_checkpoint& from, stack_scales how, fake_checkpoint& plain) {
  auto out = plain = from;
  std::uint32_t state = 3;
  const auto random = [&state] { return state = state * 1664525u + 1013904223u, state >> 8; };
  constexpr std::int64_t block = 24;  // divides neither rows nor columns
  for (const auto& t : from.tensors) {
    const bool up = t.name.ends_with("gate_up_proj");
    if (!up && !t.name.ends_with("experts.down_proj")) continue;
    const std::int64_t n = t.shape[0], rows = t.shape[1], cols = t.shape[2];
    const bool blocks = how == stack_scales::blocks;
    const std::int64_t down = blocks                              ? (rows + block - 1) / block
                              : up && how == stack_scales::halves ? 2
                                                                  : 1,
                       across = blocks ? (cols + block - 1) / block : 1,
                       each = blocks ? block : (rows + down - 1) / down;
    std::vector<float> scales;
    for (std::int64_t i = 0; i < n * down * across; ++i)
      scales.push_back(std::ldexp(1.0f, -static_cast<int>(random() % 8) - 4));
    std::string codes, values;
    for (std::int64_t e = 0; e < n; ++e)
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < cols; ++c) {
          const auto code = static_cast<std::uint8_t>(random() % 0x7f + (random() % 2 ? 0x80 : 0));
          const auto s = (e * down + r / each) * across + (blocks ? c / block : 0);
          const float magnitude = code & 0x78 ? std::ldexp(8.0f + (code & 7), (code >> 3 & 15) - 10)
                                              : std::ldexp(static_cast<float>(code & 7), -9);
          const auto v =
              to_bf16((code & 0x80 ? -magnitude : magnitude) * scales[static_cast<std::size_t>(s)]);
          codes += static_cast<char>(code), values.append(reinterpret_cast<const char*>(&v), 2);
        }
    out.at(t.name).dtype = "F8_E4M3", out.at(t.name).bytes = codes;
    plain.at(t.name).bytes = values;
    std::string stored(reinterpret_cast<const char*>(scales.data()), 4 * scales.size());
    out.tensors.push_back({t.name + "_scale_inv", "F32", {n, down, across}, stored});
    out.tensors.push_back(
        {t.name + "_activation_scale", "F32", {n}, stored.substr(0, 4 * static_cast<std::size_t>(n))});
  }
  out.config["quantization_config"] = {{"quant_method", "fp8"}, {"activation_scheme", "static"}};
  if (how == stack_scales::blocks) out.config["quantization_config"]["weight_block_size"] = {block, block};
  return out;
}

TEST_F(NativeLayout, JoinedExpertsInFp8) {
  const auto joined = with_joined_experts(latent());
  for (const auto how : {stack_scales::blocks, stack_scales::slices, stack_scales::halves}) {
    fake_checkpoint plain;
    auto stored = with_fp8_stacks(joined, how, plain);
    expect_same_model(converted(plain, "want.gguf"), converted(stored, "got.gguf"));
    std::string name;
    for (const auto& t : stored.tensors)
      if (t.name.ends_with("gate_up_proj_scale_inv")) name = t.name;
    auto lacks = stored, odd = stored;
    lacks.erase(name);
    auto done = convert_folder(lacks, "refused.gguf", "", true);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().message.find(name), std::string::npos) << done.error().message;
    odd.at(name).shape.front() -= 1, odd.at(name).bytes.resize(odd.at(name).bytes.size() / 4 * 3);
    done = convert_folder(odd, "refused.gguf", "", true);
    ASSERT_FALSE(done);
    EXPECT_NE(done.error().message.find(name), std::string::npos) << done.error().message;
  }
}

TEST_F(NativeLayout, JoinedExpertsInFp4AreRefused) {
  auto stored = with_joined_experts(latent());
  const auto name = "model.layers." + std::to_string(stored.config["first_k_dense_replace"].get<int>()) +
                    ".mlp.experts.gate_up_proj";
  auto& t = stored.at(name);
  t.bytes.resize(t.bytes.size() / 4);
  const auto refused = [&] {
    const auto done = convert_folder(stored, "refused.gguf", "", true);
    ASSERT_FALSE(done);
    for (const auto& part : {name, std::string("4-bit floats in stacks of experts are not supported")})
      EXPECT_NE(done.error().message.find(part), std::string::npos) << done.error().message;
  };
  t.dtype = "F4";
  refused();
  t.dtype = "U8", t.shape[2] /= 2;
  const json weights = {{"num_bits", 4}, {"type", "float"}, {"strategy", "tensor_group"}, {"group_size", 16}};
  stored.config["quantization_config"] = {
      {"quant_method", "compressed-tensors"},
      {"format", "nvfp4-pack-quantized"},
      {"config_groups", {{"group_0", {{"targets", {"re:.*mlp[.]experts[.].*"}}, {"weights", weights}}}}}};
  refused();
}

TEST_F(NativeLayout, WhetherYarnScalesAttention) {
  auto n = native_latent(latent());
  EXPECT_NEAR(*converted(n, "on.gguf").meta().number("deepseek2.rope.scaling.yarn_log_multiplier"), 0.1,
              1e-7);
  n.params["yarn"].erase("apply_scale");
  EXPECT_NEAR(*converted(n, "un.gguf").meta().number("deepseek2.rope.scaling.yarn_log_multiplier"), 0.1,
              1e-7);
  n.params["yarn"]["apply_scale"] = false;
  EXPECT_EQ(*converted(n, "off.gguf").meta().number("deepseek2.rope.scaling.yarn_log_multiplier"), 0);
  auto c = llama();
  widen_vocabulary(c);
  auto dense = native_llama(c);
  dense.params["yarn"] = {
      {"factor", 8}, {"original_max_position_embeddings", 512}, {"beta", 24}, {"apply_scale", false}};
  const auto got = converted(dense, "dense.gguf");
  EXPECT_EQ(*got.meta().number("llama.rope.scaling.yarn_beta_fast"), 24);
  EXPECT_NEAR(*got.meta().number("llama.rope.scaling.yarn_attn_factor"), 1 / (1 + 0.1 * std::log(8)), 1e-7);
}

TEST_F(NativeLayout, TokensOfTekken) {
  auto c = llama();
  widen_vocabulary(c);
  const auto got = converted(native_llama(c), "got.gguf");
  const auto& meta = got.meta();
  const auto& tokens = **meta.strings("tokenizer.ggml.tokens");
  ASSERT_EQ(tokens.size(), 600u);
  EXPECT_EQ(tokens[1], "<s>");
  EXPECT_EQ(tokens[3], "<SPECIAL_3>");
  EXPECT_EQ(tokens[4 + 'a'], "a");
  EXPECT_EQ(tokens[4 + 256], "ab");
  EXPECT_EQ(tokens[4 + 257], "abc");
  EXPECT_EQ(tokens[4 + 258], "[PAD262]");  // behind what is in use
  const auto types = *meta.integers("tokenizer.ggml.token_type");
  EXPECT_EQ(types[0], 3);
  EXPECT_EQ(types[3], 3);
  EXPECT_EQ(types[4], 1);
  EXPECT_EQ(types[599], 5);
  EXPECT_EQ(**meta.strings("tokenizer.ggml.merges"), (std::vector<std::string>{"a b", "ab c"}));
  EXPECT_EQ(*meta.string("tokenizer.ggml.pre"), "tekken");
  EXPECT_EQ(*meta.integer("tokenizer.ggml.bos_token_id"), 1);
  EXPECT_EQ(*meta.integer("tokenizer.ggml.eos_token_id"), 2);
  EXPECT_EQ(*meta.integer("tokenizer.ggml.unknown_token_id"), 0);
  EXPECT_TRUE(*meta.boolean("tokenizer.ggml.add_bos_token"));
}

TEST_F(NativeLayout, AMergeForEverySplit) {
  auto c = llama();
  widen_vocabulary(c);
  auto n = native_llama(c);
  n.tekken["config"]["default_vocab_size"] = 263;
  std::swap(n.tekken["vocab"][257]["token_bytes"], n.tekken["vocab"][258]["token_bytes"]);  // "bc", "abc"
  EXPECT_EQ(**converted(n, "got.gguf").meta().strings("tokenizer.ggml.merges"),
            (std::vector<std::string>{"a b", "b c", "a bc", "ab c"}));
}

TEST_F(NativeLayout, DamagedTekkenIsNamed) {
  auto c = llama();
  widen_vocabulary(c);
  const auto good = native_llama(c);
  const auto refused = [&](const std::function<void(json&)>& damage, const std::string& part) {
    auto bad = good;
    damage(bad.tekken);
    expect_refused(bad, {"tekken.json", part});
  };
  refused([](json& t) { t["vocab"][5]["token_bytes"] = "?"; }, "token 5: 'token_bytes'");
  refused([](json& t) { t["vocab"][5]["rank"] = 6; }, "token 5: its rank");
  refused([](json& t) { t["vocab"][5] = t["vocab"][4], t["vocab"][5]["rank"] = 5; },
          "token 5 is also token 4");
  refused([](json& t) { t["vocab"][5]["token_bytes"] = "YWJjZA=="; }, "byte 5 has no token");
  refused([](json& t) { t["vocab"] = 3; }, "'vocab'");
  refused([](json& t) { t["vocab"].erase(258), t["vocab"].erase(257); }, "257 tokens, but 258");
  refused([](json& t) { t["config"]["pattern"] = "x+"; }, "the pattern is that of none of gpt-2");
  refused([](json& t) { t["config"].erase("pattern"); }, "'pattern' is missing");
  refused([](json& t) { t["config"]["default_vocab_size"] = 601; }, "601 is more than the vocab_size 600");
  refused([](json& t) { t["config"]["default_vocab_size"] = 2; }, "no numbers of tokens");
  refused([](json& t) { t.erase("config"); }, "'config'");
  refused([](json& t) { t["special_tokens"][2]["rank"] = 1; }, "special token 2");
  refused([](json& t) { t["special_tokens"][2]["rank"] = 4; }, "special token 2");
  refused([](json& t) { t["special_tokens"][2]["token_str"] = ""; }, "special token 2: no name");
  refused([](json& t) { t["vocab"][257]["token_bytes"] = base64(std::string(2049, 'a')); },
          "token 257: has 2049 bytes, more than 2048");
  refused([](json& t) { t["special_tokens"] = 1; }, "'special_tokens'");
}

TEST_F(NativeLayout, ErrorsHaveTheNamesOfParamsJson) {
  auto c = llama();
  widen_vocabulary(c);
  const auto good = native_llama(c);
  const auto with = [](native_checkpoint n, const char* key, const json& value) {
    n.params[key] = value;
    return n;
  };
  expect_refused(with(good, "dim", nullptr), {"params.json", "key 'dim' is missing"});
  expect_refused(with(good, "n_heads", 0), {"params.json", "key 'n_heads' 0"});
  expect_refused(with(good, "max_seq_len", 0), {"params.json", "key 'max_seq_len' 0"});
  expect_refused(with(good, "max_position_embeddings", 0),
                 {"params.json", "key 'max_position_embeddings' 0"});
  expect_refused(with(good, "n_layers", 3), {"'layers.2.attention_norm.weight' is missing"});
  expect_refused(with(good, "model_type", "mamba"), {"params.json", "'model_type'", "mamba"});
  expect_refused(with(good, "moe", 4), {"params.json", "'moe' is no object"});
  expect_refused(with(good, "yarn", {{"factor", "x"}}), {"params.json: yarn", "'factor' is no number"});
  expect_refused(with(good, "llama_4_scaling", {{"beta", 0.1}}), {"params.json", "'llama_4_scaling'"});
  expect_refused(with(good, "quantization", {{"qformat_weight", "int3"}}),
                 {"params.json: quantization", "'qformat_weight'", "int3"});
  expect_refused(with(good, "multimodal", {{"whisper_model_args", 1}}), {"'multimodal'", "hears"});
  auto large = native_latent(latent());
  large.params["moe"]["use_load_balancing_bias"] = true;
  expect_refused(large, {"params.json: moe", "'use_load_balancing_bias'"});
  large = native_latent(latent());
  large.params["moe"].erase("num_experts_per_tok");
  expect_refused(large, {"params.json", "'moe.num_experts_per_tok' is missing"});
  large = native_latent(latent());
  large.at("layers.1.gate.weight").shape = {1, 1};
  expect_refused(large, {"consolidated-0000", "layers.1.gate.weight"});
  auto more = good;
  more.tensors.push_back({"layers.0.attention.wq.bias", "BF16", {1}, std::string(2, 0)});
  expect_refused(more, {"layers.0.attention.wq.bias", "no place in a llama model"});
}

TEST_F(NativeLayout, APartThatSeesIsLeftOut) {
  auto c = llama();
  widen_vocabulary(c);
  auto n = native_llama(c);
  const auto want = converted(n, "want.gguf");
  n.params["vision_encoder"] = {{"hidden_size", 4}};
  for (const std::string name : {"vision_encoder.patch_conv.weight", "vision_language_adapter.w_in.weight",
                                 "patch_merger.merging_layer.weight", "pre_mm_projector_norm.weight"})
    n.tensors.push_back({name, "BF16", {1}, std::string(2, 0)});
  expect_same_model(want, converted(n, "got.gguf"));
  n.params.erase("vision_encoder");
  expect_refused(n, {"vision_encoder.patch_conv.weight", "no place"});
}

TEST_F(NativeLayout, Fp8WithAScalePerTensor) {
  auto c = llama();
  widen_vocabulary(c);
  auto n = native_llama(c), plain = n;
  n.params["quantization"] = {{"qformat_weight", "fp8_e4m3"}, {"qscheme_act", "TENSOR"}};
  const std::string name = "layers.1.feed_forward.w2";
  auto& t = n.at(name + ".weight");
  std::string codes, values;
  for (std::int64_t i = 0; i < t.shape[0] * t.shape[1]; ++i) {
    const auto code = static_cast<std::uint8_t>(i % 120);
    const std::uint16_t v = to_bf16(from_e4m3(code) * 0.5f);
    codes += static_cast<char>(code);
    values.append(reinterpret_cast<const char*>(&v), 2);
  }
  t.dtype = "F8_E4M3", t.bytes = codes;
  const float half = 0.5f;
  const std::string scale(reinterpret_cast<const char*>(&half), 4);
  n.tensors.push_back({name + ".qscale_weight", "F32", {}, scale});
  n.tensors.push_back({name + ".qscale_act", "F32", {}, scale});
  plain.at(name + ".weight").bytes = values;
  expect_same_model(converted(plain, "want.gguf"), converted(n, "got.gguf"));
  std::erase_if(n.tensors, [&](auto& x) { return x.name == name + ".qscale_weight"; });
  expect_refused(n, {"consolidated-00002", name + ".weight", "no scales"});
}

/// A matrix as compressed-tensors packs it: eight codes per word, a scale per row.
void pack(native_checkpoint& n, const std::string& module) {
  const auto shape = n.at(module + ".weight").shape;
  std::erase_if(n.tensors, [&](auto& x) { return x.name == module + ".weight"; });
  std::string words, scales;
  for (std::int64_t i = 0; i < shape[0] * shape[1] / 8; ++i) words.append("\x98\x76\x54\x32", 4);
  for (std::int64_t i = 0; i < shape[0]; ++i) scales.append("\x00\x3f", 2);
  std::string extents(16, '\0');
  std::memcpy(extents.data(), shape.data(), 16);
  n.tensors.push_back({module + ".weight_packed", "I32", {shape[0], shape[1] / 8}, words});
  n.tensors.push_back({module + ".weight_scale", "BF16", {shape[0], 1}, scales});
  n.tensors.push_back({module + ".weight_shape", "I64", {2}, extents});
}

TEST_F(NativeLayout, ListsOfModulesMayHaveTheNamesOfTransformers) {
  auto c = llama();
  widen_vocabulary(c);
  auto n = native_llama(c);
  const json weights = {{"num_bits", 4}, {"type", "int"}, {"symmetric", true}, {"strategy", "channel"}};
  n.params["quantization"] = {{"quant_method", "compressed-tensors"},
                              {"format", "pack-quantized"},
                              {"config_groups", {{"g", {{"targets", {"Linear"}}, {"weights", weights}}}}},
                              {"ignore", {"lm_head", "re:.*self_attn.*"}}};
  pack(n, "layers.0.feed_forward.w1");
  const auto got = converted(n, "got.gguf", "auto");
  EXPECT_EQ(gguf::type_name(got.find("blk.0.ffn_gate.weight")->type), "q4_0");
  EXPECT_EQ(gguf::type_name(got.find("blk.0.attn_q.weight")->type), "bf16");
  pack(n, "layers.0.attention.wq");
  expect_refused(n, {"layers.0.attention.wq.weight_packed", "ignored"});
  n.params["quantization"]["ignore"] = {"output"};
  EXPECT_EQ(gguf::type_name(converted(n, "got.gguf", "auto").find("blk.0.attn_q.weight")->type), "q4_0");
}

TEST_F(NativeLayout, ListsOfModulesMayHaveTheNamesOfMixtral) {
  auto c = mixtral();
  widen_vocabulary(c);
  auto n = native_llama(c);
  const json weights = {{"num_bits", 4}, {"type", "int"}, {"symmetric", true}, {"strategy", "channel"}};
  n.params["quantization"] = {{"quant_method", "compressed-tensors"},
                              {"format", "pack-quantized"},
                              {"config_groups", {{"g", {{"targets", {"Linear"}}, {"weights", weights}}}}}};
  for (std::int64_t e = 0; e < c.experts; ++e)
    pack(n, "layers.0.feed_forward.experts." + std::to_string(e) + ".w1");
  EXPECT_EQ(gguf::type_name(converted(n, "got.gguf", "auto").find("blk.0.ffn_gate_exps.weight")->type),
            "q4_0");
  for (const char* name :
       {"model.layers.0.block_sparse_moe.experts", "re:.*block_sparse_moe.experts.0.w1$"}) {
    n.params["quantization"]["ignore"] = {name};
    expect_refused(n, {"layers.0.feed_forward.experts.0.w1.weight_packed", "ignored"});
  }
}

TEST_F(NativeLayout, WhatIsNoCheckpoint) {
  const auto refused = [&](const std::filesystem::path& in, const std::string& part,
                           const std::string& type = "") {
    hf::convert_options o;
    o.quantize.in = in, o.quantize.out = dir / "refused.gguf", o.quantize.quiet = true,
    o.quantize.type = type;
    o.quantize.lattice = !type.empty();
    const auto done = hf::convert(o);
    ASSERT_FALSE(done) << part;
    EXPECT_NE(done.error().message.find(part), std::string::npos) << done.error().message;
  };
  refused(dir / "none", "none: no such folder");
  write_file(dir / "model.gguf", "GGUF");
  refused(dir / "model.gguf", "model.gguf: is no folder");
  std::filesystem::create_directories(dir / "empty");
  refused(dir / "empty", "empty: neither config.json nor params.json");
  write_file(dir / "empty" / "params.json", "{}");
  write_file(dir / "empty" / "model.safetensors", "");
  refused(dir / "empty", "empty: params.json needs consolidated*.safetensors");
  auto c = llama();
  widen_vocabulary(c);
  native_llama(c).write(dir / "in", false);
  refused(dir / "in", "--lattice has no effect with type auto", "auto");
  std::filesystem::rename(dir / "in" / "consolidated.safetensors", dir / "in" / "consolidated.00.pth");
  refused(dir / "in", "nor consolidated.safetensors, but consolidated.00.pth: only safetensors are read");
}

TEST_F(NativeLayout, BothLayoutsInOneFolder) {
  auto c = llama();
  widen_vocabulary(c);
  const auto want = converted(c, "want.gguf");
  native_llama(c).write(dir / "in");  // beside it: transformers' is taken
  hf::convert_options o;
  o.quantize.in = dir / "in", o.quantize.out = dir / "both.gguf", o.quantize.quiet = true, o.name = "a model";
  ASSERT_TRUE(hf::convert(o));
  EXPECT_TRUE(read_file(dir / "both.gguf") == read_file(dir / "want.gguf"));
  for (const char* name : {"model.safetensors.index.json", "model-00001-of-00002.safetensors"})
    std::filesystem::remove(dir / "in" / name);
  o.quantize.out = dir / "own.gguf";
  const auto done = hf::convert(o);
  ASSERT_TRUE(done) << done.error().message;
  const auto own = gguf::reader::open(dir / "own.gguf");
  ASSERT_TRUE(own);
  EXPECT_EQ(*own->meta().string("tokenizer.ggml.pre"), "tekken");
}

}  // namespace
}  // namespace quantal::test
