// Qwen 2, 2.5 and 3, dense and with experts.
#include "families/decoder.hpp"
#include "families/rope.hpp"

namespace quantal::hf::qwen {
namespace {

constexpr auto dense_keys = join(decoder_keys, feed_forward_keys);
constexpr auto expert_keys =
    join(dense_keys, std::to_array<key_row>({
                         {"num_experts", "expert_count", size::experts, std::nullopt, "num_local_experts"},
                         {"num_experts_per_tok", "expert_used_count", size::experts_used},
                         {"moe_intermediate_size", "expert_feed_forward_length", size::expert_hidden},
                     }));
constexpr auto shared_expert_keys =
    join(expert_keys, std::to_array<key_row>({{"shared_expert_intermediate_size",
                                               "expert_shared_feed_forward_length", size::shared_hidden}}));

constexpr auto shared_expert = std::to_array<tensor_row>({
    {.out = "blk.#.ffn_gate_inp_shexp.weight",
     .stored = "layers.#.mlp.shared_expert_gate.weight",
     .rows = size::one,
     .cols = size::embedding,
     .as_f32 = true},
    {"blk.#.ffn_gate_shexp.weight", "layers.#.mlp.shared_expert.gate_proj.weight", size::shared_hidden,
     size::embedding},
    {"blk.#.ffn_up_shexp.weight", "layers.#.mlp.shared_expert.up_proj.weight", size::shared_hidden,
     size::embedding},
    {"blk.#.ffn_down_shexp.weight", "layers.#.mlp.shared_expert.down_proj.weight", size::embedding,
     size::shared_hidden},
});

constexpr auto blocks = join(outer_tensors, block_norms, attention_tensors);
constexpr auto qwen2 = join(blocks, input_biases, feed_forward_tensors);
constexpr auto qwen2_moe = join(blocks, input_biases, router, expert_stacks, shared_expert);
constexpr auto qwen3 = join(blocks, head_norms, feed_forward_tensors);
constexpr auto qwen3_moe = join(blocks, head_norms, router, expert_stacks);

void read_common(key_reader& k, model_config& m) {
  read_rope(k, m);
  leave_out_window(k, m, k.flag_or("use_sliding_window", false));
  k.get("layer_types");  // sliding or full, which the window says too
  k.only("hidden_act", "silu");
}
void read_qwen2(key_reader& k, model_config& m) {
  read_common(k, m);
  if (m.sizes[size::queries] != m.sizes[size::embedding])
    k.fail("head_dim", "times num_attention_heads is not hidden_size, which a qwen2 GGUF takes for granted");
  m.traits |= trait::attention_bias;
}
void read_qwen3(key_reader& k, model_config& m) {
  read_common(k, m);
  set_head_width(m);
  k.only("attention_bias", false);
}

void read_sparse(key_reader& k, model_config& m) {
  read_experts(k, m);
  k.only("decoder_sparse_step", 1);
  k.only("mlp_only_layers", document::array());
}
void read_qwen2_moe(key_reader& k, model_config& m) {
  read_qwen2(k, m);
  read_sparse(k, m);
  k.only("qkv_bias", true);
  k.only("norm_topk_prob", false);
}
void read_qwen3_moe(key_reader& k, model_config& m) {
  read_qwen3(k, m);
  read_sparse(k, m);
  if (!k.flag_or("norm_topk_prob", false))
    k.fail("norm_topk_prob", "is false, as it is where it is missing, and a qwen3moe GGUF stands for true");
}

constexpr auto families = std::to_array<family>({
    {"Qwen2ForCausalLM", "qwen2", "qwen2", dense_keys, qwen2, read_qwen2},
    {"Qwen2MoeForCausalLM", "qwen2_moe", "qwen2moe", shared_expert_keys, qwen2_moe, read_qwen2_moe},
    {"Qwen3ForCausalLM", "qwen3", "qwen3", dense_keys, qwen3, read_qwen3},
    {"Qwen3MoeForCausalLM", "qwen3_moe", "qwen3moe", expert_keys, qwen3_moe, read_qwen3_moe},
});

}  // namespace
}  // namespace quantal::hf::qwen

namespace quantal::hf {

std::span<const family> qwen_families() { return qwen::families; }

}  // namespace quantal::hf
