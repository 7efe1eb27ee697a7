#include "tokenizer_json.hpp"

#include <unordered_set>

#include "pretokenizer.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// What ByteLevel splits by when it is told to use its own expression.
constexpr const char* byte_level_pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

class json_tokenizer {
 public:
  json_tokenizer(const document& d, std::string where, std::int64_t size)
      : document_(d), where_(std::move(where)), out_(static_cast<std::size_t>(size)) {}

  result<vocabulary> read() {
    const auto* model = member(document_, "model");
    if (!model || !model->is_object()) return fail("'model' is missing");
    if (auto ok = check_model(*model); !ok) return ok.error();
    if (auto ok = read_pre_tokenizer(); !ok) return ok.error();
    if (auto ok = read_vocab(*model); !ok) return ok.error();
    if (auto ok = read_added(); !ok) return ok.error();
    if (auto ok = read_merges(*model); !ok) return ok.error();
    out_.fill();
    return std::move(out_);
  }

 private:
  error fail(const std::string& why) const { return {where_ + ": " + why}; }

  /// Only what byte-level BPE of a GGUF can do.
  result<void> check_model(const document& model) const {
    const auto* type = member(model, "type");
    if (type && *type != "BPE") return fail("model type " + shown(*type) + " is not supported, only BPE");
    for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"})
      if (const auto* v = member(model, key); v && *v != "")
        return fail(std::string("model: ") + key + " " + shown(*v) + " is not supported");
    if (const auto* v = member(model, "byte_fallback"); v && *v == true)
      return fail("model: byte_fallback is not supported, only byte-level vocabularies");
    const auto* normalizer = member(document_, "normalizer");
    const auto* parts = normalizer ? member(*normalizer, "normalizers") : nullptr;
    if (normalizer && !(parts && parts->is_array() && parts->empty()))
      return fail("normalizer " + shown(*normalizer) + " is not supported");
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
      if (auto ok = put(content->get<std::string>(), *number,
                        control ? token_type::control : token_type::user_defined);
          !ok)
        return ok;
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

}  // namespace

result<vocabulary> read_tokenizer_json(const std::filesystem::path& path, std::int64_t size) {
  const auto d = read_json_object(path);
  if (!d) return d.error();
  return json_tokenizer(*d, path.string(), size).read();
}

}  // namespace quantal::hf
