// Llama 1 to 3, Mistral and what copies them; Mixtral, whose experts the same architecture has.
#include "families/decoder.hpp"
#include "families/rope.hpp"

namespace quantal::hf::llama {
namespace {

constexpr auto keys = join(decoder_keys, feed_forward_keys);
constexpr auto mixtral_keys = join(keys, std::to_array<key_row>({
                                             {"num_local_experts", "expert_count", size::experts},
                                             {"num_experts_per_tok", "expert_used_count", size::experts_used},
                                         }));

/// Rotary pairs are neighbours in this architecture.
constexpr auto attention = std::to_array<tensor_row>({
    {"blk.#.attn_q.weight", "layers.#.self_attn.q_proj.weight", size::queries, size::embedding, trait::none,
     assembly::matrix, order::rotary},
    {"blk.#.attn_q.bias", "layers.#.self_attn.q_proj.bias", size::one, size::queries, trait::attention_bias,
     assembly::vector, order::rotary},
    {"blk.#.attn_k.weight", "layers.#.self_attn.k_proj.weight", size::key_values, size::embedding,
     trait::none, assembly::matrix, order::rotary},
    {"blk.#.attn_k.bias", "layers.#.self_attn.k_proj.bias", size::one, size::key_values,
     trait::attention_bias, assembly::vector, order::rotary},
    {"blk.#.attn_v.weight", "layers.#.self_attn.v_proj.weight", size::key_values, size::embedding},
    {"blk.#.attn_v.bias", "layers.#.self_attn.v_proj.bias", size::one, size::key_values,
     trait::attention_bias, assembly::vector},
    {"blk.#.attn_output.weight", "layers.#.self_attn.o_proj.weight", size::embedding, size::queries},
});
constexpr auto feed_forward_biases = std::to_array<tensor_row>({
    {"blk.#.ffn_gate.bias", "layers.#.mlp.gate_proj.bias", size::one, size::hidden, trait::mlp_bias,
     assembly::vector},
    {"blk.#.ffn_up.bias", "layers.#.mlp.up_proj.bias", size::one, size::hidden, trait::mlp_bias,
     assembly::vector},
    {"blk.#.ffn_down.bias", "layers.#.mlp.down_proj.bias", size::one, size::embedding, trait::mlp_bias,
     assembly::vector},
});
constexpr auto mixtral_experts = std::to_array<tensor_row>({
    {.out = "blk.#.ffn_gate_inp.weight",
     .stored = "layers.#.block_sparse_moe.gate.weight",
     .rows = size::experts,
     .cols = size::embedding,
     .as_f32 = true},
    {"blk.#.ffn_gate_exps.weight", "layers.#.block_sparse_moe.experts.*.w1.weight", size::hidden,
     size::embedding, trait::none, assembly::stack},
    {"blk.#.ffn_up_exps.weight", "layers.#.block_sparse_moe.experts.*.w3.weight", size::hidden,
     size::embedding, trait::none, assembly::stack},
    {"blk.#.ffn_down_exps.weight", "layers.#.block_sparse_moe.experts.*.w2.weight", size::embedding,
     size::hidden, trait::none, assembly::stack},
});

constexpr auto shared = join(rope_factor_tensor, outer_tensors, block_norms, attention, output_bias);
constexpr auto tensors = join(shared, feed_forward_tensors, feed_forward_biases);
constexpr auto mixtral_tensors = join(shared, mixtral_experts);

/// Bases of a config.json that has none: the first models were published so.
constexpr double llama_base = 1e4, mixtral_base = 1e6;

void read_common(key_reader& k, model_config& m, double base) {
  m.set_integer("vocab_size", m.sizes[size::vocabulary]);
  m.set_integer("rope.dimension_count", m.sizes[size::head]);
  if (k.has("head_dim")) set_head_width(m);
  read_rope(k, m, base);
  // `llama_4_scaling`, the temperature as an object of its own (params.json): no family here has a key for it.
  refuse_temperature(k, "");
  leave_out_window(k, m, k.flag_or("use_sliding_window", true));
  k.only("hidden_act", "silu");
  if (k.flag_or("attention_bias", false)) m.traits |= trait::attention_bias;
  if (k.flag_or("mlp_bias", false)) m.traits |= trait::mlp_bias;
}

void read_llama(key_reader& k, model_config& m) { read_common(k, m, llama_base); }

void read_mixtral(key_reader& k, model_config& m) {
  read_common(k, m, mixtral_base);
  k.only("mlp_bias", false);
  read_experts(k, m);
}

constexpr auto families = std::to_array<family>({
    {"LlamaForCausalLM", "llama", "llama", keys, tensors, read_llama},
    {"MistralForCausalLM", "mistral", "llama", keys, tensors, read_llama},
    {"MixtralForCausalLM", "mixtral", "llama", mixtral_keys, mixtral_tensors, read_mixtral},
    {.class_name = "Ministral3ForCausalLM",
     .model_type = "ministral3",
     .architecture = "mistral3",
     .keys = keys,
     .tensors = tensors,
     .read_rest = read_llama,
     .has_temperature = true},
});

}  // namespace
}  // namespace quantal::hf::llama

namespace quantal::hf {

std::span<const family> llama_families() { return llama::families; }

}  // namespace quantal::hf
