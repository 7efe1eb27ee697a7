#include "tekken.hpp"

#include <algorithm>
#include <unordered_map>

#include "base64.hpp"
#include "pretokenizer.hpp"
#include "text.hpp"
#include "tiktoken.hpp"
#include "tokenizer.hpp"

namespace quantal::hf {
namespace {

/// In bytes: the time that a token's splits take grows with the square of its length.
constexpr std::size_t longest_token = 2048;

/// Special tokens of files that do not list them.
constexpr auto usual_tokens = std::to_array<const char*>({"<unk>",
                                                          "<s>",
                                                          "</s>",
                                                          "[INST]",
                                                          "[/INST]",
                                                          "[AVAILABLE_TOOLS]",
                                                          "[/AVAILABLE_TOOLS]",
                                                          "[TOOL_RESULTS]",
                                                          "[/TOOL_RESULTS]",
                                                          "[TOOL_CALLS]",
                                                          "[IMG]",
                                                          "<pad>",
                                                          "[IMG_BREAK]",
                                                          "[IMG_END]",
                                                          "[PREFIX]",
                                                          "[MIDDLE]",
                                                          "[SUFFIX]",
                                                          "[SYSTEM_PROMPT]",
                                                          "[/SYSTEM_PROMPT]",
                                                          "[TOOL_CONTENT]"});

/// Every pair of tokens that makes a token, in the order of what they make: whichever two pieces meet are merged if
/// they are a token.
std::vector<std::pair<std::string, std::string>> splits_of(const std::vector<std::string>& tokens) {
  std::unordered_map<std::string, std::size_t> ranks;
  for (std::size_t i = 0; i < tokens.size(); ++i) ranks.emplace(tokens[i], i);
  std::vector<std::pair<std::string, std::string>> out;
  for (const auto& token : tokens) {
    std::vector<std::pair<std::size_t, std::size_t>> pairs;
    for (std::size_t n = 1; n < token.size(); ++n) {
      const auto left = ranks.find(token.substr(0, n)), right = ranks.find(token.substr(n));
      if (left != ranks.end() && right != ranks.end()) pairs.emplace_back(left->second, right->second);
    }
    std::sort(pairs.begin(), pairs.end());
    for (const auto& [l, r] : pairs) out.emplace_back(tokens[l], tokens[r]);
  }
  return out;
}

class tekken_reader {
 public:
  tekken_reader(const document& d, std::string where, std::int64_t size)
      : document_(d), where_(std::move(where)), out_(static_cast<std::size_t>(size)) {}

  result<vocabulary> read() {
    if (auto ok = read_numbers(); !ok) return ok.error();
    if (auto ok = read_pattern(); !ok) return ok.error();
    if (auto ok = read_special(); !ok) return ok.error();
    if (auto ok = read_vocab(); !ok) return ok.error();
    out_.first = "<s>";
    out_.fill();
    return std::move(out_);
  }

 private:
  error fail(const std::string& why) const { return {where_ + ": " + why}; }

  /// Nothing if it is no number from 0 on.
  static std::optional<std::uint64_t> number(const document& of, const char* key) {
    const auto* v = member(of, key);
    if (!v || !v->is_number_unsigned()) return std::nullopt;
    return v->get<std::uint64_t>();
  }

  result<void> read_numbers() {
    const auto* config = member(document_, "config");
    if (!config || !config->is_object()) return fail("'config' is missing");
    const auto all = number(*config, "default_vocab_size"),
               special = number(*config, "default_num_special_tokens");
    if (!all || !special || *special > *all)
      return fail("config: 'default_vocab_size' and 'default_num_special_tokens' are no numbers of tokens");
    if (*all > out_.tokens.size())
      return fail("default_vocab_size " + std::to_string(*all) + " is more than the vocab_size " +
                  std::to_string(out_.tokens.size()) + " of the model");
    all_ = *all, special_ = *special;
    return {};
  }

