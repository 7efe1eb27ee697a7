#include "hf_config.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <set>

#include "key_reader.hpp"

namespace quantal::hf {
namespace {

constexpr std::int64_t wide = 1 << 20;

/// What differs between the models: defaults of keys, and what is left out.
enum class family { v2, v3, sparse, glm, sparse_glm, dense };

struct known_architecture {
  std::string_view name, model_type;
  family kind;
};
/// In the order in which messages list them.
constexpr auto architectures = std::to_array<known_architecture>({
    {"DeepseekV2ForCausalLM", "deepseek_v2", family::v2},
    {"DeepseekV3ForCausalLM", "deepseek_v3", family::v3},
    {"DeepseekV32ForCausalLM", "deepseek_v32", family::sparse},
    {"KimiK2ForCausalLM", "kimi_k2", family::v3},
    {"Glm4MoeLiteForCausalLM", "glm4_moe_lite", family::glm},
    {"GlmMoeDsaForCausalLM", "glm_moe_dsa", family::sparse_glm},
    {"YoutuForCausalLM", "youtu", family::dense},
});

std::string architecture_names(const document& config) {
  std::string names;
  if (const auto* list = member(config, "architectures"); list && list->is_array())
    for (const auto& a : *list)
      if (a.is_string()) names += (names.empty() ? "" : ", ") + a.get<std::string>();
  return names;
}

std::optional<family> find_family(key_reader& k, const document& config) {
  const std::string type = k.text_or("model_type", ""), names = architecture_names(config);
  k.get("architectures");
  std::string known;
  for (const auto& a : architectures) {
    if (names == a.name || (names.empty() && type == a.model_type)) return a.kind;
    known += (known.empty() ? "" : ", ") + std::string(a.name);
  }
  k.fail("architecture " + text::in_quotes(names) + " (model type " + text::in_quotes(type) +
         ") is not supported; " + known + " are, and wrappers with one of them as text_config");
  return std::nullopt;
}

bool has_indexer(family f) { return f == family::sparse || f == family::sparse_glm; }

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
  k.only("partial_rotary_factor", 1.0);
}

/// Blocks without experts: they lead, whichever way the number is said.
std::int64_t read_dense_layers(key_reader& k, std::int64_t layers) {
  const auto* kinds = k.get("mlp_layer_types");
  if (!kinds) return k.integer("first_k_dense_replace", 0, layers);
  k.get("first_k_dense_replace");
  if (!kinds->is_array() || static_cast<std::int64_t>(kinds->size()) != layers)
    return k.fail("mlp_layer_types", "does not name every layer"), 0;
  const auto first =
      std::find_if(kinds->begin(), kinds->end(), [](const document& d) { return d != "dense"; });
  if (std::any_of(first, kinds->end(), [](const document& d) { return d != "sparse"; }))
    k.fail("mlp_layer_types", "is not dense layers followed by sparse ones");
  return first - kinds->begin();
}

void read_experts(key_reader& k, family f, model_config& m) {
  auto& c = m.hyper;
  c.experts = k.integer_or("n_routed_experts", 0, 0, 1024);
  c.dense_layers = c.experts ? read_dense_layers(k, c.layers) : c.layers;
  const std::string method = k.text_or("topk_method", f != family::v2 ? "noaux_tc" : "greedy");
  const std::string scoring = k.text_or("scoring_func", f != family::v2 ? "sigmoid" : "softmax");
  if (c.experts == 0) return;
  c.experts_used = k.integer("num_experts_per_tok", 1, c.experts);
  c.experts_shared = k.integer_or("n_shared_experts", 0, 0, 64);
  c.expert_hidden = k.integer("moe_intermediate_size", 1, wide);
  c.weights_scale = k.number("routed_scaling_factor", 0.0);
  c.normalise_weights = k.flag_or("norm_topk_prob", f != family::v2);
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

/// Of the model, or of the wrapper around it.
void read_quantization(key_reader& k, key_reader& outer, const std::string& where, model_config& m) {
  const auto *own = k.get("quantization_config"), *around = outer.get("quantization_config");
  if (own && around && *own != *around)
    return k.fail("quantization_config", "of the text part differs from the wrapper's");
  auto q = quantization::read(own ? own : around, where + ": quantization_config");
  if (!q) return k.fail(q.error().message.substr(where.size() + 2));
  m.quantized = std::move(*q);
}

/// Special token `index` of a key that names one or several.
std::optional<std::int64_t> token_number(key_reader& k, const char* key, std::int64_t vocabulary,
                                         std::size_t index = 0) {
  const auto* v = k.get(key);
  if (v && v->is_array())
    v = index < v->size() ? &(*v)[index] : nullptr;
  else if (index > 0)
    return std::nullopt;
  if (!v || !v->is_number_unsigned() || v->get<std::uint64_t>() >= static_cast<std::uint64_t>(vocabulary))
    return std::nullopt;
  return v->get<std::int64_t>();
}

/// Tokens that are still unknown.
void read_special_tokens(key_reader& k, model_config& m) {
  const auto take = [&](std::optional<std::int64_t>& to, const char* key, std::size_t index = 0) {
    if (const auto n = token_number(k, key, m.hyper.vocabulary, index); !to) to = n;
  };
  take(m.bos, "bos_token_id"), take(m.eos, "eos_token_id"), take(m.pad, "pad_token_id");
  if (m.is_glm) take(m.eot, "eos_token_id", 1), take(m.eom, "eos_token_id", 2);
}

void read_indexer(key_reader& k, model_config& m) {
  m.sparse_from = k.integer("index_topk", 1, std::int64_t{1} << 31);
  for (const char* key : {"index_head_dim", "index_n_heads", "indexer_rope_interleave", "index_topk_freq",
                          "index_topk_pattern", "indexer_types"})
    k.get(key);
  m.notices.push_back(
      "the indexer of sparse attention is left out: attention is dense, which is the same for up to " +
      std::to_string(m.sparse_from) + " tokens (index_topk)");
}

/// Keys that say nothing about weights; every other unused key is worth a notice.
bool is_harmless(const std::string& key) {
  static const std::set<std::string> known = {"_name_or_path",
                                              "architectures",
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
  key_reader outer(*d, where);
  const auto* part = outer.get("text_config");
  if (part && !part->is_object()) return error{where + ": key 'text_config' is no object"};
  const document& config = part ? *part : *d;
  key_reader k(config, where);
  const auto f = find_family(k, config);
  if (!f) return error{k.message()};
  model_config m;
  m.wrapped = part != nullptr;
  m.is_glm = *f == family::glm || *f == family::sparse_glm;
  read_sizes(k, m.hyper);
  check_assumptions(k);
  read_experts(k, *f, m);
  read_rope(k, where, m);
  read_quantization(k, outer, where, m);
  if (has_indexer(*f)) read_indexer(k, m);
  m.tied_embeddings =
      k.flag_or("tie_word_embeddings", part ? outer.flag_or("tie_word_embeddings", false) : false);
  read_special_tokens(k, m);
  if (part) read_special_tokens(outer, m);
  for (const auto* reader : {&k, &outer})
    if (!reader->message().empty()) return error{reader->message()};
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
