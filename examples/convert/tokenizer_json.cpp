#include "tokenizer_json.hpp"

#include <algorithm>
#include <unordered_map>
#include <unordered_set>

#include "pretokenizer.hpp"
#include "sentencepiece.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// What ByteLevel splits by when it is told to use its own expression.
constexpr const char* byte_level_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

bool falls_back_to_bytes(const document& model) {
  const auto* flag = member(model, "byte_fallback");
  return flag && *flag == true;
}

class json_tokenizer {
 public:
  json_tokenizer(const document& d, std::string where, vocabulary start)
      : document_(d), where_(std::move(where)), out_(std::move(start)) {}

  result<vocabulary> read() {
    const auto* model = member(document_, "model");
    if (!model || !model->is_object()) return fail("'model' is missing");
    if (auto ok = check_model(*model); !ok) return ok.error();
    const bool pieces = falls_back_to_bytes(*model);
    if (auto ok = pieces ? read_spaces() : read_splits(); !ok) return ok.error();
    if (auto ok = read_vocab(*model); !ok) return ok.error();
    if (auto ok = read_merges(*model); !ok) return ok.error();
    if (pieces) make_scores(*model);
    return read_rest();
  }

  /// What stands beside the model.
  result<vocabulary> read_rest() {
    if (auto ok = read_added(); !ok) return ok.error();
    read_template();
    out_.fill();
    return std::move(out_);
  }

 private:
  error fail(const std::string& why) const { return {where_ + ": " + why}; }

