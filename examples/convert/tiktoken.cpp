#include "tiktoken.hpp"

#include <charconv>
#include <limits>
#include <string_view>
#include <unordered_map>

#include "base64.hpp"
#include "file.hpp"
#include "impostor.hpp"
#include "text.hpp"
#include "tokenizer.hpp"

namespace quantal::hf {
namespace {

using rank_map = std::unordered_map<std::string, std::size_t>;

/// Pieces of `token` after merging neighbours, lowest rank first, as long as a rank below `limit` comes out.
std::vector<std::string> merge_below(const std::string& token, const rank_map& ranks, std::size_t limit) {
  std::vector<std::string> pieces;
  for (const char c : token) pieces.emplace_back(1, c);
  while (pieces.size() > 1) {
    std::size_t best = limit, at = 0;
    for (std::size_t i = 0; i + 1 < pieces.size(); ++i)
      if (const auto it = ranks.find(pieces[i] + pieces[i + 1]); it != ranks.end() && it->second < best)
        best = it->second, at = i;
    if (best == limit) break;
    pieces[at] += pieces[at + 1];
    pieces.erase(pieces.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  return pieces;
}

}  // namespace

result<std::vector<std::string>> read_tiktoken(const std::filesystem::path& path, std::int64_t most) {
  const auto content = file::read_text(path);
  if (!content) return content.error();
  if (const auto what = impostor(*content); !what.empty()) return error{path.string() + ": " + what};
  std::vector<std::string> tokens;
  rank_map ranks;
  std::string_view rest = *content;
  for (std::size_t line_number = 1; !rest.empty(); ++line_number) {
    const auto line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(line.size() + 1, rest.size()));
    if (text::trim(line).empty()) continue;
    const auto bad = [&](const std::string& why) {
      return error{path.string() + ": line " + std::to_string(line_number) + ": " + why};
    };
    const auto space = line.find(' ');
    auto token = from_base64(line.substr(0, space));
    if (space == std::string_view::npos || !token) return bad("not 'BASE64 RANK'");
    const auto number = text::trim(line.substr(space + 1));
    std::size_t rank = 0;
    const auto [end, failed] = std::from_chars(number.data(), number.data() + number.size(), rank);
    if (failed != std::errc{} || end != number.data() + number.size() || rank != tokens.size())
      return bad("rank " + text::in_quotes(number) + " where " + std::to_string(tokens.size()) +
                 " should follow");
    if (!ranks.emplace(*token, rank).second) return bad("its token came before");
    if (static_cast<std::int64_t>(tokens.size()) == most)
      return bad("more tokens than the vocab_size " + std::to_string(most) + " of config.json");
    tokens.push_back(std::move(*token));
  }
  if (auto ok = check_bytes(tokens); !ok) return error{path.string() + ": " + ok.error().message};
  return tokens;
}

std::string in_symbols(const std::string& bytes) {
  static const auto symbols = mla::byte_symbols();
  std::string out;
  for (const char c : bytes) out += symbols[static_cast<unsigned char>(c)];
  return out;
}

result<void> check_bytes(const std::vector<std::string>& tokens) {
  rank_map ranks;
  for (std::size_t i = 0; i < tokens.size(); ++i)
    if (!ranks.emplace(tokens[i], i).second)
      return error{"token " + std::to_string(i) + " is also token " + std::to_string(ranks[tokens[i]])};
  for (int b = 0; b < 256; ++b)
    if (!ranks.contains(std::string(1, static_cast<char>(b))))
      return error{"byte " + std::to_string(b) + " has no token"};
  return {};
}

std::vector<std::pair<std::string, std::string>> merges_of(const std::vector<std::string>& tokens,
                                                           std::size_t& unreachable) {
  rank_map ranks;
  for (std::size_t i = 0; i < tokens.size(); ++i) ranks.emplace(tokens[i], i);
  std::vector<std::pair<std::string, std::string>> out;
  unreachable = 0;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    if (tokens[i].size() < 2) continue;
    auto pieces = merge_below(tokens[i], ranks, i);
    if (pieces.size() == 2)
      out.emplace_back(std::move(pieces[0]), std::move(pieces[1]));
    else
      ++unreachable;
  }
  return out;
}

result<vocabulary> read_kimi_vocabulary(const std::filesystem::path& directory, const document& config,
                                        std::int64_t size, std::vector<std::string>& notices) {
  const auto path = directory / "tiktoken.model";
  const auto* kind = member(config, "tokenizer_class");
  if (!kind || *kind != "TikTokenTokenizer")
    return error{(directory / "tokenizer_config.json").string() + ": tokenizer_class is " +
                 (kind ? text::printable(kind->dump()) : "missing") +
                 "; the pre-tokenizer of tiktoken.model is known for Kimi's TikTokenTokenizer only"};
  const auto tokens = read_tiktoken(path, size);
  if (!tokens) return tokens.error();
  vocabulary v(static_cast<std::size_t>(size));
  v.pre = "kimi-k2";
  for (std::size_t i = 0; i < tokens->size(); ++i) v.put(i, in_symbols((*tokens)[i]), token_type::normal);
  std::size_t unreachable = 0;
  for (const auto& [left, right] : merges_of(*tokens, unreachable))
    v.merges.push_back(in_symbols(left) + " " + in_symbols(right));
  if (unreachable)
    notices.push_back(path.string() + ": " + std::to_string(unreachable) +
                      " tokens are no merge of two others");
  const auto named = decoder_tokens(directory, config);
  if (!named) return named.error();
  for (const auto& t : *named)
    if (!v.put(t.number, t.content, token_type::control))
      return error{(directory / "tokenizer_config.json").string() + ": added token " +
                   text::in_quotes(t.content) + ": number " + std::to_string(t.number) +
                   " is taken or out of range"};
  for (std::size_t i = tokens->size(); i < v.tokens.size(); ++i)
    v.put(i, "<|reserved_token_" + std::to_string(i) + "|>", token_type::control);
  return v;
}

}  // namespace quantal::hf
