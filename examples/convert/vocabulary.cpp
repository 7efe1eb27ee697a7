#include "vocabulary.hpp"

#include <algorithm>
#include <charconv>

#include "file.hpp"
#include "sentencepiece.hpp"
#include "tekken.hpp"
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

bool vocabulary::put_added(std::size_t number, const std::string& token, bool is_control) {
  if (number >= tokens.size()) {
    auto notice = "added token " + text::in_quotes(token) + " is left out: its number " +
                  std::to_string(number) + " is behind the " + std::to_string(tokens.size()) +
                  " of config.json";
    // Several files name it.
    if (std::find(notices.begin(), notices.end(), notice) == notices.end())
      notices.push_back(std::move(notice));
    return true;
  }
  const bool is_new = !taken_[number];
  auto type = is_control ? token_type::control : token_type::user_defined;
  if (!is_new)
    for (const auto kept : {token_type::unknown, token_type::byte, token_type::control})
      if (types[number] == static_cast<std::int32_t>(kept)) type = kept;
  if (!put(number, token, type)) return false;
  if (is_new && !scores.empty()) scores[number] = added_score;
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
}

/// The number that `meta` has for a special token is that of `name`.
bool is_special(const gguf::metadata& meta, const char* key, const vocabulary& v, const std::string& name) {
  const auto n = meta.integer(key, 0, static_cast<std::int64_t>(v.tokens.size()) - 1);
  return n && !name.empty() && v.tokens[static_cast<std::size_t>(*n)] == name;
}

/// Whether special tokens stand around texts: tokenizer_config.json says it, or the template does.
void set_additions(const document& config, const vocabulary& v, gguf::metadata& meta) {
  for (const char* key : {"add_bos_token", "add_eos_token"})
    if (const auto* flag = member(config, key); flag && flag->is_boolean())
      meta.set(std::string("tokenizer.ggml.") + key, flag->get<bool>());
  const auto set = [&](const char* key) {
    if (!meta.contains(key)) meta.set(key, true);
  };
  if (is_special(meta, "tokenizer.ggml.bos_token_id", v, v.first)) set("tokenizer.ggml.add_bos_token");
  if (is_special(meta, "tokenizer.ggml.eos_token_id", v, v.last)) set("tokenizer.ggml.add_eos_token");
  // The classes named after Llama and Gemma add BOS unless told otherwise.
  const auto* kind = member(config, "tokenizer_class");
  if (!kind || !kind->is_string()) return;
  const auto& name = kind->get_ref<const std::string&>();
  if (name.starts_with("LlamaTokenizer") || name.starts_with("GemmaTokenizer"))
    set("tokenizer.ggml.add_bos_token");
}

bool has(const std::filesystem::path& directory, const char* name) {
  std::error_code ignored;
  return std::filesystem::exists(directory / name, ignored);
}

/// A file of its own, a string, or the one called "default" of several; of models that see, a JSON file of its own.
/// Empty if there is none.
result<std::string> chat_template(const std::filesystem::path& directory, const document& config) {
  if (has(directory, "chat_template.jinja")) return file::read_text(directory / "chat_template.jinja");
  if (has(directory, "chat_template.json")) {
    const auto own = read_json_object(directory / "chat_template.json");
    if (!own) return own.error();
    if (const auto* t = member(*own, "chat_template"); t && t->is_string()) return t->get<std::string>();
  }
  const auto* t = member(config, "chat_template");
  if (t && t->is_string()) return t->get<std::string>();
  if (t && t->is_array())
    for (const auto& one : *t) {
      const auto *name = member(one, "name"), *text = member(one, "template");
      if (name && *name == "default" && text && text->is_string()) return text->get<std::string>();
    }
  return std::string();
}

/// Tokens beside the pieces: added_tokens.json and tokenizer_config.json.
result<void> add_tokens(const std::filesystem::path& directory, const document& config, vocabulary& v) {
  const auto add = [&](const std::filesystem::path& from, const std::string& token, std::uint64_t number,
                       bool is_control) -> result<void> {
    if (v.put_added(number, token, is_control)) return {};
    return error{from.string() + ": added token " + text::in_quotes(token) + ": number " +
                 std::to_string(number) + " belongs to another token"};
  };
  const auto own = directory / "added_tokens.json", common = directory / "tokenizer_config.json";
  std::error_code ignored;
  if (std::filesystem::exists(own, ignored)) {
    const auto added = read_json_object(own);
    if (!added) return added.error();
    for (const auto& [token, number] : added->items()) {
      if (!number.is_number_unsigned())
        return error{own.string() + ": " + text::in_quotes(token) + " has no number"};
      if (auto ok = add(own, token, number.get<std::uint64_t>(), false); !ok) return ok;
    }
  }
  const auto named = decoder_tokens(directory, config);
  if (!named) return named.error();
  for (const auto& t : *named)
    if (auto ok = add(common, t.content, t.number, t.special); !ok) return ok;
  return {};
}

/// `tokenizer`: tokenizer.json, null if there is none. Its added tokens may be named nowhere else.
result<vocabulary> read_pieces(const std::filesystem::path& directory, const document& config,
                               const document* tokenizer, std::int64_t size) {
  auto v = read_sentencepiece(directory / "tokenizer.model", size);
  if (!v) return v;
  if (auto ok = add_tokens(directory, config, *v); !ok) return ok.error();
  if (tokenizer) return add_to_pieces(*tokenizer, (directory / "tokenizer.json").string(), std::move(*v));
  v->fill();
  return v;
}

