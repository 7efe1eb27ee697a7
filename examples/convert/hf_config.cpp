#include "hf_config.hpp"

#include <set>

#include "families/decoder.hpp"
#include "key_reader.hpp"
#include "params_json.hpp"

namespace quantal::hf {
namespace {

/// In the order in which messages list them.
std::vector<const family*> all_families() {
  std::vector<const family*> all;
  for (const auto list :
       {deepseek_families(), llama_families(), qwen_families(), gemma_families(), gpt_oss_families()})
    for (const auto& f : list) all.push_back(&f);
  return all;
}

std::string architecture_names(const document& config) {
  std::string names;
  if (const auto* list = member(config, "architectures"); list && list->is_array())
    for (const auto& a : *list)
      if (a.is_string()) names += (names.empty() ? "" : ", ") + a.get<std::string>();
  return names;
}

const family* find_family(key_reader& k, const document& config) {
  const std::string type = k.text_or("model_type", ""), names = architecture_names(config);
  k.get("architectures");
  std::string known;
  for (const auto* f : all_families()) {
    if (names == f->class_name || (names.empty() && type == f->model_type)) return f;
    known += (known.empty() ? "" : ", ") + std::string(f->class_name);
  }
  k.fail("architecture " + text::in_quotes(names) + " (model type " + text::in_quotes(type) +
         ") is not supported; " + known + " are, and wrappers with one of them as text_config");
  return nullptr;
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
    if (const auto n = token_number(k, key, m.sizes[size::vocabulary], index); !to) to = n;
  };
  take(m.bos, "bos_token_id"), take(m.eos, "eos_token_id"), take(m.pad, "pad_token_id");
  if (m.is_glm) take(m.eot, "eos_token_id", 1), take(m.eom, "eos_token_id", 2);
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
                                              "output_router_logits",
                                              "router_jitter_noise",
                                              "router_aux_loss_coef",
                                              "torch_dtype",
                                              "transformers_version",
                                              "use_cache"};
  return known.contains(key);
}

}  // namespace

void model_config::set(const char* key, gguf::value v) {
  keys.set(std::string(kind->architecture) + "." + key, std::move(v));
}

namespace {

constexpr std::uint64_t largest_config = std::uint64_t{16} << 20;

/// What stands beside the numbers of the model; `outer` holds it too in a wrapper.
result<model_config> finish(model_config m, key_reader& k, key_reader& outer) {
  const auto& where = k.where();
  m.tied_embeddings =
      k.flag_or("tie_word_embeddings", outer.flag_or("tie_word_embeddings", m.kind->ties_embeddings));
  m.ties_disagree = m.tied_embeddings != outer.flag_or("tie_word_embeddings", m.tied_embeddings);
  if (!m.tied_embeddings) m.traits |= trait::untied;
  read_keys(k, m);
  m.kind->read_rest(k, m);
  read_quantization(k, outer, where, m);
  read_special_tokens(k, m);
  if (&k != &outer) read_special_tokens(outer, m);
  for (const auto* reader : {&k, &outer})
    if (!reader->message().empty()) return error{reader->message()};
  for (const auto& key : k.unused())
    if (!is_harmless(key)) m.notices.push_back(where + ": key " + text::in_quotes(key) + " is ignored");
  return m;
}

/// Of a folder without config.json that is not in Mistral's own layout either.
error no_config(const std::filesystem::path& directory) {
  std::error_code ignored;
  const bool has_params = std::filesystem::exists(directory / "params.json", ignored);
  return {directory.string() +
          (has_params ? ": params.json needs consolidated*.safetensors, and model*.safetensors a config.json"
                      : ": neither config.json nor params.json: no checkpoint")};
}

/// Of a checkpoint in Mistral's own layout.
result<model_config> read_params(const std::filesystem::path& path, mla::layout layout) {
  const auto d = read_json_object(path, largest_config);
  if (!d) return d.error();
  auto native = config_of_params(*d, path.string());
  if (!native) return native.error();
  key_reader k(native->config, path.string(), native->names);
  model_config m;
  m.kind = mistral_family(native->class_name);
  m.native = true;
  m.wrapped = native->wrapped;
  m.layout = layout;
  m.notices = std::move(native->notices);
  auto done = finish(std::move(m), k, k);
  if (done) done->quantized.add_names(native_words());
  return done;
}

}  // namespace

result<model_config> read_config(const std::filesystem::path& directory, mla::layout layout) {
  std::error_code failed;
  if (!std::filesystem::exists(directory, failed)) return error{directory.string() + ": no such folder"};
  if (!std::filesystem::is_directory(directory, failed))
    return error{directory.string() +
                 ": is no folder; checkpoints are, and GGUF files are for quantal-quantize"};
  if (has_native_layout(directory)) return read_params(directory / "params.json", layout);
  const auto path = directory / "config.json";
  if (!std::filesystem::exists(path, failed)) return no_config(directory);
  const auto d = read_json_object(path, largest_config);
  if (!d) return d.error();
  const std::string where = path.string();
  key_reader outer(*d, where);
  const auto* part = outer.get("text_config");
  if (part && !part->is_object()) return error{where + ": key 'text_config' is no object"};
  const document& config = part ? *part : *d;
  key_reader k(config, where);
  model_config m;
  m.kind = find_family(k, config);
  if (!m.kind) return error{k.message()};
  m.wrapped = part != nullptr;
  m.layout = layout;
  return finish(std::move(m), k, part ? outer : k);
}

std::string size_label(double parameters) {
  if (parameters >= 1e12) return text::format("%.1fT", parameters / 1e12);
  if (parameters >= 1e9) return text::format("%.1fB", parameters / 1e9);
  return text::format("%.1fM", parameters / 1e6);
}

gguf::metadata model_metadata(const model_config& m, const model_names& names) {
  gguf::metadata meta;
  const auto text_key = [&](const char* key, const std::string& v) {
    if (!v.empty()) meta.set(key, v);
  };
  meta.set("general.architecture", std::string(m.kind->architecture));
  meta.set("general.type", std::string("model"));
  text_key("general.name", names.name);
  text_key("general.size_label", names.size_label);
  text_key("general.license", names.license);
  meta.set("general.alignment", std::uint32_t{32});
  meta.set("general.quantization_version", std::uint32_t{2});
  meta.set("general.file_type", std::uint32_t{32});
  for (const auto& [key, value] : m.keys.items()) meta.set(key, value);
  return meta;
}

}  // namespace quantal::hf
