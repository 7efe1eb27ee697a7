// Makes a checkpoint directory in the transformers layout from a deepseek2 GGUF: the converter's work
// backwards, written from the names and shapes of the specification and not from the converter.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>

#include "quantal/dequantize.hpp"
#include "quantal/gguf/reader.hpp"
#include "safetensors_writer.hpp"

namespace quantal::test {

using nlohmann::json;

/// The nearest bf16, ties to even.
inline std::uint16_t to_bf16(float f) {
  std::uint32_t u;
  std::memcpy(&u, &f, 4);
  return static_cast<std::uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16);
}

inline float from_e4m3(std::uint8_t b) {
  const int e = b >> 3 & 15, m = b & 7;
  const double v = e ? std::ldexp(1 + m / 8.0, e - 7) : std::ldexp(m / 8.0, -6);
  return static_cast<float>(b & 0x80 ? -v : v);
}

/// The code whose value is nearest to f, ties to even; |f| <= 448.
inline std::uint8_t to_e4m3(float f) {
  int exponent = 0;
  std::frexp(f, &exponent);
  exponent = std::max(exponent - 1, -6);  // subnormal below 2^-6
  const auto eighths = std::lrint(std::ldexp(std::abs(f), 3 - exponent));
  return static_cast<std::uint8_t>((std::signbit(f) ? 0x80 : 0) | (8 * (exponent + 6) + eighths));
}

/// A checkpoint in memory, to be damaged and written.
struct fake_checkpoint {
  json config, tokenizer, tokenizer_config;
  std::vector<raw_tensor> tensors;

  raw_tensor& at(const std::string& name) {
    for (auto& t : tensors)
      if (t.name == name) return t;
    throw std::out_of_range(name);
  }
  void erase(const std::string& name) {
    std::erase_if(tensors, [&](const raw_tensor& t) { return t.name == name; });
  }
  /// Two shards and an index, or one file.
  void write(const std::filesystem::path& dir, bool shards = true) const {
    std::filesystem::create_directories(dir);
    write_file(dir / "config.json", config.dump());
    write_file(dir / "tokenizer.json", tokenizer.dump());
    write_file(dir / "tokenizer_config.json", tokenizer_config.dump());
    write_file(dir / "README.md", "---\nlicense: mit\n---\n# A model\n");
    if (!shards) return write_file(dir / "model.safetensors", safetensors_bytes(tensors));
    const auto half = tensors.begin() + static_cast<std::ptrdiff_t>(tensors.size() / 2);
    const std::vector<std::pair<std::string, std::vector<raw_tensor>>> parts = {
        {"model-00001-of-00002.safetensors", {tensors.begin(), half}},
        {"model-00002-of-00002.safetensors", {half, tensors.end()}}};
    for (const auto& [file, list] : parts) write_file(dir / file, safetensors_bytes(list));
    write_file(dir / "model.safetensors.index.json", index_json(parts));
  }
};

class checkpoint_maker {
 public:
  explicit checkpoint_maker(const gguf::reader& model) : model_(model) {}

  fake_checkpoint make() {
    make_config();
    make_tokenizer();
    take("token_embd.weight", "model.embed_tokens.weight");
    take("output_norm.weight", "model.norm.weight");
    take("output.weight", "lm_head.weight");
    for (std::int64_t i = 0; i < number("block_count"); ++i) make_block(i);
    return std::move(out_);
  }

 private:
  std::int64_t number(const std::string& key) const {
    const auto v = model_.meta().integer("deepseek2." + key);
    return v ? *v : 0;
  }
  double real(const std::string& key) const { return *model_.meta().number("deepseek2." + key); }

  std::string bytes(const std::string& name) const {
    const auto b = model_.data(*model_.find(name));
    return {reinterpret_cast<const char*>(b->data()), b->size()};
  }
  void add(const std::string& name, const char* dtype, std::vector<std::int64_t> shape, std::string data) {
    out_.tensors.push_back({name, dtype, std::move(shape), std::move(data)});
  }
  void take(const std::string& from, const std::string& to) {
    const auto* t = model_.find(from);
    if (!t) return;
    std::vector<std::int64_t> shape{t->ne[0]};
    if (t->ne[1] > 1) shape.insert(shape.begin(), t->ne[1]);
    add(to, t->type == f32::gguf_id ? "F32" : "BF16", shape, bytes(from));
  }

