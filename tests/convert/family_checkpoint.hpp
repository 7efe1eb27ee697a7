// Small random checkpoints of the families with plain attention, in the names and shapes that their own library
// writes; made without the converter's tables.
#pragma once

#include "checkpoint_maker.hpp"

namespace quantal::test {

class family_checkpoint : public fake_checkpoint {
 public:
  static constexpr std::int64_t layers = 2, embedding = 64, hidden = 96, heads = 4, kv_heads = 2, head = 32,
                                vocabulary = 40, experts = 4, expert_hidden = 32;

  explicit family_checkpoint(const std::string& architecture) {
    config = {{"architectures", {architecture}},
              {"hidden_size", embedding},
              {"intermediate_size", hidden},
              {"num_hidden_layers", layers},
              {"num_attention_heads", heads},
              {"num_key_value_heads", kv_heads},
              {"head_dim", head},
              {"vocab_size", vocabulary},
              {"max_position_embeddings", 4096},
              {"rms_norm_eps", 1e-5},
              {"rope_theta", 10000.0},
              {"tie_word_embeddings", false},
              {"bos_token_id", 0},
              {"eos_token_id", 1}};
    tokenizer = {
        {"added_tokens", json::array()},
        {"normalizer", nullptr},
        {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}}},
        {"model", {{"type", "BPE"}, {"vocab", {{"a", 2}, {"b", 3}, {"ab", 4}}}, {"merges", {"a b"}}}}};
    tokenizer_config = json::object();
  }

  /// A random bf16 tensor.
  void add(const std::string& name, std::vector<std::int64_t> shape) {
    std::int64_t n = 1;
    for (const auto d : shape) n *= d;
    std::string bytes;
    for (std::int64_t i = 0; i < n; ++i) {
      const auto v = to_bf16((static_cast<float>(random() % 2001) - 1000) / 4096);
      bytes.append(reinterpret_cast<const char*>(&v), 2);
    }
    tensors.push_back({name, "BF16", std::move(shape), std::move(bytes)});
  }
  void add_bytes(const std::string& name, std::vector<std::int64_t> shape, unsigned low, unsigned count) {
    std::int64_t n = 1;
    for (const auto d : shape) n *= d;
    std::string bytes;
    for (std::int64_t i = 0; i < n; ++i) bytes += static_cast<char>(low + random() % count);
    tensors.push_back({name, "U8", std::move(shape), std::move(bytes)});
  }
  /// Element `i` of a bf16 tensor.
  float at(const std::string& name, std::int64_t i) {
    std::uint32_t u = 0;
    std::memcpy(reinterpret_cast<char*>(&u) + 2, fake_checkpoint::at(name).bytes.data() + 2 * i, 2);
    float f;
    std::memcpy(&f, &u, 4);
    return f;
  }
  using fake_checkpoint::at;

  void outer(const std::string& body = "model.") {
    add(body + "embed_tokens.weight", {vocabulary, embedding});
    add(body + "norm.weight", {embedding});
    if (!config["tie_word_embeddings"].get<bool>()) add("lm_head.weight", {vocabulary, embedding});
  }
  static std::string layer(std::int64_t i, const std::string& body = "model.") {
    return body + "layers." + std::to_string(i) + ".";
  }
  void norms(const std::string& l, const std::vector<std::string>& names) {
    for (const auto& n : names) add(l + n + ".weight", {embedding});
  }
  void attention(const std::string& l, const std::string& biased = "") {
    const std::map<std::string, std::vector<std::int64_t>> shapes = {{"q", {heads * head, embedding}},
                                                                     {"k", {kv_heads * head, embedding}},
                                                                     {"v", {kv_heads * head, embedding}},
                                                                     {"o", {embedding, heads * head}}};
    for (const auto& [name, shape] : shapes) {
      add(l + "self_attn." + name + "_proj.weight", shape);
      if (biased.find(name) != std::string::npos) add(l + "self_attn." + name + "_proj.bias", {shape[0]});
    }
  }
  void head_norms(const std::string& l) {
    for (const char* n : {"q_norm", "k_norm"}) add(l + "self_attn." + n + ".weight", {head});
  }
  void feed_forward(const std::string& l, std::int64_t width = hidden) {
    add(l + "gate_proj.weight", {width, embedding});
    add(l + "up_proj.weight", {width, embedding});
    add(l + "down_proj.weight", {embedding, width});
  }

 private:
  std::uint32_t random() { return state_ = state_ * 1664525u + 1013904223u, state_ >> 8; }
  std::uint32_t state_ = 7;
};

inline const std::vector<std::string> two_norms = {"input_layernorm", "post_attention_layernorm"};

inline family_checkpoint llama(const std::string& biased = "") {
  family_checkpoint c("LlamaForCausalLM");
  c.outer();
  for (std::int64_t i = 0; i < c.layers; ++i) {
    c.norms(c.layer(i), two_norms);
    c.attention(c.layer(i), biased);
    c.feed_forward(c.layer(i) + "mlp.");
  }
  return c;
}

