#include "params_json.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

namespace quantal::hf {
namespace {

namespace fs = std::filesystem;

/// The first key of a config.json's name that is there is taken.
constexpr auto names = std::to_array<key_name>({
    {"hidden_size", "dim"},
    {"num_hidden_layers", "n_layers"},
    {"num_attention_heads", "n_heads"},
    {"num_key_value_heads", "n_kv_heads"},
    {"intermediate_size", "hidden_dim"},
    {"rms_norm_eps", "norm_eps"},
    {"tie_word_embeddings", "tied_embeddings"},
    {"hidden_act", "activation"},
    {"max_position_embeddings", "max_position_embeddings"},
    {"max_position_embeddings", "max_seq_len"},
    {"vocab_size", "vocab_size"},
    {"head_dim", "head_dim"},
    {"rope_theta", "rope_theta"},
    {"sliding_window", "sliding_window"},
    {"q_lora_rank", "q_lora_rank"},
    {"kv_lora_rank", "kv_lora_rank"},
    {"qk_rope_head_dim", "qk_rope_head_dim"},
    {"qk_nope_head_dim", "qk_nope_head_dim"},
    {"v_head_dim", "v_head_dim"},
    {"llama_4_scaling", "llama_4_scaling"},
    {"num_experts_per_tok", "moe.num_experts_per_tok"},
    {"num_local_experts", "moe.num_experts"},
    {"n_routed_experts", "moe.num_experts"},
    {"n_shared_experts", "moe.num_shared_experts"},
    {"moe_intermediate_size", "moe.expert_hidden_dim"},
    {"routed_scaling_factor", "moe.routed_scale"},
    {"first_k_dense_replace", "moe.first_k_dense_replace"},
    {"moe_layer_freq", "moe.route_every_n"},
    {"n_group", "moe.num_expert_groups"},
    {"topk_group", "moe.num_expert_groups_per_tok"},
    {"factor", "yarn.factor"},
    {"original_max_position_embeddings", "yarn.original_max_position_embeddings"},
    {"beta_fast", "yarn.beta"},
    {"beta_slow", "yarn.alpha"},
});

constexpr auto words = std::to_array<module_word>({
    {"attention", "self_attn"},
    {"wq", "q_proj"},
    {"wk", "k_proj"},
    {"wv", "v_proj"},
    {"wo", "o_proj"},
    {"wq_a", "q_a_proj"},
    {"wq_b", "q_b_proj"},
    {"wkv_a_with_mqa", "kv_a_proj_with_mqa"},
    {"wkv_b", "kv_b_proj"},
    {"feed_forward.experts", "block_sparse_moe.experts", true},
    {"feed_forward.gate", "block_sparse_moe.gate", true},
    {"feed_forward", "mlp"},
    {"experts", "mlp.experts"},
    {"shared_experts", "mlp.shared_experts"},
    {"gate", "mlp.gate"},
    {"w1", "gate_proj"},
    {"w2", "down_proj"},
    {"w3", "up_proj"},
    {"tok_embeddings", "embed_tokens"},
    {"output", "lm_head"},
});

/// Of a params.json that does not say.
constexpr std::int64_t usual_context = 128000;

class params_reader {
 public:
  params_reader(const document& params, std::string where)
      : params_(params), where_(std::move(where)), k_(params, where_) {}

  result<native_config> read() {
    const auto *moe = part("moe"), *yarn = part("yarn");
    const bool latent = k_.has("qk_nope_head_dim"), sparse = moe && !moe->empty();
    out_.class_name = latent ? "Mistral4ForCausalLM" : sparse ? "MixtralForCausalLM" : "MistralForCausalLM";
    k_.only("model_type", "transformer");
    take_named("", params_);
    if (moe) take_named("moe.", *moe), routing(*moe, latent);
    if (latent && !sparse) out_.config["n_routed_experts"] = 0;
    if (latent || !sparse) out_.config.erase("num_local_experts");
    if (!latent) out_.config.erase("n_routed_experts");
    if (!out_.config.contains("max_position_embeddings"))
      out_.config["max_position_embeddings"] = usual_context;
    if (yarn) scale_positions(*yarn, latent);
    quantize();
    for (const char* key : {"vision_encoder", "multimodal"})
      if (const auto* v = k_.get(key); v && !v->empty()) out_.wrapped = true;
    if (const auto* several = part("multimodal"); several && member(*several, "whisper_model_args"))
      k_.fail("multimodal", "describes a model that hears, which is not supported");
    if (!k_.message().empty()) return error{k_.message()};
    for (const auto& key : k_.unused()) ignored(key);
    out_.names.insert(out_.names.end(), names.begin(), names.end());
    return std::move(out_);
  }