/// tekken.json goes before others in Mistral's own layout, and behind them elsewhere.
bool uses_tekken(const std::filesystem::path& directory, const model_config& c) {
  return has(directory, "tekken.json") &&
         (c.native || (!has(directory, "tokenizer.json") && !has(directory, "tokenizer.model")));
}

/// A file that describes byte-level BPE is all that is needed; otherwise the pieces say more than it does.
result<vocabulary> read_vocabulary(const std::filesystem::path& directory, const document& config,
                                   std::int64_t size, std::vector<std::string>& notices) {
  const auto path = directory / "tokenizer.json";
  std::optional<document> tokenizer;
  if (has(directory, "tokenizer.json")) {
    auto read = read_json_object(path);
    if (!read) return read.error();
    tokenizer = std::move(*read);
  }
  const bool has_pieces = has(directory, "tokenizer.model");
  if (tokenizer && (is_byte_level(*tokenizer) || !has_pieces))
    return read_tokenizer_json(*tokenizer, path.string(), size);
  if (has_pieces) return read_pieces(directory, config, tokenizer ? &*tokenizer : nullptr, size);
  if (has(directory, "tiktoken.model")) return read_kimi_vocabulary(directory, config, size, notices);
  return error{directory.string() +
               ": none of tokenizer.json, tokenizer.model, tekken.json and tiktoken.model"};
}

/// The tokens as a GGUF spells them. Programs look for those that are found as a whole in the text as it is,
/// in which spaces are not written as U+2581 yet.
std::vector<std::string> spelled(const vocabulary& v) {
  auto tokens = v.tokens;
  if (v.model != "llama") return tokens;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (v.types[i] == static_cast<std::int32_t>(token_type::user_defined))
      for (std::size_t at = 0; (at = tokens[i].find(space_mark, at)) != std::string::npos; ++at)
        tokens[i].replace(at, space_mark.size(), " ");
  return tokens;
}

void set_tokens(const model_config& c, const vocabulary& v, gguf::metadata& meta) {
  meta.set("tokenizer.ggml.model", v.model);
  const bool pieces = v.model == "llama";
  meta.set("tokenizer.ggml.pre", pieces                             ? std::string("default")
                                 : c.is_glm && v.pre == "llama-bpe" ? std::string("glm4")
                                                                    : v.pre);
  meta.set("tokenizer.ggml.tokens", gguf::array(spelled(v)));
  if (pieces) meta.set("tokenizer.ggml.scores", gguf::array(v.scores));
  meta.set("tokenizer.ggml.token_type", gguf::array(v.types));
  if (!pieces) meta.set("tokenizer.ggml.merges", gguf::array(v.merges));
  if (v.add_space_prefix) meta.set("tokenizer.ggml.add_space_prefix", *v.add_space_prefix);
}

}  // namespace

result<std::vector<numbered_token>> decoder_tokens(const std::filesystem::path& directory,
                                                   const document& config) {
  std::vector<numbered_token> out;
  const auto* named = member(config, "added_tokens_decoder");
  if (!named || !named->is_object()) return out;
  for (const auto& [key, t] : named->items()) {
    std::size_t n = 0;
    const auto [end, failed] = std::from_chars(key.data(), key.data() + key.size(), n);
    const auto *content = member(t, "content"), *special = member(t, "special");
    if (failed != std::errc{} || end != key.data() + key.size() || !content || !content->is_string())
      return error{(directory / "tokenizer_config.json").string() + ": added token " + text::in_quotes(key) +
                   " has no name or no number"};
    out.push_back({n, content->get<std::string>(), special && *special == true});
  }
  return out;
}

result<void> add_vocabulary(const std::filesystem::path& directory, const model_config& c,
                            gguf::metadata& meta, std::vector<std::string>& notices) {
  const bool tekken = uses_tekken(directory, c);
  // The names of Mistral's special tokens are the same whatever file lists them.
  document config = tekken || c.native ? tekken_names() : document::object();
  if (!tekken && has(directory, "tokenizer_config.json")) {
    auto read = read_json_object(directory / "tokenizer_config.json");
    if (!read) return read.error();
    config = std::move(*read);
  }
  const auto size = c.sizes[size::vocabulary];
  auto v = tekken ? read_tekken(directory / "tekken.json", size)
                  : read_vocabulary(directory, config, size, notices);
  if (!v) return v.error();
  notices.insert(notices.end(), v->notices.begin(), v->notices.end());
  set_tokens(c, *v, meta);
  set_special_tokens(config, c, *v, meta);
  set_additions(config, *v, meta);
  const auto t = chat_template(directory, config);
  if (!t) return t.error();
  if (!t->empty()) meta.set("tokenizer.chat_template", *t);
  if (t->empty() && c.native)
    notices.push_back(
        "there is no chat template; the layout has none but in a chat_template.jinja beside it");
  if (v->model == "llama") return {};  // nothing here runs it
  const auto works = mla::tokenizer::from_gguf(meta);
  if (!works) return error{directory.string() + ": " + works.error().message};
  return {};
}

}  // namespace quantal::hf
