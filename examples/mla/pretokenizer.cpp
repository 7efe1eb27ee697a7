#include "pretokenizer.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>
#include <charconv>

namespace quantal::mla {
namespace {

struct known {
  std::string_view name;
  std::vector<const char*> patterns;
};

// Letters of the scripts that have upper and lower case, and the punctuation that the DeepSeek tokenizers list.
constexpr const char* deepseek_llm_words =
    R"(\s?[A-Za-z\xb5\xc0-\xd6\xd8-\xf6\xf8-\x{1ba}\x{1bc}-\x{1bf}\x{1c4}-\x{293}\x{295}-\x{2af}\x{370}-\x{373}\x{376}\x{377}\x{37b}-\x{37d}\x{37f}\x{386}\x{388}-\x{38a}\x{38c}\x{38e}-\x{3a1}\x{3a3}-\x{3f5}\x{3f7}-\x{481}\x{48a}-\x{52f}\x{531}-\x{556}\x{10a0}-\x{10c5}\x{13a0}-\x{13f5}\x{13f8}-\x{13fd}\x{1c90}-\x{1cba}\x{1cbd}-\x{1cbf}\x{1d00}-\x{1d2b}\x{1d6b}-\x{1d77}\x{1d79}-\x{1d9a}\x{1e00}-\x{1f15}\x{1f18}-\x{1f1d}\x{1f20}-\x{1f45}\x{1f48}-\x{1f4d}\x{1f50}-\x{1f57}\x{1f59}\x{1f5b}\x{1f5d}\x{1f5f}-\x{1f7d}\x{1f80}-\x{1fb4}\x{1fb6}-\x{1fbc}\x{1fbe}\x{1fc2}-\x{1fc4}\x{1fc6}-\x{1fcc}\x{1fd0}-\x{1fd3}\x{1fd6}-\x{1fdb}\x{1fe0}-\x{1fec}\x{1ff2}-\x{1ff4}\x{1ff6}-\x{1ffc}\x{2102}\x{2107}\x{210a}-\x{2113}\x{2115}\x{2119}-\x{211d}\x{2124}\x{2126}\x{2128}\x{212a}-\x{212d}\x{212f}-\x{2134}\x{2139}\x{213c}-\x{213f}\x{2145}-\x{2149}\x{214e}\x{2183}\x{2184}\x{2c00}-\x{2c7b}\x{2c7e}-\x{2ce4}\x{2ceb}-\x{2cee}\x{2cf2}\x{2cf3}\x{a640}-\x{a66d}\x{a680}-\x{a69b}\x{a722}-\x{a76f}\x{a771}-\x{a787}\x{a78b}-\x{a78e}\x{ab70}-\x{abbf}\x{fb00}-\x{fb06}\x{fb13}-\x{fb17}\x{ff21}-\x{ff3a}\x{ff41}-\x{ff5a}\x{10400}-\x{1044f}\x{104b0}-\x{104d3}\x{104d8}-\x{104fb}\x{10c80}-\x{10cb2}\x{10cc0}-\x{10cf2}\x{118a0}-\x{118df}\x{1e900}-\x{1e943}]+)";

const std::vector<known>& all_known() {
  static const std::vector<known> list = {
      {"gpt-2", {R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)"}},
      {"deepseek-llm",
       {R"([\r\n])", deepseek_llm_words,
        R"(\s?[!-/:-~\x{ff01}-\x{ff0f}\x{ff1a}-\x{ff5e}\x{2018}-\x{201f}\x{3000}-\x{3002}]+)", R"(\s+$)",
        R"([\x{4e00}-\x{9fa5}\x{0800}-\x{4e00}\x{ac00}-\x{d7ff}]+)", R"(\p{N}+)"}},
      {"deepseek-v3",
       {R"(\p{N}{1,3})", R"([\x{4e00}-\x{9fa5}\x{3040}-\x{309f}\x{30a0}-\x{30ff}]+)",
        R"([!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      // Contractions in both cases, letters with one leading symbol, numbers in threes.
      {"llama-bpe",
       {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      // The same with numbers one by one.
      {"qwen2",
       {R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"tekken",
       {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      {"kimi-k2",
       {R"(\p{Han}+|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])*(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?(?:(?!\p{Han})[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}])+(?:(?!\p{Han})[\p{Ll}\p{Lm}\p{Lo}\p{M}])*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
      // Words as tekken has them, with contractions, and numbers in threes.
      {"gpt-4o",
       {R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)"}},
  };
  return list;
}

/// Names whose expressions are another name's.
std::string_view same_as(std::string_view name) {
  if (name == "glm4" || name == "chatglm-bpe") return "llama-bpe";
  return name;
}

/// Kimi's alternatives behind the first one, in the syntax that intersects classes.
constexpr const char* kimi_rest =
    R"(|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

/// Other spellings of the same splits, as tokenizer files have them.
const std::vector<known>& other_spellings() {
  static const std::vector<known> list = [] {
    std::vector<known> out;
    for (const auto& k : all_known())
      if (k.name == "deepseek-llm") {  // digits one by one: the vocabulary merges none
        out.push_back(k);
        out.back().patterns.back() = R"(\p{N})";
      }
    return out;
  }();
  return list;
}

void append_utf8(std::string& out, unsigned long c) {
  if (c < 0x80) {
    out += static_cast<char>(c);
    return;
  }
  const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
  out += static_cast<char>((more == 1 ? 0xc0u : more == 2 ? 0xe0u : 0xf0u) | c >> (6 * more));
  for (int i = more - 1; i >= 0; --i) out += static_cast<char>(0x80u | (c >> (6 * i) & 0x3fu));
}

/// Escapes of single characters beyond ASCII become these characters.
std::string literal(std::string_view pattern) {
  std::string out;
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    const char kind = pattern[i] == '\\' && i + 1 < pattern.size() ? pattern[i + 1] : 0;
    if (!kind) {
      out += pattern[i];
      continue;
    }
    const bool braces = kind == 'x' && i + 2 < pattern.size() && pattern[i + 2] == '{';
    const std::size_t first = i + (braces ? 3 : 2);
    const std::size_t close = pattern.find('}', first);
    const std::size_t length = braces        ? (close == std::string_view::npos ? 0 : close - first)
                               : kind == 'u' ? 4
                                             : 2;
    const auto digits = pattern.substr(std::min(first, pattern.size()), length);
    unsigned long c = 0;
    const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), c, 16);
    const bool whole =
        failed == std::errc{} && end == digits.data() + digits.size() && digits.size() == length;
    if ((kind == 'x' || kind == 'u') && whole && c >= 0x80 && c <= 0x10ffff) {
      append_utf8(out, c);
      i = first + length - (braces ? 0 : 1);
    } else {
      out.append(pattern.substr(i, 2));
      ++i;
    }
  }
  return out;
}

bool same_patterns(const std::vector<const char*>& a, const std::vector<std::string>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const char* x, const std::string& y) { return literal(x) == literal(y); });
}

}  // namespace

struct pretokenizer::pattern {
  pcre2_code* code = nullptr;
  pcre2_match_data* match = nullptr;

  pattern() = default;
  pattern(const pattern&) = delete;
  pattern& operator=(const pattern&) = delete;
  ~pattern() {
    pcre2_match_data_free(match);
    pcre2_code_free(code);
  }

  /// Compiled code has a small stack, which a word of some ten thousand letters exhausts; the interpreter has none.
  bool found(PCRE2_SPTR subject, std::size_t size, std::size_t from) const {
    const int n = pcre2_match(code, subject, size, from, PCRE2_NO_UTF_CHECK, match, nullptr);
    if (n != PCRE2_ERROR_JIT_STACKLIMIT) return n > 0;
    return pcre2_match(code, subject, size, from, PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, match, nullptr) > 0;
  }

  /// Appends matches and the text between them; valid UTF-8 only.
  void split(std::string_view text, std::vector<std::string_view>& out) const {
    std::size_t at = 0;
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    std::size_t from = 0;
    while (from < text.size() && found(subject, text.size(), from)) {
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match);
      if (range[1] == range[0]) break;  // none of the patterns matches emptiness
      if (range[0] > at) out.push_back(text.substr(at, range[0] - at));
      out.push_back(text.substr(range[0], range[1] - range[0]));
      at = from = range[1];
    }
    if (at < text.size()) out.push_back(text.substr(at));
  }
};

pretokenizer::pretokenizer() = default;
pretokenizer::pretokenizer(pretokenizer&&) noexcept = default;
pretokenizer::~pretokenizer() = default;

std::optional<std::string> pretokenizer::recognise(const std::vector<std::string>& patterns) {
  for (const auto* list : {&all_known(), &other_spellings()})
    for (const auto& k : *list)
      if (same_patterns(k.patterns, patterns)) return std::string(k.name);
  for (const char* han : {R"([\p{Han}]+)", R"(\p{Han}+)"})
    if (patterns.size() == 1 && patterns[0] == std::string(han) + kimi_rest) return "kimi-k2";
  return std::nullopt;
}

std::string pretokenizer::known_names() {
  std::string out;
  for (const auto& k : all_known()) out += (out.empty() ? "" : ", ") + std::string(k.name);
  return out + ", glm4";
}

result<pretokenizer> pretokenizer::named(std::string_view name) {
  const auto& list = all_known();
  const auto it =
      std::find_if(list.begin(), list.end(), [&](const known& k) { return k.name == same_as(name); });
  if (it == list.end())
    return error{"pre-tokenizer '" + std::string(name) + "' is not supported; known: " + known_names()};
  pretokenizer p;
  for (const char* text : it->patterns) {
    auto one = std::make_unique<pattern>();
    int code = 0;
    PCRE2_SIZE at = 0;
    one->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text), PCRE2_ZERO_TERMINATED,
                              PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY, &code, &at, nullptr);
    if (!one->code)
      return error{"pre-tokenizer '" + std::string(name) + "': pattern error at " + std::to_string(at)};
    pcre2_jit_compile(one->code, PCRE2_JIT_COMPLETE);
    one->match = pcre2_match_data_create_from_pattern(one->code, nullptr);
    p.patterns_.push_back(std::move(one));
  }
  return p;
}

std::vector<std::string_view> pretokenizer::split(std::string_view text) const {
  std::vector<std::string_view> pieces{text}, next;
  for (const auto& p : patterns_) {
    next.clear();
    for (const auto piece : pieces) p->split(piece, next);
    pieces.swap(next);
  }
  return pieces;
}

}  // namespace quantal::mla