 private:
  /// An object, or null.
  const document* part(const char* key) {
    const auto* p = k_.get(key);
    if (p && !p->is_object()) return k_.fail(key, "is no object"), nullptr;
    return p;
  }

  void ignored(const std::string& key) {
    if (key != "dtype" && key != "max_batch_size")
      out_.notices.push_back(where_ + ": key " + text::in_quotes(key) + " is ignored");
  }

  /// Keys of the object whose names begin with `start`.
  void take_named(std::string_view start, const document& object) {
    for (const auto& n : names) {
      std::string_view own = n.own;
      if (!own.starts_with(start) || own.substr(start.size()).find('.') != own.npos) continue;
      own.remove_prefix(start.size());
      if (start.empty()) k_.get(n.own);
      const auto* v = member(object, own.data());
      if (!v || out_.config.contains(n.config)) continue;
      out_.config[n.config] = *v;
      out_.names.push_back(n);
    }
  }

  /// The rows of `names` that stand for parts of an object leave other keys of it.
  void note_others(const char* object_name, const document& object, const std::set<std::string>& known) {
    for (const auto& [key, value] : object.items()) {
      const auto whole = std::string(object_name) + "." + key;
      const bool named = std::any_of(names.begin(), names.end(), [&](auto& n) { return n.own == whole; });
      if (!named && !known.contains(key)) ignored(whole);
    }
  }

  /// Chosen experts share the weight of one: all that these GGUF files can say of the ways that there may be.
  void routing(const document& moe, bool latent) {
    key_reader m(moe, where_ + ": moe");
    m.only("renorm_strategy", "WEIGHTS");
    m.only("use_load_balancing_bias", false);
    m.only("num_expert_groups", 1);
    k_.adopt(m);
    note_others("moe", moe, {"renorm_strategy", "use_load_balancing_bias"});
    if (!latent) return;
    auto& c = out_.config;
    c["scoring_func"] = "softmax", c["topk_method"] = "greedy", c["norm_topk_prob"] = true;
    for (const auto& [key, value] :
         {std::pair{"first_k_dense_replace", document(0)}, std::pair{"routed_scaling_factor", document(1.0)}})
      if (!c.contains(key)) c[key] = value;
  }

  /// `apply_scale` is whether attention is scaled with the context, which the two kinds say in keys of their own.
  void scale_positions(const document& yarn, bool latent) {
    key_reader y(yarn, where_ + ": yarn");
    const bool scales = y.flag_or("apply_scale", true);
    const double factor = y.number("factor", 1.0);
    k_.adopt(y);
    note_others("yarn", yarn, {"apply_scale"});
    document r = {{"rope_type", "yarn"}};
    for (const auto& n : names)
      if (std::string_view own = n.own; own.starts_with("yarn."))
        if (const auto* v = member(yarn, n.own + 5)) r[n.config] = *v;
    if (latent)
      r["mscale"] = r["mscale_all_dim"] = scales ? 1 : 0;
    else if (!scales)  // programs multiply with the inverse
      r["attention_factor"] = 1 / (1 + 0.1 * std::log(factor));
    out_.config["rope_parameters"] = std::move(r);
  }

  /// One fp8 scale per tensor, or what compressed-tensors wrote.
  void quantize() {
    const auto* q = part("quantization");
    if (!q || q->empty()) return;
    key_reader r(*q, where_ + ": quantization");
    if (r.has("qformat_weight")) {
      r.only("qformat_weight", "fp8_e4m3");
      out_.config["quantization_config"] = {{"quant_method", "fp8"}};
    } else {
      out_.config["quantization_config"] = *q;
    }
    k_.adopt(r);
  }

  const document& params_;
  std::string where_;
  key_reader k_;
  native_config out_{document::object(), {}, false, {}, {}};
};

}  // namespace

bool has_native_layout(const fs::path& directory) {
  std::error_code ignored;
  const auto has = [&](const std::string& name) { return fs::exists(directory / name, ignored); };
  const auto has_weights = [&](const std::string& name) {
    return has(name + ".safetensors") || has(name + ".safetensors.index.json");
  };
  if (!has("params.json")) return false;
  const bool own = has_weights("consolidated"), other = has_weights("model");
  return has("config.json") ? own && !other : own || !other;
}

result<native_config> config_of_params(const document& params, const std::string& where) {
  return params_reader(params, where).read();
}

std::span<const module_word> native_words() { return words; }

}  // namespace quantal::hf
