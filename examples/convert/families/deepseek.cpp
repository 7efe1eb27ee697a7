// Latent attention (MLA): DeepSeek V2 to V3.2, Kimi-K2, GLM-4.7-Flash, GLM-5, Youtu, Mistral Small 4. The GGUF architecture
// deepseek2 serves them all.
#include "families/decoder.hpp"
#include "families/rope.hpp"

namespace quantal::hf::deepseek {
namespace {

constexpr auto attention = std::to_array<tensor_row>({
    {"blk.#.attn_norm.weight", "layers.#.input_layernorm.weight", size::one, size::embedding, trait::none,
     assembly::vector},
    {"blk.#.attn_q_a.weight", "layers.#.self_attn.q_a_proj.weight", size::q_rank, size::embedding,
     trait::query_latent},
    {"blk.#.attn_q_a_norm.weight", "layers.#.self_attn.q_a_layernorm.weight", size::one, size::q_rank,
     trait::query_latent, assembly::vector},
    {"blk.#.attn_q_b.weight", "layers.#.self_attn.q_b_proj.weight", size::queries, size::q_rank,
     trait::query_latent},
    {"blk.#.attn_q.weight", "layers.#.self_attn.q_proj.weight", size::queries, size::embedding,
     trait::direct_query},
    {"blk.#.attn_kv_a_mqa.weight", "layers.#.self_attn.kv_a_proj_with_mqa.weight", size::kv_latent,
     size::embedding},
    {"blk.#.attn_kv_a_norm.weight", "layers.#.self_attn.kv_a_layernorm.weight", size::one, size::kv_rank,
     trait::none, assembly::vector},
    {"blk.#.attn_kv_b.weight", "layers.#.self_attn.kv_b_proj.weight", size::kv_up, size::kv_rank,
     trait::joined_up},
    {"blk.#.attn_k_b.weight", "layers.#.self_attn.kv_b_proj.weight", size::kv_up, size::kv_rank, trait::none,
     assembly::keys},
    {"blk.#.attn_v_b.weight", "layers.#.self_attn.kv_b_proj.weight", size::kv_up, size::kv_rank, trait::none,
     assembly::values},
    {"blk.#.attn_output.weight", "layers.#.self_attn.o_proj.weight", size::embedding, size::head_values},
    {"blk.#.ffn_norm.weight", "layers.#.post_attention_layernorm.weight", size::one, size::embedding,
     trait::none, assembly::vector},
});
constexpr auto routing_bias = std::to_array<tensor_row>({
    {"blk.#.exp_probs_b.bias", "layers.#.mlp.gate.e_score_correction_bias", size::one, size::experts,
     trait::sparse | trait::routing_bias, assembly::vector},
});
constexpr auto shared_experts = std::to_array<tensor_row>({
    {"blk.#.ffn_gate_shexp.weight", "layers.#.mlp.shared_experts.gate_proj.weight", size::shared_hidden,
     size::embedding, trait::sparse | trait::shared_experts},
    {"blk.#.ffn_up_shexp.weight", "layers.#.mlp.shared_experts.up_proj.weight", size::shared_hidden,
     size::embedding, trait::sparse | trait::shared_experts},
    {"blk.#.ffn_down_shexp.weight", "layers.#.mlp.shared_experts.down_proj.weight", size::embedding,
     size::shared_hidden, trait::sparse | trait::shared_experts},
});
constexpr auto tensors =
    join(outer_tensors, attention, feed_forward_tensors, router, routing_bias, expert_stacks, shared_experts);

/// Experts of a block in one tensor, gate and up of each in one matrix.
constexpr auto joined_experts = std::to_array<tensor_row>({
    {"blk.#.ffn_gate_exps.weight", "layers.#.mlp.experts.gate_up_proj", size::expert_gate_up, size::embedding,
     trait::sparse, assembly::matrix, order::first_half, false, false, size::experts},
    {"blk.#.ffn_up_exps.weight", "layers.#.mlp.experts.gate_up_proj", size::expert_gate_up, size::embedding,
     trait::sparse, assembly::matrix, order::second_half, false, false, size::experts},
    {"blk.#.ffn_down_exps.weight", "layers.#.mlp.experts.down_proj", size::embedding, size::expert_hidden,
     trait::sparse, assembly::matrix, order::same, false, false, size::experts},
});
constexpr auto mistral_tensors =
    join(outer_tensors, attention, feed_forward_tensors, router, joined_experts, shared_experts);

/// What differs between the models: defaults of keys, and what is left out.
enum class variant { v2, v3, sparse, glm, sparse_glm, dense, mistral };

bool has_indexer(variant v) { return v == variant::sparse || v == variant::sparse_glm; }

void read_sizes(key_reader& k, mla::config& c) {
  c.layers = k.integer("num_hidden_layers", 1, 1024);
  c.embedding = k.integer("hidden_size", 1, largest_size);
  c.vocabulary = k.integer("vocab_size", 1, longest_context);
  c.context = k.integer("max_position_embeddings", 1, longest_context);
  c.heads = k.integer("num_attention_heads", 1, 4096);
  c.nope = k.integer("qk_nope_head_dim", 1, largest_size);
  c.rope = k.integer("qk_rope_head_dim", 2, largest_size);
  c.value = k.integer("v_head_dim", 1, largest_size);
  c.kv_rank = k.integer("kv_lora_rank", 1, largest_size);
  c.q_rank = k.integer_or("q_lora_rank", 0, 0, largest_size);
  c.dense_hidden = k.integer("intermediate_size", 1, largest_size);
  c.rms_epsilon = k.number("rms_norm_eps", 0.0);
  for (const char* sum : {"head_dim", "qk_head_dim"}) k.get(sum);  // follow from the others
  if (c.rope % 2) k.fail("qk_rope_head_dim", "is odd");
}

/// What the format takes for granted.
void check_assumptions(key_reader& k) {
  k.only("hidden_act", "silu");
  k.only("attention_bias", false);
  k.only("mlp_bias", false);
  k.only("moe_layer_freq", 1);
  k.only("rope_interleave", true);
  k.only("partial_rotary_factor", 1.0);
}

/// Blocks without experts: they lead, whichever way the number is said.
std::int64_t read_dense_layers(key_reader& k, std::int64_t layers) {
  const auto* kinds = k.get("mlp_layer_types");
  if (!kinds) return k.integer("first_k_dense_replace", 0, layers);
  k.get("first_k_dense_replace");
  if (!kinds->is_array() || static_cast<std::int64_t>(kinds->size()) != layers)
    return k.fail("mlp_layer_types", "does not name every layer"), 0;
  const auto first =
      std::find_if(kinds->begin(), kinds->end(), [](const document& d) { return d != "dense"; });
  if (std::any_of(first, kinds->end(), [](const document& d) { return d != "sparse"; }))
    k.fail("mlp_layer_types", "is not dense layers followed by sparse ones");
  return first - kinds->begin();
}

void read_routing(key_reader& k, variant v, model_config& m) {
  auto& c = m.hyper;
  c.experts = k.integer_or("n_routed_experts", 0, 0, 1024);
  c.dense_layers = c.experts ? read_dense_layers(k, c.layers) : c.layers;
  const bool plain = v == variant::v2 || v == variant::mistral;
  const std::string method = k.text_or("topk_method", plain ? "greedy" : "noaux_tc");
  const std::string scoring = k.text_or("scoring_func", plain ? "softmax" : "sigmoid");
  if (v == variant::mistral) k.only("n_group", 1);
  if (c.experts == 0) return;
  c.experts_used = k.integer("num_experts_per_tok", 1, c.experts);
  c.experts_shared = k.integer_or("n_shared_experts", 0, 0, 64);
  c.expert_hidden = k.integer("moe_intermediate_size", 1, largest_size);
  c.weights_scale = k.number("routed_scaling_factor", 0.0);
  c.normalise_weights = k.flag_or("norm_topk_prob", v != variant::v2);
  if (method != "greedy" && method != "group_limited_greedy" && method != "noaux_tc")
    k.fail("topk_method", text::in_quotes(method) + " is not supported");
  if (scoring != "softmax" && scoring != "sigmoid")
    k.fail("scoring_func", text::in_quotes(scoring) + " is not supported");
  c.gate = scoring == "sigmoid" ? mla::gating::sigmoid : mla::gating::softmax;
  if (method == "noaux_tc") m.traits |= trait::routing_bias;
  c.groups = k.integer_or("n_group", 1, 1, c.experts);
  c.groups_used = k.integer_or("topk_group", 1, 1, c.experts);
  if (method == "greedy") c.groups = c.groups_used = 1;
  if (c.experts % c.groups != 0) return k.fail("n_group", "does not divide n_routed_experts");
  if (c.groups_used > c.groups) return k.fail("topk_group", "is more than n_group");
  if (c.experts_used > c.groups_used * (c.experts / c.groups))
    k.fail("num_experts_per_tok", "is more than the used groups hold");
}

void read_yarn(key_reader& k, mla::yarn& y) {
  y.factor = k.number("factor", 1e-6);
  y.original_context = static_cast<double>(k.integer("original_max_position_embeddings", 1, longest_context));
  y.beta_fast = k.number_or("beta_fast", 32, 0.0);
  y.beta_slow = k.number_or("beta_slow", 1, 0.0);
  y.ext_factor = 1;
  const double mscale = k.number_or("mscale", 1, 0.0), all = k.number_or("mscale_all_dim", 0, 0.0);
  if (mscale != all)
    k.fail("mscale",
           text::format("= %g differs from mscale_all_dim = %g; a deepseek2 GGUF has one value for both",
                        mscale, all));
  y.log_multiplier = 0.1 * all;
}

/// Mistral Large 3: queries grow with their position, from yarn's original context on.
void read_temperature(key_reader& k, rope_reader& rope, model_config& m) {
  if (rope.parameters().has("llama_4_scaling_beta"))
    m.temperature = rope.parameters().number("llama_4_scaling_beta", 0.0);
  const auto* own = k.get("llama_4_scaling");
  if (own && !own->is_object()) return k.fail("llama_4_scaling", "is no object");
  if (own) {
    key_reader t(*own, k.where() + ": llama_4_scaling");
    m.temperature = t.number("beta", 0.0);
    const auto from = t.integer("original_max_position_embeddings", 1, longest_context);
    if (static_cast<double>(from) != m.hyper.scaling.original_context)
      t.fail("original_max_position_embeddings",
             std::to_string(from) + " is not that of yarn, which the GGUF has for both");
    k.adopt(t);
  }
}

void read_rotation(key_reader& k, model_config& m) {
  rope_reader rope(k);
  m.hyper.rope_base = rope.base();
  const auto type = rope.type();
  if (type == "yarn") {
    read_yarn(rope.parameters(), m.hyper.scaling);
    read_temperature(k, rope, m);
  } else if (type == "default") {
    rope.parameters().only("llama_4_scaling_beta", 0.0);
    refuse_temperature(k, " without yarn");
  } else {
    return rope.refuse(type, "yarn");
  }
  rope.note_unused(m);
}

void read_indexer(key_reader& k, model_config& m) {
  m.sparse_from = k.integer("index_topk", 1, longest_context);
  for (const char* key : {"index_head_dim", "index_n_heads", "indexer_rope_interleave", "index_topk_freq",
                          "index_topk_pattern", "indexer_types"})
    k.get(key);
  m.notices.push_back(
      "the indexer of sparse attention is left out: attention is dense, which is the same for up to " +
      std::to_string(m.sparse_from) + " tokens (index_topk)");
}

/// The sizes that the table of tensors needs.
void set_sizes(model_config& m) {
  const auto& c = m.hyper;
  auto& s = m.sizes;
  s[size::layers] = c.layers;
  s[size::vocabulary] = c.vocabulary;
  s[size::embedding] = c.embedding;
  s[size::hidden] = c.dense_hidden;
  s[size::queries] = c.heads * c.key();
  s[size::head_values] = c.heads * c.value;
  s[size::experts] = c.experts;
  s[size::expert_hidden] = c.expert_hidden;
  s[size::expert_gate_up] = 2 * c.expert_hidden;
  s[size::shared_hidden] = c.experts_shared * c.expert_hidden;
  s[size::q_rank] = c.q_rank;
  s[size::kv_rank] = c.kv_rank;
  s[size::kv_latent] = c.kv_rank + c.rope;
  s[size::kv_up] = c.heads * (c.nope + c.value);
  m.dense_layers = c.dense_layers;
  m.traits |= c.q_rank ? trait::query_latent : trait::direct_query;
  if (c.experts_shared) m.traits |= trait::shared_experts;
  if (m.layout == mla::layout::rows_kv_b) m.traits |= trait::joined_up;
}

void set_attention(model_config& m) {
  const auto& c = m.hyper;
  m.set_integer("attention.head_count", c.heads);
  m.set_integer("attention.head_count_kv", c.heads);
  m.set_number("attention.layer_norm_rms_epsilon", c.rms_epsilon);
  if (c.q_rank) m.set_integer("attention.q_lora_rank", c.q_rank);
  m.set_integer("attention.kv_lora_rank", c.kv_rank);
  mla::set_layout_keys(m.keys, c, m.layout);
  if (m.temperature == 0.0) return;
  m.set_number("attention.temperature_scale", m.temperature);
  m.set_integer("attention.temperature_length", static_cast<std::int64_t>(c.scaling.original_context));
}

void set_rope(model_config& m) {
  const auto& c = m.hyper;
  m.set_integer("rope.dimension_count", c.rope);
  m.set_number("rope.freq_base", c.rope_base);
  const auto& y = c.scaling;
  if (y.ext_factor == 0) return;
  m.set("rope.scaling.type", std::string("yarn"));
  m.set_number("rope.scaling.factor", y.factor);
  m.set_integer("rope.scaling.original_context_length", static_cast<std::int64_t>(y.original_context));
  m.set_number("rope.scaling.yarn_beta_fast", y.beta_fast);
  m.set_number("rope.scaling.yarn_beta_slow", y.beta_slow);
  m.set_number("rope.scaling.yarn_log_multiplier", y.log_multiplier);
}

void set_experts(model_config& m) {
  const auto& c = m.hyper;
  if (c.experts == 0) return;
  m.set_integer("expert_count", c.experts);
  m.set_integer("expert_used_count", c.experts_used);
  m.set_integer("expert_shared_count", c.experts_shared);
  m.set_integer("expert_feed_forward_length", c.expert_hidden);
  m.set_number("expert_weights_scale", c.weights_scale);
  m.set("expert_weights_norm", c.normalise_weights);
  m.set_integer("expert_gating_func", static_cast<std::int64_t>(c.gate));
  m.set_integer("expert_group_count", c.groups);
  m.set_integer("expert_group_used_count", c.groups_used);
}

void set_keys(model_config& m) {
  const auto& c = m.hyper;
  m.set_integer("block_count", c.layers);
  m.set_integer("context_length", c.context);
  m.set_integer("embedding_length", c.embedding);
  m.set_integer("feed_forward_length", c.dense_hidden);
  m.set_integer("leading_dense_block_count", c.dense_layers);
  m.set_integer("vocab_size", c.vocabulary);
  set_attention(m);
  set_rope(m);
  set_experts(m);
}

template <variant v>
void read(key_reader& k, model_config& m) {
  m.is_glm = v == variant::glm || v == variant::sparse_glm;
  read_sizes(k, m.hyper);
  check_assumptions(k);
  read_routing(k, v, m);
  read_rotation(k, m);
  if (has_indexer(v)) read_indexer(k, m);
  set_sizes(m);
  set_keys(m);
}

constexpr family member_of(std::string_view class_name, std::string_view model_type,
                           void (*read_it)(key_reader&, model_config&),
                           std::span<const tensor_row> table = tensors) {
  return {class_name, model_type, "deepseek2", {}, table, read_it};
}
constexpr auto families = std::to_array<family>({
    member_of("DeepseekV2ForCausalLM", "deepseek_v2", read<variant::v2>),
    member_of("DeepseekV3ForCausalLM", "deepseek_v3", read<variant::v3>),
    member_of("DeepseekV32ForCausalLM", "deepseek_v32", read<variant::sparse>),
    member_of("KimiK2ForCausalLM", "kimi_k2", read<variant::v3>),
    member_of("Glm4MoeLiteForCausalLM", "glm4_moe_lite", read<variant::glm>),
    member_of("GlmMoeDsaForCausalLM", "glm_moe_dsa", read<variant::sparse_glm>),
    member_of("YoutuForCausalLM", "youtu", read<variant::dense>),
    member_of("Mistral4ForCausalLM", "mistral4", read<variant::mistral>, mistral_tensors),
});

}  // namespace
}  // namespace quantal::hf::deepseek

namespace quantal::hf {

std::span<const family> deepseek_families() { return deepseek::families; }

}  // namespace quantal::hf
