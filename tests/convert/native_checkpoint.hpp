// Checkpoints in Mistral's own layout, made from those of the same models in the layout of transformers: other names, and
// rotary pairs side by side.
#pragma once

#include "checkpoint_maker.hpp"

namespace quantal::test {

struct native_checkpoint {
  json params, tekken;
  std::vector<raw_tensor> tensors;

  raw_tensor& at(const std::string& name) {
    for (auto& t : tensors)
      if (t.name == name) return t;
    throw std::out_of_range(name);
  }
  /// Two shards and an index, or one file.
  void write(const std::filesystem::path& dir, bool shards = true) const {
    std::filesystem::create_directories(dir);
    write_file(dir / "params.json", params.dump());
    write_file(dir / "tekken.json", tekken.dump());
    write_file(dir / "README.md", "---\nlicense: mit\n---\n# A model\n");
    if (!shards) return write_file(dir / "consolidated.safetensors", safetensors_bytes(tensors));
    const auto half = tensors.begin() + static_cast<std::ptrdiff_t>(tensors.size() / 2);
    const std::vector<std::pair<std::string, std::vector<raw_tensor>>> parts = {
        {"consolidated-00001-of-00002.safetensors", {tensors.begin(), half}},
        {"consolidated-00002-of-00002.safetensors", {half, tensors.end()}}};
    for (const auto& [file, list] : parts) write_file(dir / file, safetensors_bytes(list));
    write_file(dir / "consolidated.safetensors.index.json", index_json(parts));
  }
};

/// Four special tokens, of which two have names, the bytes, "ab", "abc" and a token that no model uses.
inline json tekken_json() {
  json vocab = json::array();
  for (int b = 0; b < 256; ++b)
    vocab.push_back({{"rank", b}, {"token_bytes", base64(std::string(1, static_cast<char>(b)))}});
  vocab.push_back({{"rank", 256}, {"token_bytes", "YWI="}, {"token_str", "ab"}});
  vocab.push_back({{"rank", 257}, {"token_bytes", "YWJj"}, {"token_str", "abc"}});
  vocab.push_back({{"rank", 258}, {"token_bytes", "YmM="}, {"token_str", "bc"}});
  const json special = {{{"rank", 0}, {"token_str", "<unk>"}, {"is_control", true}},
                        {{"rank", 1}, {"token_str", "<s>"}, {"is_control", true}},
                        {{"rank", 2}, {"token_str", "</s>"}, {"is_control", true}}};
  return {
      {"config",
       {{"pattern",
         R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"},
        {"num_vocab_tokens", 259},
        {"default_vocab_size", 262},
        {"default_num_special_tokens", 4},
        {"version", "v7"}}},
      {"vocab", vocab},
      {"special_tokens", special}};
}

/// `name` with the words of transformers replaced, the longest first.
inline std::string native_name(std::string name, bool latent) {
  const std::vector<std::pair<std::string, std::string>> words = {
      {"model.embed_tokens", "tok_embeddings"},
      {"model.norm", "norm"},
      {"model.layers", "layers"},
      {"lm_head", "output"},
      {"self_attn", "attention"},
      {"q_a_layernorm", "q_a_norm"},
      {"kv_a_layernorm", "kv_a_norm"},
      {"post_attention_layernorm", "ffn_norm"},
      {"input_layernorm", "attention_norm"},
      {"kv_a_proj_with_mqa", "wkv_a_with_mqa"},
      {"kv_b_proj", "wkv_b"},
      {"q_a_proj", "wq_a"},
      {"q_b_proj", "wq_b"},
      {"q_proj", "wq"},
      {"k_proj", "wk"},
      {"v_proj", "wv"},
      {"o_proj", "wo"},
      {"gate_proj", "w1"},
      {"down_proj", "w2"},
      {"up_proj", "w3"},
      {"block_sparse_moe", "feed_forward"},
      {latent ? "mlp.experts" : "", "experts"},
      {latent ? "mlp.shared_experts" : "", "shared_experts"},
      {latent ? "mlp.gate" : "", "gate"},
      {"mlp", "feed_forward"}};
  for (const auto& [from, to] : words)
    if (const auto at = from.empty() ? std::string::npos : name.find(from); at != std::string::npos)
      name.replace(at, from.size(), to);
  return name;
}

/// Rows 2i and 2i + 1 of a head are rows i and i + width / 2 of the one in halves.
inline std::string with_neighbours(const raw_tensor& t, std::int64_t width) {
  const std::size_t row = t.bytes.size() / static_cast<std::size_t>(t.shape[0]);
  std::string out;
  for (std::int64_t r = 0; r < t.shape[0]; ++r) {
    const auto from = r / width * width + r % 2 * (width / 2) + r % width / 2;
    out += t.bytes.substr(static_cast<std::size_t>(from) * row, row);
  }
  return out;
}

/// A vocabulary of 600, which tekken_json() fits into.
inline void widen_vocabulary(fake_checkpoint& c) {
  for (auto& t : c.tensors)
    if (t.name == "model.embed_tokens.weight" || t.name == "lm_head.weight") {
      const auto row = t.bytes.size() / static_cast<std::size_t>(t.shape[0]);
      while (t.bytes.size() < 600 * row) t.bytes += t.bytes;
      t.bytes.resize(600 * row), t.shape[0] = 600;
    }
  c.config["vocab_size"] = 600;
}

/// Of Mistral and Mixtral.
inline native_checkpoint native_llama(const fake_checkpoint& c) {
  native_checkpoint n;
  const auto& k = c.config;
  n.params = {{"dim", k["hidden_size"]},
              {"n_layers", k["num_hidden_layers"]},
              {"head_dim", k["head_dim"]},
              {"hidden_dim", k["intermediate_size"]},
              {"n_heads", k["num_attention_heads"]},
              {"n_kv_heads", k["num_key_value_heads"]},
              {"norm_eps", k["rms_norm_eps"]},
              {"vocab_size", k["vocab_size"]},
              {"rope_theta", k["rope_theta"]},
              {"max_seq_len", k["max_position_embeddings"]}};
  if (k.contains("num_local_experts"))
    n.params["moe"] = {{"num_experts", k["num_local_experts"]},
                       {"num_experts_per_tok", k["num_experts_per_tok"]}};
  n.tekken = tekken_json();
  for (auto t : c.tensors) {
    if (t.name.find("q_proj") != std::string::npos || t.name.find("k_proj") != std::string::npos)
      t.bytes = with_neighbours(t, k["head_dim"]);
    t.name = native_name(t.name, false);
    n.tensors.push_back(std::move(t));
  }
  return n;
}

/// Of Mistral Large 3, from a model with latent attention whose rotary pairs are neighbours already.
inline native_checkpoint native_latent(const fake_checkpoint& c) {
  native_checkpoint n;
  const auto &k = c.config, &rope = k["rope_scaling"];
  n.params = {
      {"dim", k["hidden_size"]},
      {"n_layers", k["num_hidden_layers"]},
      {"head_dim", 64},
      {"hidden_dim", k["intermediate_size"]},
      {"n_heads", k["num_attention_heads"]},
      {"n_kv_heads", k["num_attention_heads"]},
      {"norm_eps", k["rms_norm_eps"]},
      {"vocab_size", k["vocab_size"]},
      {"rope_theta", k["rope_theta"]},
      {"max_position_embeddings", k["max_position_embeddings"]},
      {"q_lora_rank", k["q_lora_rank"]},
      {"kv_lora_rank", k["kv_lora_rank"]},
      {"qk_rope_head_dim", k["qk_rope_head_dim"]},
      {"qk_nope_head_dim", k["qk_nope_head_dim"]},
      {"v_head_dim", k["v_head_dim"]},
      {"yarn",
       {{"factor", rope["factor"]},
        {"original_max_position_embeddings", rope["original_max_position_embeddings"]},
        {"beta", rope["beta_fast"]},
        {"alpha", rope["beta_slow"]},
        {"apply_scale", true}}},
      {"llama_4_scaling",
       {{"beta", 0.25}, {"original_max_position_embeddings", rope["original_max_position_embeddings"]}}},
      {"moe",
       {{"expert_parallel", 1},
        {"route_every_n", 1},
        {"first_k_dense_replace", k["first_k_dense_replace"]},
        {"num_experts", k["n_routed_experts"]},
        {"num_experts_per_tok", k["num_experts_per_tok"]},
        {"num_expert_groups", 1},
        {"num_expert_groups_per_tok", 1},
        {"routed_scale", k["routed_scaling_factor"]},
        {"expert_hidden_dim", k["moe_intermediate_size"]},
        {"num_shared_experts", k["n_shared_experts"]}}}};
  n.tekken = tekken_json();
  for (auto t : c.tensors) {
    t.name = native_name(t.name, true);
    n.tensors.push_back(std::move(t));
  }
  return n;
}

}  // namespace quantal::test
