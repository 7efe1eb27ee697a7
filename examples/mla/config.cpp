#include "config.hpp"

#include <cmath>
#include <cstdio>

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
      return fail("key '" + name(key) + "' = " + std::to_string(v) + " is outside [" + std::to_string(low) +
                  ", " + std::to_string(high) + "]"),
             low;
    return v;
  }
  std::int64_t integer_or(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high) {
    return file_.meta().contains(name(key)) ? integer(key, low, high) : otherwise;
  }
  /// As integer_or, with a warning where the key is missing.
  std::int64_t integer_or_warn(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high,
                               const std::string& why = "") {
    if (contains(key)) return integer(key, low, high);
    missing(key, std::to_string(otherwise), why);
    return otherwise;
  }
  double number(const char* key, double low) {
    const auto v = file_.meta().number(name(key));
    if (!v) return fail(v.error().message), low;
    if (*v < low)
      return fail("key '" + name(key) + "' = " + std::to_string(*v) + " is below " + std::to_string(low)),
             low;
    return *v;
  }
  double number_or(const char* key, double otherwise, double low) {
    return file_.meta().contains(name(key)) ? number(key, low) : otherwise;
  }
  double number_or_warn(const char* key, double otherwise, double low, const std::string& why = "") {
    if (contains(key)) return number(key, low);
    char shown[32];
    std::snprintf(shown, sizeof shown, "%g", otherwise);
    missing(key, shown, why);
    return otherwise;
  }
  bool flag_or_warn(const char* key, bool otherwise) {
    if (!contains(key)) return missing(key, otherwise ? "true" : "false"), otherwise;
    const auto v = file_.meta().boolean(name(key));
    if (!v) return fail(v.error().message), otherwise;
    return *v;
  }
  bool contains(const char* key) const { return file_.meta().contains(name(key)); }
  /// Empty without the key.
  std::string text(const char* key) {
    if (!contains(key)) return "";
    const auto v = file_.meta().string(name(key));
    if (!v) fail(v.error().message);
    return v ? *v : "";
  }
  void fail(const std::string& why) {
    if (message_.empty()) message_ = file_.path() + ": " + why;
  }
  void warn(const std::string& what) { warnings_.push_back(what); }
  void missing(const char* key, const std::string& taken, const std::string& why = "") {
    warn("key '" + name(key) + "' is missing; " + taken + " is taken" +
         (why.empty() ? "" : " (" + why + ")"));
  }
  const std::string& message() const { return message_; }
  std::vector<std::string> take_warnings() { return std::move(warnings_); }

  const gguf::tensor_info* tensor(std::int64_t block, const char* suffix) const {
    return file_.find("blk." + std::to_string(block) + "." + suffix);
  }
  static std::string name(const char* key) { return std::string("deepseek2.") + key; }

 private:
  const gguf::reader& file_;
  std::string message_;
  std::vector<std::string> warnings_;
};

constexpr std::int64_t wide = 1 << 20;

void read_rope(key_reader& k, config& c) {
  c.rope_base = k.number("rope.freq_base", 1.0);
  yarn& y = c.scaling;
  const std::string type = k.text("rope.scaling.type");
  if (type != "" && type != "none" && type != "yarn")
    k.fail("rope scaling type '" + type + "' is not supported");
  const bool scaled = type == "yarn";
  if (type == "none") return;  // whatever the other keys say
  if (!scaled && !k.contains("rope.scaling.factor")) return;
  y.factor = k.number("rope.scaling.factor", 1e-6);
  if (!k.contains("rope.scaling.type") && y.factor != 1.0)
    k.missing("rope.scaling.type", "linear scaling", "DeepSeek V2, V3 and Kimi-K2 are scaled by yarn");
  y.ext_factor = k.number_or("rope.scaling.yarn_ext_factor", scaled ? 1.0 : 0.0, -1.0);
  if (y.ext_factor < 0) y.ext_factor = scaled ? 1.0 : 0.0;
  if (!scaled) {
    y.log_multiplier = k.number_or("rope.scaling.yarn_log_multiplier", 0.0, 0.0);
    return;
  }
  y.original_context = k.number_or_warn("rope.scaling.original_context_length", 4096, 1);
  y.beta_fast = k.number_or_warn("rope.scaling.yarn_beta_fast", 32, 0.0, "Kimi-K2 has 1");
  y.beta_slow = k.number_or_warn("rope.scaling.yarn_beta_slow", 1, 0.0);
  // Programs disagree about files without this key (mla.md section 3.1); 0.1 is what the published models use.
  y.log_multiplier =
      k.number_or_warn("rope.scaling.yarn_log_multiplier", 0.1, 0.0, "programs disagree about this gap");
}

