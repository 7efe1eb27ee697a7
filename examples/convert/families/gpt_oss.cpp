// gpt-oss: experts in mxfp4, gate and up of each in one matrix whose rows take turns; sinks; biases.
#include "families/decoder.hpp"
#include "families/rope.hpp"

namespace quantal::hf::gpt_oss {
namespace {

constexpr auto keys =
    join(decoder_keys, std::to_array<key_row>({
                           {"intermediate_size", "feed_forward_length"},
                           {"intermediate_size", "expert_feed_forward_length", size::expert_hidden},
                           {"num_local_experts", "expert_count", size::experts},
                           {"num_experts_per_tok", "expert_used_count", size::experts_used},
                           {"sliding_window", "attention.sliding_window"},
                       }));

/// Half of gate_up_proj: even rows are the gate's.
constexpr tensor_row half(std::string_view out, order taken, assembly how) {
  const bool floats = how == assembly::transposed;
  return {.out = out,
          .stored = "layers.#.mlp.experts.gate_up_proj",
          .rows = floats ? size::embedding : size::expert_gate_up,
          .cols = floats ? size::expert_gate_up : size::embedding,
          .needs = floats ? trait::plain_experts : trait::packed_experts,
          .how = how,
          .taken = taken,
          .slices = size::experts};
}

constexpr auto own = std::to_array<tensor_row>({
    {"blk.#.attn_norm.weight", "layers.#.input_layernorm.weight", size::one, size::embedding, trait::none,
     assembly::vector},
    {"blk.#.post_attention_norm.weight", "layers.#.post_attention_layernorm.weight", size::one,
     size::embedding, trait::none, assembly::vector},
    {"blk.#.attn_sinks.weight", "layers.#.self_attn.sinks", size::one, size::heads, trait::none,
     assembly::vector},
    {.out = "blk.#.ffn_gate_inp.weight",
     .stored = "layers.#.mlp.router.weight",
     .rows = size::experts,
     .cols = size::embedding,
     .as_f32 = true},
    {"blk.#.ffn_gate_inp.bias", "layers.#.mlp.router.bias", size::one, size::experts, trait::none,
     assembly::vector},
    half("blk.#.ffn_gate_exps.weight", order::even, assembly::matrix),
    half("blk.#.ffn_gate_exps.weight", order::even, assembly::transposed),
    half("blk.#.ffn_up_exps.weight", order::odd, assembly::matrix),
    half("blk.#.ffn_up_exps.weight", order::odd, assembly::transposed),
    {"blk.#.ffn_gate_exps.bias", "layers.#.mlp.experts.gate_up_proj_bias", size::experts,
     size::expert_gate_up, trait::none, assembly::vector, order::even},
    {"blk.#.ffn_up_exps.bias", "layers.#.mlp.experts.gate_up_proj_bias", size::experts, size::expert_gate_up,
     trait::none, assembly::vector, order::odd},
    {.out = "blk.#.ffn_down_exps.weight",
     .stored = "layers.#.mlp.experts.down_proj",
     .rows = size::embedding,
     .cols = size::expert_hidden,
     .needs = trait::packed_experts,
     .slices = size::experts},
    {.out = "blk.#.ffn_down_exps.weight",
     .stored = "layers.#.mlp.experts.down_proj",
     .rows = size::expert_hidden,
     .cols = size::embedding,
     .needs = trait::plain_experts,
     .how = assembly::transposed,
     .slices = size::experts},
    {"blk.#.ffn_down_exps.bias", "layers.#.mlp.experts.down_proj_bias", size::experts, size::embedding,
     trait::none, assembly::vector},
});
constexpr auto tensors = join(outer_tensors, own, attention_tensors, input_biases, output_bias);

void read_rest(key_reader& k, model_config& m) {
  set_head_width(m);
  if (!k.has("rope_scaling") && !k.has("rope_parameters"))
    k.fail("rope_scaling", "is missing, which gpt-oss does not take for no scaling");
  read_rope(k, m);
  read_experts(k, m);
  m.sizes[size::expert_gate_up] = 2 * m.sizes[size::expert_hidden];
  check_pattern(k, m, 2, 1);
  k.only("hidden_act", "silu");
  k.only("swiglu_limit", 7.0);
  k.only("swiglu_alpha", 1.702);
  for (const char* key : {"experts_per_token", "initial_context_length"}) k.get(key);  // said twice
  k.only("attention_bias", true);
  m.traits |= trait::attention_bias;
  const auto* stored = k.get("quantization_config");
  const auto* method = stored && stored->is_object() ? member(*stored, "quant_method") : nullptr;
  m.traits |= method && *method == "mxfp4" ? trait::packed_experts : trait::plain_experts;
}

constexpr auto families = std::to_array<family>({
    {"GptOssForCausalLM", "gpt_oss", "gpt-oss", keys, tensors, read_rest},
});

}  // namespace
}  // namespace quantal::hf::gpt_oss

namespace quantal::hf {

std::span<const family> gpt_oss_families() { return gpt_oss::families; }

}  // namespace quantal::hf
