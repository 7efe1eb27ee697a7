#include "tokenizer.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <queue>
#include <unordered_map>

#include "pretokenizer.hpp"
#include "utf8.hpp"

namespace quantal::mla {
namespace {

constexpr int control_token = 3, user_token = 4;

std::string utf8(char32_t c) {
  if (c < 0x80) return {static_cast<char>(c)};
  return {static_cast<char>(0xc0 | c >> 6),
          static_cast<char>(0x80 | (c & 0x3f))};  // symbols end below U+0200
}

}  // namespace

std::array<std::string, 256> byte_symbols() {
  std::array<std::string, 256> symbol;
  char32_t next = 256;
  for (int b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    symbol[static_cast<std::size_t>(b)] = utf8(printable ? static_cast<char32_t>(b) : next++);
  }
  return symbol;
}

result<special_tokens> read_special_tokens(const gguf::metadata& meta, std::int64_t vocabulary) {
  special_tokens s;
  std::string wrong;  // the first key of another type
  const auto flag = [&](const char* key) {
    if (!meta.contains(key)) return false;
    const auto v = meta.boolean(key);
    if (!v && wrong.empty()) wrong = v.error().message;
    return v && *v;
  };
  // An id that nothing uses may be anything.
  const auto id = [&](const char* key, const char* asked_by, bool used) -> std::int32_t {
    const auto v = meta.integer(key, 0, vocabulary - 1);
    if (v) return static_cast<std::int32_t>(*v);
    if (used && meta.contains(key) && wrong.empty())
      wrong = v.error().message + ", and " + asked_by + " is on";
    if (!used && meta.contains(key))
      s.warnings.push_back(v.error().message + "; the model has no such token");
    if (used && !meta.contains(key))
      s.warnings.push_back(std::string("key '") + key + "' is missing although '" + asked_by +
                           "' is on; no token is added");
    return -1;
  };
  s.add_bos = flag("tokenizer.ggml.add_bos_token");
  s.add_eos = flag("tokenizer.ggml.add_eos_token");
  s.bos = id("tokenizer.ggml.bos_token_id", "tokenizer.ggml.add_bos_token", s.add_bos);
  s.eos = id("tokenizer.ggml.eos_token_id", "tokenizer.ggml.add_eos_token", s.add_eos);
  if (!meta.contains("tokenizer.ggml.add_bos_token"))
    s.warnings.insert(s.warnings.begin(), "key 'tokenizer.ggml.add_bos_token' is missing; false is taken");
  if (!wrong.empty()) return error{wrong};
  return s;
}

struct tokenizer::state {
  std::vector<std::string> text;  ///< raw bytes of every token
  std::unordered_map<std::string, std::int32_t> by_symbols;
  std::unordered_map<std::string, std::int32_t> rank;  ///< "left right"
  std::vector<std::pair<std::string, std::int32_t>>
      written;  ///< tokens that a text can spell out, longest first
  std::array<std::string, 256> symbol;
  std::optional<pretokenizer> pre;
  bool whole_words = false;  ///< a word that is a token needs no merges
  special_tokens ends;
  std::vector<std::string> warnings;