void read_temperature(key_reader& k, config& c) {
  c.temperature_scale = k.number_or("attention.temperature_scale", 0.0, 0.0);
  if (c.temperature_scale != 0.0)
    c.temperature_length = k.integer("attention.temperature_length", 1, std::int64_t{1} << 31);
}

/// Blocks at the start that have no router.
std::int64_t leading_dense_blocks(const key_reader& k, std::int64_t layers) {
  std::int64_t n = 0;
  while (n < layers && !k.tensor(n, "ffn_gate_inp.weight")) ++n;
  return n;
}

/// Rows of the first shared expert's matrix in units of an expert's.
std::int64_t shared_experts(const key_reader& k, const config& c) {
  for (std::int64_t b = c.dense_layers; b < c.layers; ++b)
    if (const auto* t = k.tensor(b, "ffn_up_shexp.weight")) return t->rows() / c.expert_hidden;
  return 0;
}

/// Softmax, except for the models of this architecture that are known to be gated otherwise (mla.md section 5).
gating gating_without_key(key_reader& k, std::int64_t blocks, std::int64_t vocabulary) {
  const bool glm_flash = (blocks == 47 || blocks == 48) && vocabulary == 154880;
  k.missing("expert_gating_func", glm_flash ? "sigmoid" : "softmax",
            glm_flash ? "as GLM-4.7-Flash has it" : "as DeepSeek V2 has it; V3 and Kimi-K2 have sigmoid");
  return glm_flash ? gating::sigmoid : gating::softmax;
}

void check_router_bias(key_reader& k, const config& c) {
  const bool biased = k.tensor(c.dense_layers, "exp_probs_b.bias") != nullptr;
  if (biased && c.gate == gating::softmax)
    k.warn("the router has biases (exp_probs_b), which models with softmax gating have not: is '" +
           key_reader::name("expert_gating_func") + "' right?");
  if (!biased && c.gate == gating::sigmoid)
    k.warn("the router has no biases (exp_probs_b), which models with sigmoid gating have");
}

void read_experts(key_reader& k, config& c, std::int64_t blocks) {
  c.experts = k.integer_or("expert_count", 0, 0, 1024);
  if (c.experts == 0 && leading_dense_blocks(k, c.layers) < c.layers)
    return k.fail("key '" + key_reader::name("expert_count") +
                  "' is missing or 0, but there are routers (ffn_gate_inp)");
  if (c.experts == 0) {
    c.dense_layers = c.layers;
    return;
  }
  c.dense_layers = k.integer_or_warn("leading_dense_block_count", leading_dense_blocks(k, c.layers), 0,
                                     c.layers, "blocks without a router");
  if (c.dense_layers == c.layers) return;
  c.experts_used = k.integer("expert_used_count", 1, c.experts);
  c.expert_hidden = k.integer("expert_feed_forward_length", 1, wide);
  const std::int64_t shared = shared_experts(k, c);
  c.experts_shared =
      k.contains("expert_shared_count") || shared > 0
          ? k.integer_or_warn("expert_shared_count", shared, 0, 64, "from the shape of ffn_up_shexp")
          : 0;
  if (c.experts_shared == 0 && shared > 0)
    k.fail("key '" + key_reader::name("expert_shared_count") +
           "' = 0, but there are shared experts (ffn_up_shexp)");
  c.weights_scale = k.number_or_warn("expert_weights_scale", 1, 0.0, "V2 has 16, V3 2.5, Kimi-K2 2.827");
  if (c.weights_scale == 0.0) c.weights_scale = 1.0;
  c.normalise_weights = k.flag_or_warn("expert_weights_norm", false);
  c.gate = k.contains("expert_gating_func") ? static_cast<gating>(k.integer("expert_gating_func", 1, 3))
                                            : gating_without_key(k, blocks, c.vocabulary);
  check_router_bias(k, c);
  c.groups = k.integer_or_warn("expert_group_count", 1, 1, c.experts, "routing is not limited to groups");
  c.groups_used = c.groups > 1 ? k.integer_or_warn("expert_group_used_count", c.groups, 1, c.groups,
                                                   "routing is not limited to groups")
                               : 1;
  if (c.experts % c.groups != 0) return k.fail("expert_group_count does not divide expert_count");
  if (c.experts_used > c.groups_used * (c.experts / c.groups))
    k.fail("the used groups hold fewer experts than are used");
}

