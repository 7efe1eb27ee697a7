// What decoders with plain attention have in common: rows of their tables and readers of config.json.
#pragma once

#include <algorithm>

#include "families/family.hpp"

namespace quantal::hf {

/// Reads the rows of the family's table into sizes and keys, and derives the sizes that follow.
void read_keys(key_reader& k, model_config& m);
/// The width of heads as keys; for families whose heads need not fill the embedding.
void set_head_width(model_config& m);
/// layer_types must have full attention in layers at, at + every, at + 2 every..., and windows in the others.
void check_pattern(key_reader& k, const model_config& m, std::int64_t every, std::int64_t at);
/// Checks the numbers of experts; every block has some.
void read_experts(key_reader& k, model_config& m);
/// Where the GGUF has no window, a notice says what is left out if the checkpoint uses it.
void leave_out_window(key_reader& k, model_config& m, bool used);

/// Tables one after the other.
template <class T, std::size_t... N>
constexpr auto join(const std::array<T, N>&... parts) {
  std::array<T, (N + ...)> out{};
  auto to = out.begin();
  ((to = std::copy(parts.begin(), parts.end(), to)), ...);
  return out;
}

inline constexpr auto decoder_keys = std::to_array<key_row>({
    {"num_hidden_layers", "block_count", size::layers},
    {"max_position_embeddings", "context_length"},
    {"hidden_size", "embedding_length", size::embedding},
    {"num_attention_heads", "attention.head_count", size::heads},
    {"num_key_value_heads", "attention.head_count_kv", size::kv_heads, -1},
    {"head_dim", nullptr, size::head, -1},
    {"vocab_size", nullptr, size::vocabulary},
});
inline constexpr auto feed_forward_keys =
    std::to_array<key_row>({{"intermediate_size", "feed_forward_length", size::hidden}});

inline constexpr auto outer_tensors = std::to_array<tensor_row>({
    {"token_embd.weight", "embed_tokens.weight", size::vocabulary, size::embedding},
    {"output_norm.weight", "norm.weight", size::one, size::embedding, trait::none, assembly::vector},
    {"output.weight", head_name, size::vocabulary, size::embedding, trait::untied},
});

inline constexpr auto block_norms = std::to_array<tensor_row>({
    {"blk.#.attn_norm.weight", "layers.#.input_layernorm.weight", size::one, size::embedding, trait::none,
     assembly::vector},
    {"blk.#.ffn_norm.weight", "layers.#.post_attention_layernorm.weight", size::one, size::embedding,
     trait::none, assembly::vector},
});

inline constexpr auto attention_tensors = std::to_array<tensor_row>({
    {"blk.#.attn_q.weight", "layers.#.self_attn.q_proj.weight", size::queries, size::embedding},
    {"blk.#.attn_k.weight", "layers.#.self_attn.k_proj.weight", size::key_values, size::embedding},
    {"blk.#.attn_v.weight", "layers.#.self_attn.v_proj.weight", size::key_values, size::embedding},
    {"blk.#.attn_output.weight", "layers.#.self_attn.o_proj.weight", size::embedding, size::queries},
});
inline constexpr auto input_biases = std::to_array<tensor_row>({
    {"blk.#.attn_q.bias", "layers.#.self_attn.q_proj.bias", size::one, size::queries, trait::attention_bias,
     assembly::vector},
    {"blk.#.attn_k.bias", "layers.#.self_attn.k_proj.bias", size::one, size::key_values,
     trait::attention_bias, assembly::vector},
    {"blk.#.attn_v.bias", "layers.#.self_attn.v_proj.bias", size::one, size::key_values,
     trait::attention_bias, assembly::vector},
});
inline constexpr auto output_bias = std::to_array<tensor_row>({
    {"blk.#.attn_output.bias", "layers.#.self_attn.o_proj.bias", size::one, size::embedding,
     trait::attention_bias, assembly::vector},
});
inline constexpr auto head_norms = std::to_array<tensor_row>({
    {"blk.#.attn_q_norm.weight", "layers.#.self_attn.q_norm.weight", size::one, size::head, trait::none,
     assembly::vector},
    {"blk.#.attn_k_norm.weight", "layers.#.self_attn.k_norm.weight", size::one, size::head, trait::none,
     assembly::vector},
});

inline constexpr auto feed_forward_tensors = std::to_array<tensor_row>({
    {"blk.#.ffn_gate.weight", "layers.#.mlp.gate_proj.weight", size::hidden, size::embedding, trait::dense},
    {"blk.#.ffn_up.weight", "layers.#.mlp.up_proj.weight", size::hidden, size::embedding, trait::dense},
    {"blk.#.ffn_down.weight", "layers.#.mlp.down_proj.weight", size::embedding, size::hidden, trait::dense},
});
inline constexpr auto router = std::to_array<tensor_row>({
    {.out = "blk.#.ffn_gate_inp.weight",
     .stored = "layers.#.mlp.gate.weight",
     .rows = size::experts,
     .cols = size::embedding,
     .needs = trait::sparse,
     .as_f32 = true},
});
inline constexpr auto expert_stacks = std::to_array<tensor_row>({
    {"blk.#.ffn_gate_exps.weight", "layers.#.mlp.experts.*.gate_proj.weight", size::expert_hidden,
     size::embedding, trait::sparse, assembly::stack},
    {"blk.#.ffn_up_exps.weight", "layers.#.mlp.experts.*.up_proj.weight", size::expert_hidden,
     size::embedding, trait::sparse, assembly::stack},
    {"blk.#.ffn_down_exps.weight", "layers.#.mlp.experts.*.down_proj.weight", size::embedding,
     size::expert_hidden, trait::sparse, assembly::stack},
});
inline constexpr auto rope_factor_tensor = std::to_array<tensor_row>({
    {"rope_freqs.weight", {}, size::one, size::head, trait::rope_factors, assembly::computed},
});

}  // namespace quantal::hf
