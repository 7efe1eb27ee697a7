#include "vocabulary.hpp"

#include <algorithm>

#include "file.hpp"
#include "text.hpp"
#include "tiktoken.hpp"
#include "tokenizer.hpp"
#include "tokenizer_json.hpp"

namespace quantal::hf {

vocabulary::vocabulary(std::size_t n) : tokens(n), types(n), taken_(n) {}

bool vocabulary::put(std::size_t number, const std::string& token, token_type type) {
  if (number >= tokens.size() || (taken_[number] && tokens[number] != token)) return false;
  taken_[number] = true;
  tokens[number] = token;
  types[number] = static_cast<std::int32_t>(type);
  return true;
}

void vocabulary::fill() {
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (!taken_[i]) put(i, "[PAD" + std::to_string(i) + "]", token_type::unused);
}

namespace {

/// Number of a special token: its name in tokenizer_config.json, as a string or an object with "content",
/// else what config.json says.
std::optional<std::int64_t> special_token(const document& config, const char* key, const vocabulary& v,
                                          std::optional<std::int64_t> otherwise) {
  const auto* t = member(config, key);
  if (t && t->is_object()) t = member(*t, "content");
  if (!t || !t->is_string()) return otherwise;
  const auto it = std::find(v.tokens.begin(), v.tokens.end(), t->get_ref<const std::string&>());
  return it == v.tokens.end() ? otherwise : it - v.tokens.begin();
}

void set_special_tokens(const document& config, const model_config& c, const vocabulary& v,
                        gguf::metadata& meta) {
  const auto set = [&](const char* key, const char* name, std::optional<std::int64_t> otherwise) {
    if (const auto n = special_token(config, name, v, otherwise))
      meta.set(std::string("tokenizer.ggml.") + key, static_cast<std::uint32_t>(*n));
  };
  set("bos_token_id", "bos_token", c.bos);
  set("eos_token_id", "eos_token", c.eos);
  set("unknown_token_id", "unk_token", std::nullopt);
  set("padding_token_id", "pad_token", c.pad);
  if (c.eot) meta.set("tokenizer.ggml.eot_token_id", static_cast<std::uint32_t>(*c.eot));
  if (c.eom) meta.set("tokenizer.ggml.eom_token_id", static_cast<std::uint32_t>(*c.eom));
  for (const char* key : {"add_bos_token", "add_eos_token"})
    if (const auto* v = member(config, key); v && v->is_boolean())
      meta.set(std::string("tokenizer.ggml.") + key, v->get<bool>());
  // The classes named after Llama add BOS unless told otherwise.
  const auto* kind = member(config, "tokenizer_class");
  if (!meta.contains("tokenizer.ggml.add_bos_token") && kind && kind->is_string() &&
      kind->get_ref<const std::string&>().starts_with("LlamaTokenizer"))
    meta.set("tokenizer.ggml.add_bos_token", true);
}

/// A file of its own, a string, or the one called "default" of several.
std::string chat_template(const std::filesystem::path& directory, const document& config) {
  if (const auto own = file::read_text(directory / "chat_template.jinja")) return *own;
  const auto* t = member(config, "chat_template");
  if (t && t->is_string()) return t->get<std::string>();
  if (t && t->is_array())
    for (const auto& one : *t) {
      const auto *name = member(one, "name"), *text = member(one, "template");
      if (name && *name == "default" && text && text->is_string()) return text->get<std::string>();
    }
  return {};
}

result<vocabulary> read_vocabulary(const std::filesystem::path& directory, const document& config,
                                   std::int64_t size, std::vector<std::string>& notices) {
  std::error_code ignored;
  if (std::filesystem::exists(directory / "tokenizer.json", ignored))
    return read_tokenizer_json(directory / "tokenizer.json", size);
  if (std::filesystem::exists(directory / "tiktoken.model", ignored))
    return read_kimi_vocabulary(directory, config, size, notices);
  return error{directory.string() + ": neither tokenizer.json nor tiktoken.model"};
}

}  // namespace

result<void> add_vocabulary(const std::filesystem::path& directory, const model_config& c,
                            gguf::metadata& meta, std::vector<std::string>& notices) {
  document config = document::object();
  std::error_code ignored;
  if (std::filesystem::exists(directory / "tokenizer_config.json", ignored)) {
    auto read = read_json_object(directory / "tokenizer_config.json");
    if (!read) return read.error();
    config = std::move(*read);
  }
  auto v = read_vocabulary(directory, config, c.hyper.vocabulary, notices);
  if (!v) return v.error();
  meta.set("tokenizer.ggml.model", std::string("gpt2"));
  meta.set("tokenizer.ggml.pre", c.is_glm && v->pre == "llama-bpe" ? std::string("glm4") : v->pre);
  meta.set("tokenizer.ggml.tokens", gguf::array(v->tokens));
  meta.set("tokenizer.ggml.token_type", gguf::array(v->types));
  meta.set("tokenizer.ggml.merges", gguf::array(v->merges));
  set_special_tokens(config, c, *v, meta);
  if (const auto t = chat_template(directory, config); !t.empty()) meta.set("tokenizer.chat_template", t);
  const auto works = mla::tokenizer::from_gguf(meta);
  if (!works) return error{directory.string() + ": " + works.error().message};
  return {};
}

}  // namespace quantal::hf
