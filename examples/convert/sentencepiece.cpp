#include "sentencepiece.hpp"

#include <cctype>
#include <cmath>
#include <cstring>
#include <string_view>
#include <unordered_set>

#include "file.hpp"
#include "impostor.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// One field of a protobuf message: a number, or bytes that may be a message of their own.
struct field {
  std::uint64_t number = 0, value = 0;
  std::string_view bytes;
  unsigned wire = 0;
};
constexpr unsigned varint = 0, eight_bytes = 1, counted_bytes = 2, four_bytes = 5;

/// Walks the fields of a message; stops at the first that its bytes do not hold.
class message {
 public:
  explicit message(std::string_view bytes) : rest_(bytes) {}

  std::optional<field> next() {
    if (rest_.empty()) return std::nullopt;
    field f;
    std::uint64_t tag = 0;
    if (!read_varint(tag)) return fail();
    f.number = tag >> 3, f.wire = tag & 7;
    bool ok = f.number > 0;
    if (f.wire == varint)
      ok = ok && read_varint(f.value);
    else if (f.wire == counted_bytes)
      ok = ok && read_varint(f.value) && take(f.value, f.bytes);
    else if (f.wire == eight_bytes || f.wire == four_bytes)
      ok = ok && take(f.wire == four_bytes ? 4 : 8, f.bytes);
    else
      ok = false;
    return ok ? std::optional(f) : fail();
  }
  bool broken() const noexcept { return broken_; }

 private:
  std::optional<field> fail() {
    broken_ = true, rest_ = {};
    return std::nullopt;
  }
  bool read_varint(std::uint64_t& out) {
    out = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (rest_.empty()) return false;
      const auto b = static_cast<unsigned char>(rest_.front());
      rest_.remove_prefix(1);
      out |= std::uint64_t{b & 0x7fu} << shift;
      if (b < 0x80) return true;
    }
    return false;
  }
  bool take(std::uint64_t n, std::string_view& out) {
    if (n > rest_.size()) return false;
    out = rest_.substr(0, n);
    rest_.remove_prefix(n);
    return true;
  }

  std::string_view rest_;
  bool broken_ = false;
};

class model_reader {
 public:
  model_reader(std::string where, std::int64_t size)
      : where_(std::move(where)), out_(static_cast<std::size_t>(size)) {
    out_.model = "llama";
    out_.scores.assign(out_.tokens.size(), vocabulary::unused_score);
  }

  result<vocabulary> read(std::string_view bytes) {
    message m(bytes);
    while (const auto f = m.next()) {
      if (f->wire != counted_bytes) continue;
      auto ok = f->number == 1   ? piece(f->bytes)
                : f->number == 2 ? trainer(f->bytes)
                : f->number == 3 ? normalizer(f->bytes)
                                 : result<void>{};
      if (!ok) return ok.error();
    }
    if (m.broken())
      return fail("is cut off or no SentencePiece model, behind piece " + std::to_string(count_));
    if (count_ == 0) return fail("has no pieces");
    if (!out_.add_space_prefix) out_.add_space_prefix = true;
    return std::move(out_);
  }

 private:
  error fail(const std::string& why) const { return {where_ + ": " + why}; }
  error bad_piece(const std::string& why) const {
    return fail("piece " + std::to_string(count_) + ": " + why);
  }

  result<void> piece(std::string_view bytes) {
    std::string text;
    float score = 0;
    std::uint64_t type = 1;
    message m(bytes);
    while (const auto f = m.next()) {
      if (f->number == 1 && f->wire == counted_bytes) text = f->bytes;
      if (f->number == 2 && f->wire == four_bytes) std::memcpy(&score, f->bytes.data(), 4);
      if (f->number == 3 && f->wire == varint) type = f->value;
    }
    if (m.broken()) return bad_piece("is cut off");
    if (text.empty()) return bad_piece("is empty");
    if (type < 1 || type > 6) return bad_piece("type " + std::to_string(type) + " is unknown");
    if (!std::isfinite(score)) return bad_piece(text::in_quotes(text) + " has no finite score");
    if (type == 6 && !is_byte_token(text))
      return bad_piece(text::in_quotes(text) + " is no byte like <0x0A>");
    if (!seen_.insert(text).second) return bad_piece(text::in_quotes(text) + " came before");
    if (!out_.put(count_, text, static_cast<token_type>(type)))
      return fail("more pieces than the vocab_size " + std::to_string(out_.tokens.size()) +
                  " of config.json");
    out_.scores[count_++] = score;
    return {};
  }

  result<void> trainer(std::string_view bytes) {
    std::uint64_t kind = 1;
    message m(bytes);
    while (const auto f = m.next())
      if (f->number == 3 && f->wire == varint) kind = f->value;
    if (m.broken()) return fail("trainer_spec is cut off");
    if (kind != 1 && kind != 2)
      return fail("model type " + std::to_string(kind) + " is neither unigram nor BPE");
    if (kind == 1)
      out_.notices.push_back(where_ +
                             ": a unigram model; programs that merge by score split some words otherwise");
    return {};
  }

  result<void> normalizer(std::string_view bytes) {
    std::string name;
    bool escapes = true;
    out_.add_space_prefix = true;
    message m(bytes);
    while (const auto f = m.next()) {
      if (f->number == 1 && f->wire == counted_bytes) name = f->bytes;
      if (f->number == 3 && f->wire == varint) out_.add_space_prefix = f->value != 0;
      if (f->number == 5 && f->wire == varint) escapes = f->value != 0;
    }
    if (m.broken()) return fail("normalizer_spec is cut off");
    if (!escapes) return fail("normalizer_spec: spaces are not escaped, which a GGUF tokenizer does");
    if (!name.empty() && name != "identity")
      out_.notices.push_back(where_ + ": normalization " + text::in_quotes(name) +
                             " is left out, a GGUF tokenizer has none");
    return {};
  }

  std::string where_;
  vocabulary out_;
  std::size_t count_ = 0;
  std::unordered_set<std::string> seen_;
};

}  // namespace

bool is_byte_token(const std::string& t) noexcept {
  const auto digit = [&](std::size_t i) { return std::isxdigit(static_cast<unsigned char>(t[i])) != 0; };
  return t.size() == 6 && t.starts_with("<0x") && digit(3) && digit(4) && t[5] == '>';
}

result<vocabulary> read_sentencepiece(const std::filesystem::path& path, std::int64_t size) {
  const auto content = file::read_text(path);
  if (!content) return content.error();
  if (const auto what = impostor(*content); !what.empty()) return error{path.string() + ": " + what};
  return model_reader(path.string(), size).read(*content);
}

}  // namespace quantal::hf