  void encode_word(std::string_view word, std::vector<std::int32_t>& out) const;
  void encode_text(std::string_view text, std::vector<std::int32_t>& out) const;
  void encode_valid(std::string_view text, std::vector<std::int32_t>& out) const {
    for (const auto word : pre->split(text)) encode_word(word, out);
  }
};

/// Merges neighbours in order of rank with a heap; stale heap entries are recognised by their text.
void tokenizer::state::encode_word(std::string_view word, std::vector<std::int32_t>& out) const {
  if (whole_words) {
    std::string symbols;
    for (const char c : word) symbols += symbol[static_cast<unsigned char>(c)];
    if (const auto it = by_symbols.find(symbols); it != by_symbols.end()) return out.push_back(it->second);
  }
  struct node {
    std::string text;
    int prev, next;
  };
  std::vector<node> nodes;
  std::string whole;
  const int n = static_cast<int>(word.size());
  for (int i = 0; i < n; ++i) {
    nodes.push_back({symbol[static_cast<unsigned char>(word[static_cast<std::size_t>(i)])], i - 1,
                     i + 1 < n ? i + 1 : -1});
    whole += nodes.back().text;
  }
  struct candidate {
    std::int32_t rank;
    int left, right;
    std::size_t length;
    bool operator<(const candidate& o) const { return rank != o.rank ? rank > o.rank : left > o.left; }
  };
  std::priority_queue<candidate> heap;
  const auto offer = [&](int left, int right) {
    if (left < 0 || right < 0) return;
    const auto& a = nodes[static_cast<std::size_t>(left)].text;
    const auto& b = nodes[static_cast<std::size_t>(right)].text;
    const auto it = rank.find(a + " " + b);
    if (it != rank.end()) heap.push({it->second, left, right, a.size() + b.size()});
  };
  for (int i = 0; i + 1 < n; ++i) offer(i, i + 1);
  while (!heap.empty()) {
    const candidate c = heap.top();
    heap.pop();
    node& left = nodes[static_cast<std::size_t>(c.left)];
    node& right = nodes[static_cast<std::size_t>(c.right)];
    if (left.text.empty() || right.text.empty() || left.next != c.right ||
        left.text.size() + right.text.size() != c.length)
      continue;
    left.text += right.text;
    right.text.clear();
    left.next = right.next;
    if (left.next >= 0) nodes[static_cast<std::size_t>(left.next)].prev = c.left;
    offer(left.prev, c.left);
    offer(c.left, left.next);
  }
  for (int i = n > 0 ? 0 : -1; i >= 0; i = nodes[static_cast<std::size_t>(i)].next) {
    const auto& piece = nodes[static_cast<std::size_t>(i)].text;
    const auto it = by_symbols.find(piece);
    if (it != by_symbols.end()) {
      out.push_back(it->second);
      continue;
    }
    // A piece without a token falls apart into its symbols; symbols without a token are dropped.
    for (std::size_t p = 0; p < piece.size();) {
      const std::size_t len = static_cast<unsigned char>(piece[p]) < 0x80 ? 1 : 2;
      if (const auto one = by_symbols.find(piece.substr(p, len)); one != by_symbols.end())
        out.push_back(one->second);
      p += len;
    }
  }
}

/// Regular expressions see valid UTF-8 only; bytes that are not become words of their own.
void tokenizer::state::encode_text(std::string_view all, std::vector<std::int32_t>& out) const {
  std::size_t valid = 0;
  while (!all.empty()) {
    const std::size_t len = valid < all.size() ? sequence_length(all.substr(valid)) : 0;
    if (len) {
      valid += len;
      continue;
    }
    if (valid) encode_valid(all.substr(0, valid), out);
    all.remove_prefix(valid);
    valid = 0;
    if (all.empty()) break;
    encode_word(all.substr(0, 1), out);
    all.remove_prefix(1);
  }
}

tokenizer::tokenizer(std::unique_ptr<state> s) noexcept : s_(std::move(s)) {}
tokenizer::tokenizer(tokenizer&&) noexcept = default;
tokenizer& tokenizer::operator=(tokenizer&&) noexcept = default;
tokenizer::~tokenizer() = default;

result<tokenizer> tokenizer::from_gguf(const gguf::metadata& meta) {
  const auto model = meta.string("tokenizer.ggml.model");
  if (!model) return model.error();
  if (*model != "gpt2")
    return error{"tokenizer model '" + *model + "' is not supported (gpt2, byte-level BPE, is)"};
  const auto tokens = meta.strings("tokenizer.ggml.tokens");
  if (!tokens) return tokens.error();
  const auto merges = meta.strings("tokenizer.ggml.merges");
  if (!merges) return merges.error();
  const auto pre_name = meta.string("tokenizer.ggml.pre");
  if (!pre_name && meta.contains("tokenizer.ggml.pre")) return pre_name.error();
  auto pre = pretokenizer::named(pre_name ? *pre_name : "gpt-2");
  if (!pre) return pre.error();
  std::vector<std::int64_t> types;
  if (meta.contains("tokenizer.ggml.token_type")) {
    auto t = meta.integers("tokenizer.ggml.token_type");
    if (!t) return t.error();
    types = *t;
    if (types.size() != (*tokens)->size())
      return error{"tokenizer.ggml.token_type and tokens have different lengths"};
  }

  auto s = std::make_unique<state>();
  s->pre.emplace(std::move(*pre));
  std::unordered_map<std::string, char> byte_of;
  s->symbol = byte_symbols();
  for (std::size_t b = 0; b < 256; ++b) byte_of[s->symbol[b]] = static_cast<char>(b);
  for (std::size_t i = 0; i < (*tokens)->size(); ++i) {
    const std::string& token = (**tokens)[i];
    s->by_symbols.try_emplace(token, static_cast<std::int32_t>(i));
    const auto type = types.empty() ? 1 : types[i];
    if ((type == control_token || type == user_token) && !token.empty()) {
      s->written.emplace_back(token, static_cast<std::int32_t>(i));
      s->text.push_back(token);
      continue;
    }
    std::string bytes;
    for (std::size_t p = 0; p < token.size();) {
      const std::size_t len = std::max<std::size_t>(1, sequence_length(std::string_view(token).substr(p)));
      const auto it = byte_of.find(token.substr(p, len));
      if (it != byte_of.end())
        bytes += it->second;
      else
        bytes += token.substr(p, len);
      p += len;
    }
    s->text.push_back(bytes);
  }
  std::stable_sort(s->written.begin(), s->written.end(),
                   [](const auto& a, const auto& b) { return a.first.size() > b.first.size(); });
  for (std::size_t i = 0; i < (*merges)->size(); ++i) {
    const std::string& m = (**merges)[i];
    if (m.find(' ') == std::string::npos)
      return error{"tokenizer.ggml.merges[" + std::to_string(i) + "] is not two pieces"};
    s->rank.try_emplace(m, static_cast<std::int32_t>(i));
  }
  auto ends = read_special_tokens(meta, static_cast<std::int64_t>((*tokens)->size()));
  if (!ends) return ends.error();
  s->ends = std::move(*ends);
  s->warnings = s->ends.warnings;
  if (!pre_name) s->warnings.push_back("key 'tokenizer.ggml.pre' is missing; gpt-2 is taken");
  // What these two names imply.
  s->whole_words = pre_name && (*pre_name == "llama-bpe" || *pre_name == "tekken");
  return tokenizer(std::move(s));
}

std::vector<std::int32_t> tokenizer::encode(std::string_view text, bool add_special,
                                            bool parse_special) const {
  std::vector<std::int32_t> out;
  if (add_special && s_->ends.chunk_start() >= 0) out.push_back(s_->ends.bos);
  while (parse_special && !s_->written.empty() && !text.empty()) {
    std::size_t at = std::string_view::npos;
    const std::pair<std::string, std::int32_t>* hit = nullptr;
    for (const auto& sp : s_->written) {
      const std::size_t p = text.find(sp.first);
      if (p < at) at = p, hit = &sp;
    }
    if (!hit) break;
    s_->encode_text(text.substr(0, at), out);
    out.push_back(hit->second);
    text.remove_prefix(at + hit->first.size());
  }
  s_->encode_text(text, out);
  if (add_special && s_->ends.add_eos && s_->ends.eos >= 0) out.push_back(s_->ends.eos);
  return out;
}

std::string tokenizer::decode(const std::vector<std::int32_t>& ids) const {
  std::string out;
  for (const auto id : ids)
    if (id >= 0 && static_cast<std::size_t>(id) < s_->text.size())
      out += s_->text[static_cast<std::size_t>(id)];
  return out;
}

const special_tokens& tokenizer::special() const noexcept { return s_->ends; }
const std::vector<std::string>& tokenizer::warnings() const noexcept { return s_->warnings; }
std::int32_t tokenizer::bos() const noexcept { return s_->ends.bos; }
bool tokenizer::adds_bos() const noexcept { return s_->ends.chunk_start() >= 0; }
std::int64_t tokenizer::size() const noexcept { return static_cast<std::int64_t>(s_->text.size()); }

}  // namespace quantal::mla