/// Blocks at the end that predict further tokens and do not run here.
std::int64_t next_token_blocks(key_reader& k, std::int64_t blocks) {
  if (k.contains("nextn_predict_layers")) return k.integer("nextn_predict_layers", 0, blocks - 1);
  std::int64_t n = 0;
  while (n + 1 < blocks && k.tensor(blocks - 1 - n, "nextn.eh_proj.weight")) ++n;
  if (n > 0) k.missing("nextn_predict_layers", std::to_string(n), "blocks with nextn tensors");
  return n;
}

/// 0: no query low-rank projection. The tensors decide.
std::int64_t query_rank(key_reader& k) {
  const auto* t = k.tensor(0, "attn_q_a.weight");
  return t ? k.integer_or_warn("attention.q_lora_rank", t->rows(), 1, wide, "from the shape of attn_q_a") : 0;
}

/// The embedding's rows are the vocabulary; other counts of it have to agree.
void check_vocabulary(key_reader& k, const gguf::reader& file, std::int64_t rows) {
  const std::string has = "tensor 'token_embd.weight' has " + std::to_string(rows) + " rows";
  if (k.contains("vocab_size") && k.integer("vocab_size", 1, std::int64_t{1} << 31) != rows)
    k.warn("key '" + key_reader::name("vocab_size") +
           "' = " + std::to_string(k.integer("vocab_size", 1, std::int64_t{1} << 31)) + ", but " + has +
           ", which are taken");
  const auto tokens = file.meta().strings("tokenizer.ggml.tokens");
  if (tokens && static_cast<std::int64_t>((*tokens)->size()) > rows)
    k.warn("key 'tokenizer.ggml.tokens' holds " + std::to_string((*tokens)->size()) + " tokens, but " + has);
}

}  // namespace

double config::softmax_scale() const noexcept {
  const double m = scaling.factor > 1.0 ? 1.0 + scaling.log_multiplier * std::log(scaling.factor) : 1.0;
  return m * m / std::sqrt(static_cast<double>(key()));
}

double config::temperature(std::int64_t position) const noexcept {
  const std::int64_t lengths = position / temperature_length;
  return 1.0 + temperature_scale * std::log(1.0 + static_cast<double>(lengths));
}

result<config> read_config(const gguf::reader& file) {
  const auto arch = file.meta().string("general.architecture");
  if (!arch) return error{file.path() + ": " + arch.error().message};
  if (*arch != "deepseek2")
    return error{file.path() + ": architecture '" + *arch + "' is not supported (deepseek2 is)"};
  key_reader k(file);
  config c{};
  const std::int64_t blocks = k.integer("block_count", 1, 1024);
  c.layers = blocks - next_token_blocks(k, blocks);
  c.embedding = k.integer("embedding_length", 1, wide);
  c.context = k.integer("context_length", 1, std::int64_t{1} << 31);
  c.heads = k.integer("attention.head_count", 1, 4096);
  const bool mla_keys = k.contains("attention.key_length_mla");
  const std::int64_t key = k.integer(mla_keys ? "attention.key_length_mla" : "attention.key_length", 1, wide);
  c.value = k.integer(mla_keys ? "attention.value_length_mla" : "attention.value_length", 1, wide);
  c.rope = k.integer("rope.dimension_count", 2, wide);
  c.nope = key - c.rope;
  if (c.rope % 2 != 0 || c.nope <= 0)
    k.fail("rope.dimension_count must be even and less than the key length");
  c.kv_rank = k.integer("attention.kv_lora_rank", 1, wide);
  c.q_rank = query_rank(k);
  c.rms_epsilon = k.number_or_warn("attention.layer_norm_rms_epsilon", 1e-6, 0.0);
  const auto* embedding = file.find("token_embd.weight");
  if (!embedding) return error{file.path() + ": tensor 'token_embd.weight' is missing"};
  c.vocabulary = embedding->rows();
  check_vocabulary(k, file, c.vocabulary);
  read_experts(k, c, blocks);
  c.dense_hidden = c.dense_layers > 0 ? k.integer("feed_forward_length", 1, wide) : 0;
  read_rope(k, c);
  read_temperature(k, c);
  if (!k.message().empty()) return error{k.message()};
  c.warnings = k.take_warnings();
  return c;
}

}  // namespace quantal::mla
