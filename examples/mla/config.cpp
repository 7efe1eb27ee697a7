#include "config.hpp"

#include <cmath>

namespace quantal::mla {
namespace {

/// Reads keys under "deepseek2." and remembers the first error.
class key_reader {
 public:
  explicit key_reader(const gguf::reader& file) : file_(file) {}

  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) {
    const auto all = file_.meta().integers(name(key));
    if (!all) return fail(all.error().message), low;
    if (all->empty()) return fail("key '" + name(key) + "' is an empty array"), low;
    // Per-layer arrays occur; this architecture has one value for all layers.
    const std::int64_t v = all->front();
    for (const auto x : *all)
      if (x != v) return fail("key '" + name(key) + "' differs between layers"), low;
    if (v < low || v > high)
      return fail("key '" + name(key) + "' = " + std::to_string(v) + " is outside [" + std::to_string(low) + ", " +
                  std::to_string(high) + "]"), low;
    return v;
  }
  std::int64_t integer_or(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high) {
    return file_.meta().contains(name(key)) ? integer(key, low, high) : otherwise;
  }
  double number(const char* key, double low) {
    const auto v = file_.meta().number(name(key));
    if (!v) return fail(v.error().message), low;
    if (*v < low) return fail("key '" + name(key) + "' = " + std::to_string(*v) + " is below " + std::to_string(low)), low;
    return *v;
  }
  double number_or(const char* key, double otherwise, double low) {
    return file_.meta().contains(name(key)) ? number(key, low) : otherwise;
  }
  bool flag(const char* key) {
    const auto v = file_.meta().boolean(name(key));
    return v && *v;
  }
  bool contains(const char* key) const { return file_.meta().contains(name(key)); }
  std::string text(const char* key) const {
    const auto v = file_.meta().string(name(key));
    return v ? *v : "";
  }
  void fail(const std::string& why) {
    if (message_.empty()) message_ = file_.path() + ": " + why;
  }
  const std::string& message() const { return message_; }

 private:
  static std::string name(const char* key) { return std::string("deepseek2.") + key; }
  const gguf::reader& file_;
  std::string message_;
};

constexpr std::int64_t wide = 1 << 20;

void read_rope(key_reader& k, config& c) {
  c.rope_base = k.number("rope.freq_base", 1.0);
  yarn& y = c.scaling;
  const std::string type = k.text("rope.scaling.type");
  if (type != "" && type != "none" && type != "yarn") k.fail("rope scaling type '" + type + "' is not supported");
  if (type != "yarn" && !k.contains("rope.scaling.factor")) return;
  y.factor = k.number("rope.scaling.factor", 1e-6);
  y.original_context = k.number_or("rope.scaling.original_context_length", 4096, 1);
  y.ext_factor = k.number_or("rope.scaling.yarn_ext_factor", type == "yarn" ? 1.0 : 0.0, -1.0);
  if (y.ext_factor < 0) y.ext_factor = type == "yarn" ? 1.0 : 0.0;
  y.beta_fast = k.number_or("rope.scaling.yarn_beta_fast", 32, 0.0);
  y.beta_slow = k.number_or("rope.scaling.yarn_beta_slow", 1, 0.0);
  // Files without the key leave the magnitude open (mla.md section 3.1); 0.1 is what the published models use.
  y.log_multiplier = k.number_or("rope.scaling.yarn_log_multiplier", type == "yarn" ? 0.1 : 0.0, 0.0);
}

void read_experts(key_reader& k, config& c) {
  c.experts = k.integer_or("expert_count", 0, 0, 1024);
  c.dense_layers = c.experts ? k.integer_or("leading_dense_block_count", 0, 0, c.layers) : c.layers;
  if (c.experts == 0 || c.dense_layers == c.layers) return;
  c.experts_used = k.integer("expert_used_count", 1, c.experts);
  c.experts_shared = k.integer_or("expert_shared_count", 0, 0, 64);
  c.expert_hidden = k.integer("expert_feed_forward_length", 1, wide);
  c.weights_scale = k.number_or("expert_weights_scale", 1.0, 0.0);
  if (c.weights_scale == 0.0) c.weights_scale = 1.0;
  c.normalise_weights = k.flag("expert_weights_norm");
  c.gate = static_cast<gating>(k.integer_or("expert_gating_func", 1, 1, 3));
  c.groups = k.integer_or("expert_group_count", 1, 1, c.experts);
  c.groups_used = k.integer_or("expert_group_used_count", c.groups, 1, c.groups);
  if (c.experts % c.groups != 0) return k.fail("expert_group_count does not divide expert_count");
  if (c.experts_used > c.groups_used * (c.experts / c.groups)) k.fail("the used groups hold fewer experts than are used");
}

}  // namespace

double config::softmax_scale() const noexcept {
  const double m = scaling.factor > 1.0 ? 1.0 + scaling.log_multiplier * std::log(scaling.factor) : 1.0;
  return m * m / std::sqrt(static_cast<double>(key()));
}

result<config> read_config(const gguf::reader& file) {
  const auto arch = file.meta().string("general.architecture");
  if (!arch) return error{file.path() + ": " + arch.error().message};
  if (*arch != "deepseek2") return error{file.path() + ": architecture '" + *arch + "' is not supported (deepseek2 is)"};
  key_reader k(file);
  config c{};
  const std::int64_t blocks = k.integer("block_count", 1, 1024);
  c.layers = blocks - k.integer_or("nextn_predict_layers", 0, 0, blocks - 1);
  c.embedding = k.integer("embedding_length", 1, wide);
  c.context = k.integer("context_length", 1, std::int64_t{1} << 31);
  c.heads = k.integer("attention.head_count", 1, 4096);
  const bool mla_keys = k.contains("attention.key_length_mla");
  const std::int64_t key = k.integer(mla_keys ? "attention.key_length_mla" : "attention.key_length", 1, wide);
  c.value = k.integer(mla_keys ? "attention.value_length_mla" : "attention.value_length", 1, wide);
  c.rope = k.integer("rope.dimension_count", 2, wide);
  c.nope = key - c.rope;
  if (c.rope % 2 != 0 || c.nope <= 0) k.fail("rope.dimension_count must be even and less than the key length");
  c.kv_rank = k.integer("attention.kv_lora_rank", 1, wide);
  c.q_rank = file.find("blk.0.attn_q_a.weight") ? k.integer("attention.q_lora_rank", 1, wide) : 0;
  c.rms_epsilon = k.number("attention.layer_norm_rms_epsilon", 0.0);
  c.dense_hidden = k.integer_or("feed_forward_length", 0, 0, wide);
  read_experts(k, c);
  read_rope(k, c);
  const auto* embedding = file.find("token_embd.weight");
  if (!embedding) return error{file.path() + ": tensor 'token_embd.weight' is missing"};
  c.vocabulary = embedding->rows();
  if (!k.message().empty()) return error{k.message()};
  return c;
}

}  // namespace quantal::mla
