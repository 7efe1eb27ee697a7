#include "tensor_map.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace quantal::hf {
namespace {

class mapper {
 public:
  mapper(const model_config& m, mla::layout to, const name_prefixes& from)
      : m_(m), c_(m.hyper), to_(to), from_(from) {}

  std::vector<mapped_tensor> all() {
    matrix("token_embd", from_.body + "embed_tokens", c_.vocabulary, c_.embedding);
    vector("output_norm.weight", from_.body + "norm.weight", c_.embedding);
    if (!m_.tied_embeddings) matrix("output", from_.head, c_.vocabulary, c_.embedding);
    for (std::int64_t i = 0; i < c_.layers; ++i) {
      to_prefix_ = "blk." + std::to_string(i) + ".";
      from_prefix_ = from_.body + "layers." + std::to_string(i) + ".";
      attention();
      vector("ffn_norm.weight", "post_attention_layernorm.weight", c_.embedding);
      if (i < c_.dense_layers)
        feed_forward("", "mlp.", c_.dense_hidden);
      else
        experts();
    }
    return std::move(tensors_);
  }

 private:
  void add(assembly how, const std::string& to, std::uint32_t type, std::array<std::int64_t, 4> ne,
           std::vector<std::string> parts, std::int64_t rows, std::int64_t cols) {
    mapped_tensor t{{}, how, std::move(parts), rows, cols};
    t.out.name = to_prefix_ + to;
    t.out.type = type;
    t.out.ne = ne;
    t.out.n_dims = ne[2] > 1 ? 3 : ne[1] > 1 || how != assembly::vector ? 2 : 1;
    tensors_.push_back(std::move(t));
  }
  void matrix(const std::string& to, const std::string& from, std::int64_t rows, std::int64_t cols,
              std::uint32_t type = bf16::gguf_id) {
    add(assembly::matrix, to + ".weight", type, {cols, rows, 1, 1}, {from_prefix_ + from + ".weight"}, rows,
        cols);
  }
  void vector(const std::string& to, const std::string& from, std::int64_t n) {
    add(assembly::vector, to, f32::gguf_id, {n, 1, 1, 1}, {from_prefix_ + from}, 1, n);
  }
  void stack(const std::string& to, const std::string& from, std::int64_t rows, std::int64_t cols) {
    std::vector<std::string> parts;
    for (std::int64_t e = 0; e < c_.experts; ++e)
      parts.push_back(from_prefix_ + "mlp.experts." + std::to_string(e) + "." + from + ".weight");
    add(assembly::stack, to + ".weight", bf16::gguf_id, {cols, rows, c_.experts, 1}, std::move(parts), rows,
        cols);
  }

  void attention() {
    vector("attn_norm.weight", "input_layernorm.weight", c_.embedding);
    if (c_.q_rank) {
      matrix("attn_q_a", "self_attn.q_a_proj", c_.q_rank, c_.embedding);
      vector("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", c_.q_rank);
      matrix("attn_q_b", "self_attn.q_b_proj", c_.heads * c_.key(), c_.q_rank);
    } else {
      matrix("attn_q", "self_attn.q_proj", c_.heads * c_.key(), c_.embedding);
    }
    matrix("attn_kv_a_mqa", "self_attn.kv_a_proj_with_mqa", c_.kv_rank + c_.rope, c_.embedding);
    vector("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", c_.kv_rank);
    up_projections();
    matrix("attn_output", "self_attn.o_proj", c_.embedding, c_.heads * c_.value);
  }

  void up_projections() {
    const mla::up_projection_shape s(c_);
    const std::string from = from_prefix_ + "self_attn.kv_b_proj.weight";
    const auto put = [&](assembly how, const char* to, const std::array<std::int64_t, 4>& ne) {
      add(how, to, bf16::gguf_id, ne, {from}, s.heads * s.head_rows(), s.rank);
    };
    if (to_ == mla::layout::rows_kv_b) put(assembly::matrix, "attn_kv_b.weight", mla::kv_b_extents(s));
    put(assembly::keys, "attn_k_b.weight", mla::k_b_extents(s, to_));
    put(assembly::values, "attn_v_b.weight", mla::v_b_extents(s, to_));
  }

  void feed_forward(const std::string& suffix, const std::string& from, std::int64_t hidden) {
    matrix("ffn_gate" + suffix, from + "gate_proj", hidden, c_.embedding);
    matrix("ffn_up" + suffix, from + "up_proj", hidden, c_.embedding);
    matrix("ffn_down" + suffix, from + "down_proj", c_.embedding, hidden);
  }

  void experts() {
    matrix("ffn_gate_inp", "mlp.gate", c_.experts, c_.embedding, f32::gguf_id);
    if (m_.routing_bias) vector("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", c_.experts);
    stack("ffn_gate_exps", "gate_proj", c_.expert_hidden, c_.embedding);
    stack("ffn_up_exps", "up_proj", c_.expert_hidden, c_.embedding);
    stack("ffn_down_exps", "down_proj", c_.embedding, c_.expert_hidden);
    if (c_.experts_shared)
      feed_forward("_shexp", "mlp.shared_experts.", c_.experts_shared * c_.expert_hidden);
  }

  const model_config& m_;
  const mla::config& c_;
  mla::layout to_;
  const name_prefixes& from_;
  std::string to_prefix_, from_prefix_;
  std::vector<mapped_tensor> tensors_;
};

}  // namespace

std::vector<mapped_tensor> map_tensors(const model_config& c, mla::layout to, const name_prefixes& from) {
  return mapper(c, to, from).all();
}

bool is_dropped(const std::string& name, const model_config& c, const name_prefixes& from) {
  constexpr auto other_parts = std::to_array<std::string_view>(
      {"vision_tower.", "vision_model.", "visual.", "model.vision_tower.", "model.visual.", "mm_projector.",
       "multi_modal_projector.", "model.multi_modal_projector.", "audio_tower."});
  constexpr auto activation_scales =
      std::to_array<std::string_view>({".input_scale", ".input_global_scale", ".output_scale", ".k_scale",
                                       ".v_scale", ".q_scale", ".input_zero_point"});
  const auto ends = [&](std::string_view s) { return name.ends_with(s); };
  const auto begins = [&](std::string_view s) { return name.starts_with(s); };
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (std::any_of(activation_scales.begin(), activation_scales.end(), ends)) return true;
  if (c.tied_embeddings && name == from.head + ".weight") return true;
  if (c.wrapped && std::any_of(other_parts.begin(), other_parts.end(), begins)) return true;
  if (c.sparse_from && name.find(".self_attn.indexer.") != std::string::npos) return true;
  const std::string layers = from.body + "layers.";
  if (!name.starts_with(layers)) return false;
  std::int64_t layer = -1;
  std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
  return layer >= c.hyper.layers;
}

}  // namespace quantal::hf