  result<void> read_pattern() {
    const auto* pattern = member(document_["config"], "pattern");
    if (!pattern || !pattern->is_string()) return fail("config: 'pattern' is missing");
    const auto& text = pattern->get_ref<const std::string&>();
    const auto name = mla::pretokenizer::recognise({text});
    if (!name)
      return fail("the pattern is that of none of " + mla::pretokenizer::known_names() + ": " +
                  text::printable(text.substr(0, 2000)));
    out_.pre = *name;
    return {};
  }

  result<void> read_special() {
    const auto* list = member(document_, "special_tokens");
    if (list && !list->is_array()) return fail("'special_tokens' is no array");
    if (!list)
      for (std::size_t i = 0; i < usual_tokens.size() && i < special_; ++i)
        out_.put(i, usual_tokens[i], token_type::control);
    for (std::size_t i = 0; list && i < list->size(); ++i) {
      const auto& t = (*list)[i];
      const auto rank = number(t, "rank");
      const auto *name = member(t, "token_str"), *control = member(t, "is_control");
      const bool is_control = !control || *control != false;
      if (!rank || *rank >= special_ || !name || !name->is_string() || *name == "" ||
          !out_.put(*rank, name->get<std::string>(),
                    is_control ? token_type::control : token_type::user_defined))
        return fail("special token " + std::to_string(i) +
                    ": no name, or a rank that is taken or not below " + std::to_string(special_));
    }
    for (std::size_t i = 0; i < special_; ++i)
      if (out_.tokens[i].empty()) out_.put(i, "<SPECIAL_" + std::to_string(i) + ">", token_type::control);
    return {};
  }

  /// Files hold more tokens than models use.
  result<void> read_vocab() {
    const auto* vocab = member(document_, "vocab");
    const auto used = all_ - special_;
    if (!vocab || !vocab->is_array()) return fail("'vocab' is missing or no array");
    if (vocab->size() < used)
      return fail("'vocab' has " + std::to_string(vocab->size()) + " tokens, but " + std::to_string(used) +
                  " are in use");
    std::vector<std::string> tokens;
    for (std::size_t i = 0; i < used; ++i) {
      const auto& t = (*vocab)[i];
      const auto* bytes = member(t, "token_bytes");
      auto token =
          bytes && bytes->is_string() ? from_base64(bytes->get_ref<const std::string&>()) : std::nullopt;
      if (!token) return fail("token " + std::to_string(i) + ": 'token_bytes' is missing or no base64");
      if (number(t, "rank") != i) return fail("token " + std::to_string(i) + ": its rank is not its place");
      if (token->size() > longest_token)
        return fail("token " + std::to_string(i) + ": has " + std::to_string(token->size()) +
                    " bytes, more than " + std::to_string(longest_token));
      tokens.push_back(std::move(*token));
    }
    return add(tokens);
  }

  result<void> add(const std::vector<std::string>& tokens) {
    if (auto ok = check_bytes(tokens); !ok) return fail(ok.error().message);
    for (std::size_t i = 0; i < tokens.size(); ++i)
      out_.put(special_ + i, in_symbols(tokens[i]), token_type::normal);
    for (const auto& [left, right] : splits_of(tokens))
      out_.merges.push_back(in_symbols(left) + " " + in_symbols(right));
    return {};
  }

  const document& document_;
  std::string where_;
  vocabulary out_;
  std::size_t all_ = 0, special_ = 0;
};

}  // namespace

result<vocabulary> read_tekken(const std::filesystem::path& path, std::int64_t size) {
  const auto d = read_json_object(path);
  if (!d) return d.error();
  return tekken_reader(*d, path.string(), size).read();
}

document tekken_names() {
  return {{"bos_token", "<s>"}, {"eos_token", "</s>"}, {"unk_token", "<unk>"}, {"pad_token", "<pad>"}};
}

}  // namespace quantal::hf
