#include "hf_config.hpp"

#include <algorithm>
#include <cmath>
#include <set>

#include "text.hpp"

namespace quantal::hf {
namespace {

constexpr std::int64_t wide = 1 << 20;

/// Takes values out of an object and remembers the first complaint and the keys that were looked at.
class key_reader {
 public:
  key_reader(const document& object, std::string where) : object_(object), where_(std::move(where)) {}

  bool has(const char* key) {
    used_.insert(key);
    return member(object_, key) != nullptr;
  }
  const document* get(const char* key) {
    used_.insert(key);
    return member(object_, key);
  }
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) {
    const auto* v = get(key);
    if (!v) return fail(key, "is missing"), low;
    if (!v->is_number_integer()) return fail(key, "is no integer"), low;
    const auto n = v->is_number_unsigned() && v->get<std::uint64_t>() >> 63 ? -1 : v->get<std::int64_t>();
    if (n < low || n > high)
      return fail(key, v->dump() + " is outside [" + std::to_string(low) + ", " + std::to_string(high) + "]"),
             low;
    return n;
  }
  std::int64_t integer_or(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high) {
    return has(key) ? integer(key, low, high) : otherwise;
  }
  double number(const char* key, double low) {
    const auto* v = get(key);
    if (!v) return fail(key, "is missing"), low;
    if (!v->is_number()) return fail(key, "is no number"), low;
    const double x = v->get<double>();
    if (!std::isfinite(x) || x < low) return fail(key, v->dump() + text::format(" is below %g", low)), low;
    return x;
  }
  double number_or(const char* key, double otherwise, double low) {
    return has(key) ? number(key, low) : otherwise;
  }
  bool flag_or(const char* key, bool otherwise) {
    const auto* v = get(key);
    if (!v) return otherwise;
    if (!v->is_boolean()) return fail(key, "is neither true nor false"), otherwise;
    return v->get<bool>();
  }
  std::string text_or(const char* key, std::string otherwise) {
    const auto* v = get(key);
    if (!v) return otherwise;
    if (!v->is_string()) return fail(key, "is no string"), otherwise;
    return v->get<std::string>();
  }
  /// The key must have this value or be absent: anything else is something that the GGUF cannot say.
  void only(const char* key, const document& value) {
    const auto* v = get(key);
    if (v && *v != value) fail(key, v->dump() + " is not supported, only " + value.dump());
  }
  void fail(const char* key, const std::string& why) {
    fail("key '" + std::string(key) + "' " + text::printable(why.substr(0, 200)));
  }
  void fail(const std::string& why) {
    if (message_.empty()) message_ = where_ + ": " + why;
  }

  const std::string& message() const { return message_; }
  /// Keys that nobody asked for.
  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (const auto& [key, value] : object_.items())
      if (!used_.contains(key)) out.push_back(key);
    return out;
  }

 private:
  const document& object_;
  std::string where_, message_;
  std::set<std::string> used_;
};

/// DeepSeek V2 or the V3 family, to which Kimi-K2 belongs; fine-tunes keep one of the two names.
enum class family { v2, v3 };

std::optional<family> find_family(key_reader& k) {
  const std::string type = k.text_or("model_type", "");
  std::string names;
  if (const auto* list = k.get("architectures"); list && list->is_array())
    for (const auto& a : *list)
      if (a.is_string()) names += (names.empty() ? "" : ", ") + a.get<std::string>();
  const auto is = [&](const char* architecture) { return names == architecture; };
  if (is("DeepseekV2ForCausalLM") || (names.empty() && type == "deepseek_v2")) return family::v2;
  if (is("DeepseekV3ForCausalLM") || is("KimiK2ForCausalLM") ||
      (names.empty() && (type == "deepseek_v3" || type == "kimi_k2")))
    return family::v3;
  k.fail("architecture " + text::in_quotes(names) + " (model type " + text::in_quotes(type) +
         ") is not supported; DeepseekV2ForCausalLM, DeepseekV3ForCausalLM and KimiK2ForCausalLM are");
  return std::nullopt;
}

void read_sizes(key_reader& k, mla::config& c) {
  c.layers = k.integer("num_hidden_layers", 1, 1024);
  c.embedding = k.integer("hidden_size", 1, wide);
  c.vocabulary = k.integer("vocab_size", 1, std::int64_t{1} << 31);
  c.context = k.integer("max_position_embeddings", 1, std::int64_t{1} << 31);
  c.heads = k.integer("num_attention_heads", 1, 4096);
  c.nope = k.integer("qk_nope_head_dim", 1, wide);
  c.rope = k.integer("qk_rope_head_dim", 2, wide);
  c.value = k.integer("v_head_dim", 1, wide);
  c.kv_rank = k.integer("kv_lora_rank", 1, wide);
  c.q_rank = k.integer_or("q_lora_rank", 0, 0, wide);
  c.dense_hidden = k.integer("intermediate_size", 1, wide);
  c.rms_epsilon = k.number("rms_norm_eps", 0.0);
  if (c.rope % 2) k.fail("qk_rope_head_dim", "is odd");
}

