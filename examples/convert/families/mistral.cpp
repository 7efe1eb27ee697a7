// Mistral's own layout (consolidated.safetensors): the tensors of Mistral, Mixtral, and of Mistral Large 3 and Small 4,
// which have latent attention. Keys and their readers are those of the same models with a config.json.
#include <algorithm>

#include "families/decoder.hpp"

namespace quantal::hf::mistral {
namespace {

constexpr auto outer = std::to_array<tensor_row>({
    {"token_embd.weight", "tok_embeddings.weight", size::vocabulary, size::embedding},
    {"output_norm.weight", "norm.weight", size::one, size::embedding, trait::none, assembly::vector},
    {"output.weight", head_name, size::vocabulary, size::embedding, trait::untied},
});
constexpr auto norms = std::to_array<tensor_row>({
    {"blk.#.attn_norm.weight", "layers.#.attention_norm.weight", size::one, size::embedding, trait::none,
     assembly::vector},
    {"blk.#.ffn_norm.weight", "layers.#.ffn_norm.weight", size::one, size::embedding, trait::none,
     assembly::vector},
});
/// Rotary pairs are neighbours, as in the GGUF.
constexpr auto attention = std::to_array<tensor_row>({
    {"blk.#.attn_q.weight", "layers.#.attention.wq.weight", size::queries, size::embedding},
    {"blk.#.attn_k.weight", "layers.#.attention.wk.weight", size::key_values, size::embedding},
    {"blk.#.attn_v.weight", "layers.#.attention.wv.weight", size::key_values, size::embedding},
    {"blk.#.attn_output.weight", "layers.#.attention.wo.weight", size::embedding, size::queries},
});
constexpr auto feed_forward = std::to_array<tensor_row>({
    {"blk.#.ffn_gate.weight", "layers.#.feed_forward.w1.weight", size::hidden, size::embedding, trait::dense},
    {"blk.#.ffn_up.weight", "layers.#.feed_forward.w3.weight", size::hidden, size::embedding, trait::dense},
    {"blk.#.ffn_down.weight", "layers.#.feed_forward.w2.weight", size::embedding, size::hidden, trait::dense},
});
constexpr auto mixtral_experts = std::to_array<tensor_row>({
    {.out = "blk.#.ffn_gate_inp.weight",
     .stored = "layers.#.feed_forward.gate.weight",
     .rows = size::experts,
     .cols = size::embedding,
     .as_f32 = true},
    {"blk.#.ffn_gate_exps.weight", "layers.#.feed_forward.experts.*.w1.weight", size::hidden, size::embedding,
     trait::none, assembly::stack},
    {"blk.#.ffn_up_exps.weight", "layers.#.feed_forward.experts.*.w3.weight", size::hidden, size::embedding,
     trait::none, assembly::stack},
    {"blk.#.ffn_down_exps.weight", "layers.#.feed_forward.experts.*.w2.weight", size::embedding, size::hidden,
     trait::none, assembly::stack},
});

constexpr auto latent_attention = std::to_array<tensor_row>({
    {"blk.#.attn_q_a.weight", "layers.#.attention.wq_a.weight", size::q_rank, size::embedding,
     trait::query_latent},
    {"blk.#.attn_q_a_norm.weight", "layers.#.attention.q_a_norm.weight", size::one, size::q_rank,
     trait::query_latent, assembly::vector},
    {"blk.#.attn_q_b.weight", "layers.#.attention.wq_b.weight", size::queries, size::q_rank,
     trait::query_latent},
    {"blk.#.attn_q.weight", "layers.#.attention.wq.weight", size::queries, size::embedding,
     trait::direct_query},
    {"blk.#.attn_kv_a_mqa.weight", "layers.#.attention.wkv_a_with_mqa.weight", size::kv_latent,
     size::embedding},
    {"blk.#.attn_kv_a_norm.weight", "layers.#.attention.kv_a_norm.weight", size::one, size::kv_rank,
     trait::none, assembly::vector},
    {"blk.#.attn_kv_b.weight", "layers.#.attention.wkv_b.weight", size::kv_up, size::kv_rank,
     trait::joined_up},
    {"blk.#.attn_k_b.weight", "layers.#.attention.wkv_b.weight", size::kv_up, size::kv_rank, trait::none,
     assembly::keys},
    {"blk.#.attn_v_b.weight", "layers.#.attention.wkv_b.weight", size::kv_up, size::kv_rank, trait::none,
     assembly::values},
    {"blk.#.attn_output.weight", "layers.#.attention.wo.weight", size::embedding, size::head_values},
});
constexpr auto experts = std::to_array<tensor_row>({
    {.out = "blk.#.ffn_gate_inp.weight",
     .stored = "layers.#.gate.weight",
     .rows = size::experts,
     .cols = size::embedding,
     .needs = trait::sparse,
     .as_f32 = true},
    {"blk.#.ffn_gate_exps.weight", "layers.#.experts.*.w1.weight", size::expert_hidden, size::embedding,
     trait::sparse, assembly::stack},
    {"blk.#.ffn_up_exps.weight", "layers.#.experts.*.w3.weight", size::expert_hidden, size::embedding,
     trait::sparse, assembly::stack},
    {"blk.#.ffn_down_exps.weight", "layers.#.experts.*.w2.weight", size::embedding, size::expert_hidden,
     trait::sparse, assembly::stack},
    {"blk.#.ffn_gate_shexp.weight", "layers.#.shared_experts.w1.weight", size::shared_hidden, size::embedding,
     trait::sparse | trait::shared_experts},
    {"blk.#.ffn_up_shexp.weight", "layers.#.shared_experts.w3.weight", size::shared_hidden, size::embedding,
     trait::sparse | trait::shared_experts},
    {"blk.#.ffn_down_shexp.weight", "layers.#.shared_experts.w2.weight", size::embedding, size::shared_hidden,
     trait::sparse | trait::shared_experts},
});

constexpr auto dense_tensors = join(outer, norms, attention, feed_forward);
constexpr auto mixtral_tensors = join(outer, norms, attention, mixtral_experts);
constexpr auto latent_tensors = join(outer, norms, latent_attention, feed_forward, experts);

/// The family with tensors of this layout.
family with(std::span<const family> list, std::string_view class_name, std::span<const tensor_row> tensors) {
  auto f =
      *std::find_if(list.begin(), list.end(), [&](const family& m) { return m.class_name == class_name; });
  f.tensors = tensors;
  return f;
}

}  // namespace
}  // namespace quantal::hf::mistral

namespace quantal::hf {

const family* mistral_family(std::string_view class_name) {
  using namespace mistral;
  static const std::array all = {with(llama_families(), "MistralForCausalLM", dense_tensors),
                                 with(llama_families(), "MixtralForCausalLM", mixtral_tensors),
                                 with(deepseek_families(), "Mistral4ForCausalLM", latent_tensors)};
  const auto it =
      std::find_if(all.begin(), all.end(), [&](const family& f) { return f.class_name == class_name; });
  return it == all.end() ? nullptr : &*it;
}

}  // namespace quantal::hf
