#include "corpus.hpp"

#include <algorithm>
#include <cstdio>

#include "file.hpp"
#include "utf8.hpp"

namespace quantal::mla {
namespace {

struct invalid_bytes {
  std::size_t count = 0, first = 0;
};

invalid_bytes count_invalid(std::string_view text) {
  invalid_bytes bad;
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t length = sequence_length(text.substr(at, 4));
    if (length == 0 && bad.count++ == 0) bad.first = at;
    at += std::max<std::size_t>(length, 1);
  }
  return bad;
}

}  // namespace

std::vector<std::int32_t> evaluated_tokens(std::span<const std::int32_t> chunk,
                                           const special_tokens& special) {
  std::vector<std::int32_t> out(chunk.begin(), chunk.end());
  if (!out.empty() && special.chunk_start() >= 0) out[0] = special.chunk_start();
  return out;
}

std::vector<std::string> text_notes(std::string_view text) {
  const char* utf16 = text.starts_with("\xff\xfe")   ? "UTF-16, little-endian"
                      : text.starts_with("\xfe\xff") ? "UTF-16, big-endian"
                                                     : nullptr;
  if (utf16)
    return {
        std::string("begins with the byte order mark of ") + utf16 +
        "; its bytes are tokenized as they are, which makes numbers without meaning: convert it to UTF-8"};
  std::vector<std::string> notes;
  if (text.starts_with("\xef\xbb\xbf"))
    notes.emplace_back("begins with a byte order mark (UTF-8), which is tokenized as a part of the text");
  if (const auto zeros = std::count(text.begin(), text.end(), '\0'); zeros > 0)
    notes.push_back("holds " + std::to_string(zeros) + " zero bytes; is it a text in UTF-8?");
  if (const auto bad = count_invalid(text); bad.count > 0)
    notes.push_back("holds " + std::to_string(bad.count) + " bytes that are not UTF-8, the first at offset " +
                    std::to_string(bad.first) + "; each is tokenized by itself");
  return notes;
}

result<corpus> load_corpus(const std::filesystem::path& path, const tokenizer& t, std::int64_t size,
                           std::int64_t first, std::int64_t most) {
  const auto text = file::read_text(path);
  if (!text) return text.error();
  corpus c;
  c.size = size;
  c.special = t.special();
  c.notes = text_notes(*text);
  c.tokens = t.encode(*text, true);
  const auto n = static_cast<std::int64_t>(c.tokens.size());
  if (n < 2 * size)
    return error{path.string() + ": " + std::to_string(n) + " tokens are fewer than two chunks of " +
                 std::to_string(size)};
  if (first >= n / size)
    return error{path.string() + ": no chunk is left after skipping " + std::to_string(first) + " of " +
                 std::to_string(n / size)};
  c.tokens.erase(c.tokens.begin(), c.tokens.begin() + first * size);
  c.chunks = static_cast<std::int64_t>(c.tokens.size()) / size;
  if (most > c.chunks)
    c.notes.push_back("holds " + std::to_string(c.chunks) + " chunks, fewer than the " +
                      std::to_string(most) + " asked for");
  if (most > 0) c.chunks = std::min(c.chunks, most);
  return c;
}

std::string context_note(const config& c, std::int64_t context) {
  if (context <= c.context) return {};
  return "chunks of " + std::to_string(context) +
         " tokens are longer than the context that the model was trained with, " + std::to_string(c.context);
}

void print_warnings(const std::string& file, const std::vector<std::string>& warnings) {
  for (const auto& w : warnings) std::fprintf(stderr, "warning: %s: %s\n", file.c_str(), w.c_str());
}

}  // namespace quantal::mla