/// What the format takes for granted.
void check_assumptions(key_reader& k) {
  k.only("hidden_act", "silu");
  k.only("attention_bias", false);
  k.only("mlp_bias", false);
  k.only("moe_layer_freq", 1);
  k.only("rope_interleave", true);
}

void read_experts(key_reader& k, family f, model_config& m) {
  auto& c = m.hyper;
  c.experts = k.integer_or("n_routed_experts", 0, 0, 1024);
  c.dense_layers = c.experts ? k.integer("first_k_dense_replace", 0, c.layers) : c.layers;
  const std::string method = k.text_or("topk_method", f == family::v3 ? "noaux_tc" : "greedy");
  const std::string scoring = k.text_or("scoring_func", f == family::v3 ? "sigmoid" : "softmax");
  if (c.experts == 0) return;
  c.experts_used = k.integer("num_experts_per_tok", 1, c.experts);
  c.experts_shared = k.integer_or("n_shared_experts", 0, 0, 64);
  c.expert_hidden = k.integer("moe_intermediate_size", 1, wide);
  c.weights_scale = k.number("routed_scaling_factor", 0.0);
  c.normalise_weights = k.flag_or("norm_topk_prob", f == family::v3);
  if (method != "greedy" && method != "group_limited_greedy" && method != "noaux_tc")
    k.fail("topk_method", text::in_quotes(method) + " is not supported");
  if (scoring != "softmax" && scoring != "sigmoid")
    k.fail("scoring_func", text::in_quotes(scoring) + " is not supported");
  c.gate = scoring == "sigmoid" ? mla::gating::sigmoid : mla::gating::softmax;
  m.routing_bias = method == "noaux_tc";
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
  y.original_context =
      static_cast<double>(k.integer("original_max_position_embeddings", 1, std::int64_t{1} << 31));
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

/// rope_scaling, or rope_parameters as newer writers call it, which then also holds the base.
void read_rope(key_reader& k, const std::string& where, model_config& m) {
  const auto* parameters = k.get("rope_parameters");
  const auto* scaling = k.get("rope_scaling");
  const auto* rope = parameters ? parameters : scaling;
  static const document none = document::object();
  if (rope && !rope->is_object()) return k.fail("rope_scaling", "is no object");
  key_reader r(rope ? *rope : none, where + ": rope scaling");
  m.hyper.rope_base = k.has("rope_theta") ? k.number("rope_theta", 1.0) : r.number_or("rope_theta", 0.0, 1.0);
  if (m.hyper.rope_base == 0.0) k.fail("rope_theta", "is missing");
  const std::string type = r.text_or("type", r.text_or("rope_type", "default"));
  if (type == "yarn") {
    read_yarn(r, m.hyper.scaling);
    for (const auto& key : r.unused())
      if (key != "rope_type" && key != "type")
        m.notices.push_back("rope scaling: key " + text::in_quotes(key) + " is ignored");
  } else if (type != "default") {
    r.fail("type " + text::in_quotes(type) + " is not supported, only yarn");
  }
  if (!r.message().empty()) k.fail(r.message().substr(where.size() + 2));
}

void read_quantization(key_reader& k, const std::string& where, model_config& m) {
  const auto* q = k.get("quantization_config");
  if (!q) return;
  key_reader r(*q, where + ": quantization_config");
  const auto method = r.text_or("quant_method", "");
  if (method != "fp8") r.fail("method " + text::in_quotes(method) + " is not supported, only fp8");
  r.only("fmt", "e4m3");
  if (const auto* block = r.get("weight_block_size")) {
    const auto good = [](const document& n) {
      return n.is_number_unsigned() && n.get<std::uint64_t>() >= 1 && n.get<std::uint64_t>() <= wide;
    };
    if (block->is_array() && block->size() == 2 && good((*block)[0]) && good((*block)[1]))
      m.fp8_block = {(*block)[0].get<std::int64_t>(), (*block)[1].get<std::int64_t>()};
    else
      r.fail("weight_block_size", "is no pair of sizes");
  }
  if (!r.message().empty()) k.fail(r.message().substr(where.size() + 2));
}

std::optional<std::int64_t> token_number(key_reader& k, const char* key, std::int64_t vocabulary) {
  const auto* v = k.get(key);
  if (v && v->is_array() && !v->empty()) v = &v->front();
  if (!v || !v->is_number_unsigned() || v->get<std::uint64_t>() >= static_cast<std::uint64_t>(vocabulary))
    return std::nullopt;
  return v->get<std::int64_t>();
}

/// Keys that say nothing about weights; every other unused key is worth a notice.
bool is_harmless(const std::string& key) {
  static const std::set<std::string> known = {"_name_or_path",
                                              "attention_dropout",
                                              "auto_map",
                                              "aux_loss_alpha",
                                              "dtype",
                                              "ep_size",
                                              "initializer_range",
                                              "num_key_value_heads",
                                              "num_nextn_predict_layers",
                                              "pretraining_tp",
                                              "seq_aux",
                                              "torch_dtype",
                                              "transformers_version",
                                              "use_cache"};
  return known.contains(key);
}

}  // namespace