  void make_block(std::int64_t i) {
    const std::string b = "blk." + std::to_string(i) + ".", p = "model.layers." + std::to_string(i) + ".",
                      a = p + "self_attn.";
    take(b + "attn_norm.weight", p + "input_layernorm.weight");
    take(b + "attn_q.weight", a + "q_proj.weight");
    take(b + "attn_q_a.weight", a + "q_a_proj.weight");
    take(b + "attn_q_a_norm.weight", a + "q_a_layernorm.weight");
    take(b + "attn_q_b.weight", a + "q_b_proj.weight");
    take(b + "attn_kv_a_mqa.weight", a + "kv_a_proj_with_mqa.weight");
    take(b + "attn_kv_a_norm.weight", a + "kv_a_layernorm.weight");
    join_up_projections(b, a);
    take(b + "attn_output.weight", a + "o_proj.weight");
    take(b + "ffn_norm.weight", p + "post_attention_layernorm.weight");
    take(b + "ffn_gate_inp.weight", p + "mlp.gate.weight");
    take(b + "exp_probs_b.bias", p + "mlp.gate.e_score_correction_bias");
    for (const std::string x : {"gate", "up", "down"}) {
      take(b + "ffn_" + x + ".weight", p + "mlp." + x + "_proj.weight");
      take(b + "ffn_" + x + "_shexp.weight", p + "mlp.shared_experts." + x + "_proj.weight");
      take_experts(b + "ffn_" + x + "_exps.weight", p + "mlp.experts.", "." + x + "_proj.weight");
    }
  }

  void take_experts(const std::string& from, const std::string& prefix, const std::string& suffix) {
    const auto* t = model_.find(from);
    if (!t) return;
    const std::string all = bytes(from);
    const std::size_t n = all.size() / static_cast<std::size_t>(t->ne[2]);
    for (std::int64_t e = 0; e < t->ne[2]; ++e)
      add(prefix + std::to_string(e) + suffix, "BF16", {t->ne[1], t->ne[0]},
          all.substr(static_cast<std::size_t>(e) * n, n));
  }

  /// kv_b_proj: row h*(nope+value)+n is column n of head h's attn_k_b, the rows behind are attn_v_b's.
  void join_up_projections(const std::string& b, const std::string& a) {
    const std::string k = bytes(b + "attn_k_b.weight"), v = bytes(b + "attn_v_b.weight");
    const std::int64_t heads = number("attention.head_count"), rank = number("attention.kv_lora_rank"),
                       nope = model_.find(b + "attn_k_b.weight")->ne[0],
                       value = static_cast<std::int64_t>(v.size()) / 2 / heads / rank;
    std::string kv(static_cast<std::size_t>(2 * heads * (nope + value) * rank), '\0');
    const auto copy = [&](std::int64_t to, const std::string& from, std::int64_t at) {
      kv[static_cast<std::size_t>(2 * to)] = from[static_cast<std::size_t>(2 * at)];
      kv[static_cast<std::size_t>(2 * to + 1)] = from[static_cast<std::size_t>(2 * at + 1)];
    };
    for (std::int64_t h = 0; h < heads; ++h)
      for (std::int64_t c = 0; c < rank; ++c) {
        for (std::int64_t n = 0; n < nope; ++n)
          copy((h * (nope + value) + n) * rank + c, k, (h * rank + c) * nope + n);
        for (std::int64_t n = 0; n < value; ++n)
          copy((h * (nope + value) + nope + n) * rank + c, v, (h * value + n) * rank + c);
      }
    add(a + "kv_b_proj.weight", "BF16", {heads * (nope + value), rank}, kv);
  }