  /// Only what BPE of a GGUF can do.
  result<void> check_model(const document& model) const {
    const auto* type = member(model, "type");
    if (type && *type != "BPE") return fail("model type " + shown(*type) + " is not supported, only BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const auto* v = member(model, key); v && *v != "")
        return fail(std::string("model: ") + key + " " + shown(*v) + " is not supported");
    return {};
  }

  static std::string shown(const document& d) {
    return text::printable(d.dump(-1, ' ', false, document::error_handler_t::replace).substr(0, 2000));
  }

  /// The expressions that text is split by, one after the other; nothing if a step is something else.
  bool collect_patterns(const document& step, std::vector<std::string>& patterns, bool& byte_level) const {
    const auto* type = member(step, "type");
    if (!type) return false;
    const auto flag = [&](const char* key, bool otherwise) {
      const auto* v = member(step, key);
      return v && v->is_boolean() ? v->get<bool>() : otherwise;
    };
    if (*type == "Sequence") {
      const auto* steps = member(step, "pretokenizers");
      if (!steps || !steps->is_array()) return false;
      for (const auto& s : *steps)
        if (!collect_patterns(s, patterns, byte_level)) return false;
      return true;
    }
    if (*type == "ByteLevel") {
      if (flag("add_prefix_space", true)) return false;
      if (flag("use_regex", true)) patterns.push_back(byte_level_pattern);
      return byte_level = true;
    }
    if (*type == "Digits") {
      patterns.push_back(flag("individual_digits", false) ? R"(\p{N})" : R"(\p{N}+)");
      return true;
    }
    const auto* pattern = member(step, "pattern");
    const auto* regex = pattern ? member(*pattern, "Regex") : nullptr;
    const auto* behavior = member(step, "behavior");
    if (*type != "Split" || !regex || !regex->is_string() || flag("invert", false) || !behavior ||
        *behavior != "Isolated")
      return false;
    patterns.push_back(regex->get<std::string>());
    return true;
  }

  /// NFC leaves most texts as they are, and every Qwen tokenizer has it.
  result<void> check_normalizer() {
    const auto* normalizer = member(document_, "normalizer");
    const auto* parts = normalizer ? member(*normalizer, "normalizers") : nullptr;
    if (!normalizer || (parts && parts->is_array() && parts->empty())) return {};
    const auto* type = member(*normalizer, "type");
    if (!type || *type != "NFC") return fail("normalizer " + shown(*normalizer) + " is not supported");
    out_.notices.push_back(where_ + ": normalization NFC is left out, a GGUF tokenizer has none");
    return {};
  }
  result<void> read_splits() {
    if (auto ok = check_normalizer(); !ok) return ok;
    return read_pre_tokenizer();
  }

  /// A step that writes spaces as U+2581; `prefix` becomes true if it puts one before the text.
  static bool writes_spaces(const document& step, bool& prefix) {
    const auto value = [](const document& of, const char* key) {
      const auto* v = member(of, key);
      return v ? *v : document();
    };
    const auto type = value(step, "type"), pattern = value(step, "pattern");
    if (type == "Prepend") return prefix = value(step, "prepend") == space_mark;
    if (type == "Replace") return value(pattern, "String") == " " && value(step, "content") == space_mark;
    if (type == "Split")  // never splits: no space is left
      return value(pattern, "String") == " " && value(step, "behavior") == "MergedWithPrevious";
    if (type != "Metaspace" || value(step, "replacement") != space_mark) return false;
    const auto scheme = value(step, "prepend_scheme");
    prefix = scheme.is_null() ? value(step, "add_prefix_space") != false : scheme != "never";
    return value(step, "split") != true;
  }

  /// SentencePiece as BPE: spaces become pieces, nothing is split.
  result<void> read_spaces() {
    out_.model = "llama";
    bool prefix = false, any = false;
    for (const auto& [key, list] :
         {std::pair{"normalizer", "normalizers"}, {"pre_tokenizer", "pretokenizers"}}) {
      const auto* found = member(document_, key);
      if (!found) continue;
      const auto* several = member(*found, list);
      const document steps = several ? *several : document::array({*found});
      for (const auto& step : steps) {
        any = true;
        if (!writes_spaces(step, prefix))
          return fail(std::string(key) + " " + shown(*found) + " is not supported with byte_fallback");
      }
    }
    if (!any) return fail("byte_fallback is supported where spaces are written as U+2581 only");
    out_.add_space_prefix = prefix;
    return {};
  }

  /// The better a merge, the higher its token; what no merge makes is last.
  void make_scores(const document& model) {
    std::unordered_map<std::string, std::size_t> rank;
    for (std::size_t i = 0; i < out_.merges.size(); ++i) {
      auto made = out_.merges[i];
      made.erase(made.find(' '), 1);
      rank.emplace(std::move(made), i);
    }
    out_.scores.assign(out_.tokens.size(), -static_cast<float>(out_.merges.size()));
    for (std::size_t i = 0; i < out_.tokens.size(); ++i) {
      const auto it = rank.find(out_.tokens[i]);
      if (it != rank.end()) out_.scores[i] = -static_cast<float>(it->second);
      if (out_.tokens[i].empty()) out_.scores[i] = vocabulary::unused_score;
      if (is_byte_token(out_.tokens[i])) set_apart(i, token_type::byte);
    }
    out_.merges.clear();
    const auto* unknown = member(model, "unk_token");
    if (!unknown || !unknown->is_string()) return;
    const auto it = std::find(out_.tokens.begin(), out_.tokens.end(), unknown->get_ref<const std::string&>());
    if (it != out_.tokens.end())
      set_apart(static_cast<std::size_t>(it - out_.tokens.begin()), token_type::unknown);
  }
  /// Nothing merges into these.
  void set_apart(std::size_t i, token_type type) {
    out_.types[i] = static_cast<std::int32_t>(type);
    out_.scores[i] = 0;
  }

  /// The special tokens that a template puts around a text.
  void read_template() {
    const auto* processor = member(document_, "post_processor");
    if (!processor) return;
    const auto* several = member(*processor, "processors");
    const document steps = several ? *several : document::array({*processor});
    for (const auto& step : steps) {
      const auto *type = member(step, "type"), *single = member(step, "single");
      if (!type || *type != "TemplateProcessing" || !single || !single->is_array() || single->empty())
        continue;
      out_.first = special_of(single->front()), out_.last = special_of(single->back());
    }
  }
  static std::string special_of(const document& step) {
    const auto* token = member(step, "SpecialToken");
    const auto* id = token ? member(*token, "id") : nullptr;
    return id && id->is_string() ? id->get<std::string>() : std::string();
  }

  result<void> read_pre_tokenizer() {
    const auto* pre = member(document_, "pre_tokenizer");
    if (!pre) return fail("'pre_tokenizer' is missing");
    std::vector<std::string> patterns;
    bool byte_level = false;
    if (collect_patterns(*pre, patterns, byte_level) && byte_level)
      if (const auto name = mla::pretokenizer::recognise(patterns)) {
        out_.pre = *name;
        return {};
      }
    return fail("the pre-tokenizer is none of " + mla::pretokenizer::known_names() + ": " + shown(*pre));
  }

  result<void> put(const std::string& token, const document& number, token_type type) {
    if (number.is_number_unsigned() &&
        out_.put(static_cast<std::size_t>(number.get<std::uint64_t>()), token, type))
      return {};
    return misplaced(token, number);
  }
  error misplaced(const std::string& token, const document& number) const {
    return fail("token " + text::in_quotes(token) + ": number " + shown(number) +
                " belongs to another token or lies outside the " + std::to_string(out_.tokens.size()) +
                " of config.json");
  }

  result<void> read_vocab(const document& model) {
    const auto* vocab = member(model, "vocab");
    if (!vocab || !vocab->is_object()) return fail("model: 'vocab' is missing or no object");
    for (const auto& [token, number] : vocab->items()) {
      if (auto ok = put(token, number, token_type::normal); !ok) return ok;
      known_.insert(token);
    }
    return {};
  }

  result<void> read_added() {
    const auto* added = member(document_, "added_tokens");
    if (!added) return {};
    if (!added->is_array()) return fail("'added_tokens' is no array");
    for (const auto& t : *added) {
      const auto *content = member(t, "content"), *number = member(t, "id"), *special = member(t, "special");
      if (!content || !content->is_string() || !number) return fail("an added token lacks 'content' or 'id'");
      const bool control = special && *special == true;
      if (!number->is_number_unsigned() ||
          !out_.put_added(number->get<std::size_t>(), content->get<std::string>(), control))
        return misplaced(content->get<std::string>(), *number);
    }
    return {};
  }

  /// "left right" or ["left", "right"].
  result<void> read_merges(const document& model) {
    const auto* merges = member(model, "merges");
    if (!merges || !merges->is_array()) return fail("model: 'merges' is missing or no array");
    for (std::size_t i = 0; i < merges->size(); ++i) {
      const auto& m = (*merges)[i];
      std::string left, right;
      if (m.is_string()) {
        const auto& s = m.get_ref<const std::string&>();
        const auto space = s.find(' ');
        left = s.substr(0, space);
        right = space == std::string::npos ? "" : s.substr(space + 1);
      } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
        left = m[0].get<std::string>(), right = m[1].get<std::string>();
      }
      const auto blank = [](const std::string& s) { return s.empty() || s.find(' ') != std::string::npos; };
      if (blank(left) || blank(right))
        return fail("merge " + std::to_string(i) + " " + shown(m) + " is no pair");
      if (!known_.contains(left + right))
        return fail("merge " + std::to_string(i) + " " + shown(m) + " gives no token of the vocabulary");
      out_.merges.push_back(left + " " + right);
    }
    return {};
  }