inline family_checkpoint mixtral() {
  family_checkpoint c("MixtralForCausalLM");
  c.config["num_local_experts"] = c.experts, c.config["num_experts_per_tok"] = 2;
  c.outer();
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const auto moe = c.layer(i) + "block_sparse_moe.";
    c.norms(c.layer(i), two_norms);
    c.attention(c.layer(i));
    c.add(moe + "gate.weight", {c.experts, c.embedding});
    for (std::int64_t e = 0; e < c.experts; ++e) {
      const auto expert = moe + "experts." + std::to_string(e) + ".";
      c.add(expert + "w1.weight", {c.hidden, c.embedding});
      c.add(expert + "w2.weight", {c.embedding, c.hidden});
      c.add(expert + "w3.weight", {c.hidden, c.embedding});
    }
  }
  return c;
}

/// Qwen 2 has biases and fills the embedding with its heads; Qwen 3 has norms of heads.
inline family_checkpoint qwen(int version, bool sparse) {
  const std::string name = "Qwen" + std::to_string(version);
  family_checkpoint c(name + (sparse ? "MoeForCausalLM" : "ForCausalLM"));
  if (version == 2) c.config["num_attention_heads"] = c.heads / 2, c.config["num_key_value_heads"] = 1;
  if (sparse) {
    c.config["num_experts"] = c.experts, c.config["num_experts_per_tok"] = 2;
    c.config["moe_intermediate_size"] = c.expert_hidden, c.config["norm_topk_prob"] = version == 3;
    if (version == 2) c.config["shared_expert_intermediate_size"] = c.hidden;
  }
  c.outer();
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const auto l = c.layer(i);
    c.norms(l, two_norms);
    if (version == 3) {
      c.attention(l);
      c.head_norms(l);
    } else {
      for (const std::string n : {"q", "k", "v"}) {
        const std::int64_t rows = n == "q" ? c.embedding : c.head;
        c.add(l + "self_attn." + n + "_proj.weight", {rows, c.embedding});
        c.add(l + "self_attn." + n + "_proj.bias", {rows});
      }
      c.add(l + "self_attn.o_proj.weight", {c.embedding, c.embedding});
    }
    if (!sparse) {
      c.feed_forward(l + "mlp.");
      continue;
    }
    c.add(l + "mlp.gate.weight", {c.experts, c.embedding});
    for (std::int64_t e = 0; e < c.experts; ++e)
      c.feed_forward(l + "mlp.experts." + std::to_string(e) + ".", c.expert_hidden);
    if (version == 3) continue;
    c.feed_forward(l + "mlp.shared_expert.");
    c.add(l + "mlp.shared_expert_gate.weight", {1, c.embedding});
  }
  return c;
}

inline family_checkpoint gemma(const std::string& body = "model.") {
  family_checkpoint c("Gemma3ForCausalLM");
  c.config["tie_word_embeddings"] = true, c.config["sliding_window"] = 512;
  c.config["rope_local_base_freq"] = 20000.0, c.config["rope_theta"] = 1e6;
  c.config["hidden_activation"] = "gelu_pytorch_tanh";
  c.config["query_pre_attn_scalar"] = c.head;
  c.outer(body);
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const auto l = c.layer(i, body);
    c.norms(l, two_norms);
    c.norms(l, {"pre_feedforward_layernorm", "post_feedforward_layernorm"});
    c.attention(l);
    c.head_norms(l);
    c.feed_forward(l + "mlp.");
  }
  return c;
}

/// Experts as packed mxfp4, or as floats whose rows are inputs.
inline family_checkpoint gpt_oss(bool packed) {
  family_checkpoint c("GptOssForCausalLM");
  c.config["intermediate_size"] = c.expert_hidden, c.config["num_local_experts"] = c.experts;
  c.config["num_experts_per_tok"] = 2, c.config["sliding_window"] = 128, c.config["attention_bias"] = true;
  c.config["rope_scaling"] = {
      {"rope_type", "yarn"}, {"factor", 32}, {"original_max_position_embeddings", 128}, {"truncate", false}};
  if (packed) c.config["quantization_config"] = {{"quant_method", "mxfp4"}};
  c.outer();
  for (std::int64_t i = 0; i < c.layers; ++i) {
    const auto l = c.layer(i), experts = l + "mlp.experts.";
    c.norms(l, two_norms);
    c.attention(l, "qkvo");
    c.add(l + "self_attn.sinks", {c.heads});
    c.add(l + "mlp.router.weight", {c.experts, c.embedding});
    c.add(l + "mlp.router.bias", {c.experts});
    c.add(experts + "gate_up_proj_bias", {c.experts, 2 * c.expert_hidden});
    c.add(experts + "down_proj_bias", {c.experts, c.embedding});
    const auto matrix = [&](const std::string& name, std::int64_t in, std::int64_t out) {
      if (!packed) return c.add(experts + name, {c.experts, in, out});
      c.add_bytes(experts + name + "_blocks", {c.experts, out, in / 32, 16}, 0, 256);
      c.add_bytes(experts + name + "_scales", {c.experts, out, in / 32}, 118, 6);
    };
    matrix("gate_up_proj", c.embedding, 2 * c.expert_hidden);
    matrix("down_proj", c.expert_hidden, c.embedding);
  }
  return c;
}

}  // namespace quantal::test