  void make_config() {
    const bool v3 = number("expert_gating_func") == 2, mla = number("attention.key_length_mla") > 0;
    const std::int64_t rope = number("rope.dimension_count"),
                       key = number(mla ? "attention.key_length_mla" : "attention.key_length");
    auto& c = out_.config;
    c = {{"architectures", {v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"}},
         {"model_type", v3 ? "deepseek_v3" : "deepseek_v2"},
         {"torch_dtype", "bfloat16"},
         {"hidden_act", "silu"},
         {"attention_bias", false},
         {"num_hidden_layers", number("block_count")},
         {"hidden_size", number("embedding_length")},
         {"intermediate_size", number("feed_forward_length")},
         {"vocab_size", number("vocab_size")},
         {"max_position_embeddings", number("context_length")},
         {"num_attention_heads", number("attention.head_count")},
         {"num_key_value_heads", number("attention.head_count")},
         {"kv_lora_rank", number("attention.kv_lora_rank")},
         {"q_lora_rank", nullptr},
         {"qk_nope_head_dim", key - rope},
         {"qk_rope_head_dim", rope},
         {"v_head_dim", number(mla ? "attention.value_length_mla" : "attention.value_length")},
         {"rms_norm_eps", real("attention.layer_norm_rms_epsilon")},
         {"rope_theta", real("rope.freq_base")},
         {"rope_scaling", nullptr},
         {"n_routed_experts", number("expert_count")},
         {"num_experts_per_tok", number("expert_used_count")},
         {"n_shared_experts", number("expert_shared_count")},
         {"moe_intermediate_size", number("expert_feed_forward_length")},
         {"first_k_dense_replace", number("leading_dense_block_count")},
         {"moe_layer_freq", 1},
         {"routed_scaling_factor", real("expert_weights_scale")},
         {"norm_topk_prob", number("expert_weights_norm") != 0},
         {"scoring_func", v3 ? "sigmoid" : "softmax"},
         {"topk_method", v3 ? "noaux_tc" : "greedy"},
         {"n_group", number("expert_group_count")},
         {"topk_group", number("expert_group_used_count")},
         {"tie_word_embeddings", false},
         {"head_dim", 64}};
    if (const auto q = number("attention.q_lora_rank")) c["q_lora_rank"] = q;
    if (model_.meta().contains("deepseek2.rope.scaling.type"))
      c["rope_scaling"] = {
          {"type", "yarn"},
          {"factor", real("rope.scaling.factor")},
          {"original_max_position_embeddings", number("rope.scaling.original_context_length")},
          {"beta_fast", real("rope.scaling.yarn_beta_fast")},
          {"beta_slow", real("rope.scaling.yarn_beta_slow")},
          {"mscale", 1.0},
          {"mscale_all_dim", 1.0}};
  }

  void make_tokenizer() {
    const auto& tokens = **model_.meta().strings("tokenizer.ggml.tokens");
    const auto types = *model_.meta().integers("tokenizer.ggml.token_type");
    json vocab = json::object(), added = json::array();
    for (std::size_t i = 0; i < tokens.size(); ++i) {
      if (types[i] == 3) added.push_back({{"id", i}, {"content", tokens[i]}, {"special", true}});
      vocab[tokens[i]] = i;
    }
    out_.tokenizer = {
        {"version", "1.0"},
        {"added_tokens", added},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", true}}},
        {"model",
         {{"type", "BPE"}, {"vocab", vocab}, {"merges", **model_.meta().strings("tokenizer.ggml.merges")}}}};
    out_.tokenizer_config = {
        {"bos_token", tokens[0]}, {"eos_token", {{"content", tokens[0]}}}, {"add_bos_token", false}};
  }

  const gguf::reader& model_;
  fake_checkpoint out_;
};

/// How to_fp8 chooses scales and codes: at random, which exercises every bit, or nearest to the weights.
enum class fp8_codes { random, nearest };

/// Turns the projections into fp8 with scales, and answers the same checkpoint in bf16 with the values that
/// the fp8 one stands for.
inline fake_checkpoint to_fp8(fake_checkpoint& c, std::int64_t block = 128,
                              fp8_codes how = fp8_codes::random) {
  fake_checkpoint plain = c;
  std::uint32_t state = 1;
  const auto random = [&] { return state = state * 1664525u + 1013904223u, state >> 8; };
  std::vector<raw_tensor> scales;
  for (auto& t : c.tensors) {
    if (t.name.find("_proj") == std::string::npos || t.name.ends_with("norm.weight")) continue;
    const std::int64_t rows = t.shape[0], cols = t.shape[1], down = (rows + block - 1) / block,
                       across = (cols + block - 1) / block;
    const auto weight = [&](std::int64_t i) {
      std::uint32_t u = 0;
      std::memcpy(reinterpret_cast<char*>(&u) + 2, t.bytes.data() + 2 * i, 2);
      float f;
      std::memcpy(&f, &u, 4);
      return f;
    };
    std::vector<float> scale(static_cast<std::size_t>(down * across));
    const auto scale_of = [&](std::int64_t i) -> float& {
      return scale[static_cast<std::size_t>(i / cols / block * across + i % cols / block)];
    };
    if (how == fp8_codes::random)
      for (auto& s : scale) s = static_cast<float>(random() % 1000 + 1) * 1.7e-6f;
    else
      for (std::int64_t i = 0; i < rows * cols; ++i)
        scale_of(i) = std::max(scale_of(i), std::abs(weight(i)) / 448);
    std::string codes(static_cast<std::size_t>(rows * cols), '\0'), values(codes.size() * 2, '\0');
    for (std::int64_t i = 0; i < rows * cols; ++i) {
      const float s = scale_of(i);
      auto code = how == fp8_codes::random ? static_cast<std::uint8_t>(random())
                                           : to_e4m3(s > 0 ? std::clamp(weight(i) / s, -448.0f, 448.0f) : 0);
      if ((code & 0x7f) == 0x7f) code ^= 1;
      const std::uint16_t v = to_bf16(from_e4m3(code) * s);
      codes[static_cast<std::size_t>(i)] = static_cast<char>(code);
      std::memcpy(values.data() + 2 * i, &v, 2);
    }
    std::string raw(scale.size() * 4, '\0');
    std::memcpy(raw.data(), scale.data(), raw.size());
    scales.push_back({t.name + "_scale_inv", "F32", {down, across}, raw});
    plain.at(t.name).bytes = values;
    t.dtype = "F8_E4M3", t.bytes = codes;
  }
  c.tensors.insert(c.tensors.end(), scales.begin(), scales.end());
  c.config["quantization_config"] = {{"quant_method", "fp8"},
                                     {"fmt", "e4m3"},
                                     {"activation_scheme", "dynamic"},
                                     {"weight_block_size", {block, block}}};
  return plain;
}

}  // namespace quantal::test
