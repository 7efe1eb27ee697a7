// Gemma 3: text models, and the text part of those that see.
#include "families/decoder.hpp"
#include "families/rope.hpp"

namespace quantal::hf::gemma {
namespace {

/// Published files leave out what Gemma3TextConfig of transformers has by default.
constexpr auto keys = std::to_array<key_row>({
    {"num_hidden_layers", "block_count", size::layers},
    {"max_position_embeddings", "context_length", size::one, 131072},
    {"hidden_size", "embedding_length", size::embedding},
    {"num_attention_heads", "attention.head_count", size::heads, 8},
    {"num_key_value_heads", "attention.head_count_kv", size::kv_heads, 4},
    {"head_dim", nullptr, size::head, 256},
    {"vocab_size", nullptr, size::vocabulary, 262208},
    {"intermediate_size", "feed_forward_length", size::hidden},
    {"sliding_window", "attention.sliding_window"},
});
constexpr double base = 1e6, window_base = 1e4, epsilon = 1e-6, query_scalar = 256;

/// Norms are stored less one.
constexpr tensor_row norm(std::string_view out, std::string_view stored, size width = size::embedding) {
  return {.out = out,
          .stored = stored,
          .rows = size::one,
          .cols = width,
          .how = assembly::vector,
          .plus_one = true};
}

constexpr auto own = std::to_array<tensor_row>({
    {"token_embd.weight", "embed_tokens.weight", size::vocabulary, size::embedding},
    {"output.weight", head_name, size::vocabulary, size::embedding, trait::untied},
    norm("output_norm.weight", "norm.weight"),
    norm("blk.#.attn_norm.weight", "layers.#.input_layernorm.weight"),
    norm("blk.#.attn_q_norm.weight", "layers.#.self_attn.q_norm.weight", size::head),
    norm("blk.#.attn_k_norm.weight", "layers.#.self_attn.k_norm.weight", size::head),
    norm("blk.#.post_attention_norm.weight", "layers.#.post_attention_layernorm.weight"),
    norm("blk.#.ffn_norm.weight", "layers.#.pre_feedforward_layernorm.weight"),
    norm("blk.#.post_ffw_norm.weight", "layers.#.post_feedforward_layernorm.weight"),
});
constexpr auto tensors = join(own, attention_tensors, feed_forward_tensors);

/// The base of the layers with a window, which nothing scales.
double read_window_base(key_reader& k) {
  if (k.has("rope_local_base_freq")) return k.number("rope_local_base_freq", 1.0);
  const auto* parameters = k.get("rope_parameters");
  if (!parameters || !member(*parameters, "sliding_attention")) return window_base;
  rope_reader rope(k, "sliding_attention");
  if (rope.type() != "default") rope.refuse(rope.type(), "default in layers with a window");
  return rope.base(window_base);
}

/// Queries are divided by the root of a number that no key of a GGUF has: programs take the width of a head,
/// or, in the largest model, which they know by its layers, the share of the embedding that a head has.
void check_query_scalar(key_reader& k, const model_config& m) {
  const auto& s = m.sizes;
  const std::int64_t want = s[size::layers] == 62 ? s[size::embedding] / s[size::heads] : s[size::head];
  const double scalar = k.number_or("query_pre_attn_scalar", query_scalar, 0.0);
  if (scalar != static_cast<double>(want))
    k.fail("query_pre_attn_scalar",
           text::format("is %g, and a gemma3 GGUF of this size stands for ", scalar) + std::to_string(want));
}

void read_rest(key_reader& k, model_config& m) {
  set_head_width(m);
  check_query_scalar(k, m);
  read_rope(k, m, base, "full_attention");
  m.set_number("rope.freq_base_swa", read_window_base(k));
  check_pattern(k, m, 6, 5);
  k.only("sliding_window_pattern", 6);
  k.only("_sliding_window_pattern", 6);
  for (const char* key : {"attn_logit_softcapping", "final_logit_softcapping"}) k.only(key, nullptr);
  k.only("attention_bias", false);
  k.only("hidden_activation", "gelu_pytorch_tanh");
  k.only("use_bidirectional_attention", false);
}

constexpr auto families = std::to_array<family>({
    {"Gemma3ForCausalLM", "gemma3_text", "gemma3", keys, tensors, read_rest, true, epsilon},
});

}  // namespace
}  // namespace quantal::hf::gemma

namespace quantal::hf {

std::span<const family> gemma_families() { return gemma::families; }

}  // namespace quantal::hf