  const document& document_;
  std::string where_;
  vocabulary out_;
  std::unordered_set<std::string> known_;
};

bool has_byte_level_step(const document& pre_tokenizer) {
  if (const auto* type = member(pre_tokenizer, "type"); type && *type == "ByteLevel") return true;
  const auto* steps = member(pre_tokenizer, "pretokenizers");
  return steps && steps->is_array() && std::any_of(steps->begin(), steps->end(), has_byte_level_step);
}

}  // namespace

bool is_byte_level(const document& tokenizer) {
  const auto* model = member(tokenizer, "model");
  const auto* type = model ? member(*model, "type") : nullptr;
  if (!model || (type && *type != "BPE") || falls_back_to_bytes(*model)) return false;
  const auto* pre = member(tokenizer, "pre_tokenizer");
  return pre && has_byte_level_step(*pre);
}

result<vocabulary> read_tokenizer_json(const document& tokenizer, const std::string& where,
                                       std::int64_t size) {
  return json_tokenizer(tokenizer, where, vocabulary(static_cast<std::size_t>(size))).read();
}

result<vocabulary> add_to_pieces(const document& tokenizer, const std::string& where, vocabulary pieces) {
  return json_tokenizer(tokenizer, where, std::move(pieces)).read_rest();
}

}  // namespace quantal::hf