result<model_config> read_config(const std::filesystem::path& directory) {
  const auto path = directory / "config.json";
  const auto d = read_json_object(path, std::uint64_t{16} << 20);
  if (!d) return d.error();
  const std::string where = path.string();
  key_reader k(*d, where);
  const auto f = find_family(k);
  if (!f) return error{k.message()};
  model_config m;
  read_sizes(k, m.hyper);
  check_assumptions(k);
  read_experts(k, *f, m);
  read_rope(k, where, m);
  read_quantization(k, where, m);
  m.tied_embeddings = k.flag_or("tie_word_embeddings", false);
  m.bos = token_number(k, "bos_token_id", m.hyper.vocabulary);
  m.eos = token_number(k, "eos_token_id", m.hyper.vocabulary);
  m.pad = token_number(k, "pad_token_id", m.hyper.vocabulary);
  if (!k.message().empty()) return error{k.message()};
  for (const auto& key : k.unused())
    if (!is_harmless(key)) m.notices.push_back(where + ": key " + text::in_quotes(key) + " is ignored");
  return m;
}

std::string size_label(double parameters) {
  if (parameters >= 1e12) return text::format("%.1fT", parameters / 1e12);
  if (parameters >= 1e9) return text::format("%.1fB", parameters / 1e9);
  return text::format("%.1fM", parameters / 1e6);
}

namespace {

void set_general(gguf::metadata& meta, const model_names& names) {
  const auto text_key = [&](const char* key, const std::string& v) {
    if (!v.empty()) meta.set(key, v);
  };
  meta.set("general.architecture", std::string("deepseek2"));
  meta.set("general.type", std::string("model"));
  text_key("general.name", names.name);
  text_key("general.size_label", names.size_label);
  text_key("general.license", names.license);
  meta.set("general.alignment", std::uint32_t{32});
  meta.set("general.quantization_version", std::uint32_t{2});
  meta.set("general.file_type", std::uint32_t{32});
}

/// Writes keys of the architecture.
class key_writer {
 public:
  explicit key_writer(gguf::metadata& meta) : meta_(meta) {}
  void integer(const char* key, std::int64_t v) { set(key, static_cast<std::uint32_t>(v)); }
  void number(const char* key, double v) { set(key, static_cast<float>(v)); }
  void set(const char* key, gguf::value v) { meta_.set(std::string("deepseek2.") + key, std::move(v)); }

 private:
  gguf::metadata& meta_;
};

void set_attention(key_writer& k, gguf::metadata& meta, const mla::config& c, mla::layout to) {
  k.integer("attention.head_count", c.heads);
  k.integer("attention.head_count_kv", c.heads);
  k.number("attention.layer_norm_rms_epsilon", c.rms_epsilon);
  if (c.q_rank) k.integer("attention.q_lora_rank", c.q_rank);
  k.integer("attention.kv_lora_rank", c.kv_rank);
  mla::set_layout_keys(meta, c, to);
}

void set_rope(key_writer& k, const mla::config& c) {
  k.integer("rope.dimension_count", c.rope);
  k.number("rope.freq_base", c.rope_base);
  const auto& y = c.scaling;
  if (y.ext_factor == 0) return;
  k.set("rope.scaling.type", std::string("yarn"));
  k.number("rope.scaling.factor", y.factor);
  k.integer("rope.scaling.original_context_length", static_cast<std::int64_t>(y.original_context));
  k.number("rope.scaling.yarn_beta_fast", y.beta_fast);
  k.number("rope.scaling.yarn_beta_slow", y.beta_slow);
  k.number("rope.scaling.yarn_log_multiplier", y.log_multiplier);
}

void set_experts(key_writer& k, const mla::config& c) {
  if (c.experts == 0) return;
  k.integer("expert_count", c.experts);
  k.integer("expert_used_count", c.experts_used);
  k.integer("expert_shared_count", c.experts_shared);
  k.integer("expert_feed_forward_length", c.expert_hidden);
  k.number("expert_weights_scale", c.weights_scale);
  k.set("expert_weights_norm", c.normalise_weights);
  k.integer("expert_gating_func", static_cast<std::int64_t>(c.gate));
  k.integer("expert_group_count", c.groups);
  k.integer("expert_group_used_count", c.groups_used);
}

}  // namespace

gguf::metadata model_metadata(const model_config& m, mla::layout to, const model_names& names) {
  const auto& c = m.hyper;
  gguf::metadata meta;
  set_general(meta, names);
  key_writer k(meta);
  k.integer("block_count", c.layers);
  k.integer("context_length", c.context);
  k.integer("embedding_length", c.embedding);
  k.integer("feed_forward_length", c.dense_hidden);
  k.integer("leading_dense_block_count", c.dense_layers);
  k.integer("vocab_size", c.vocabulary);
  set_attention(k, meta, c, to);
  set_rope(k, c);
  set_experts(k, c);
  return meta;
}

}  // namespace quantal::hf
