#include "shard_name.hpp"

#include <charconv>
#include <string_view>

#include "text.hpp"

namespace quantal {
namespace {

/// Takes a number of at least five digits off the end of `s`.
std::optional<int> take_number(std::string_view& s) {
  std::size_t digits = 0;
  while (digits < s.size() && s[s.size() - 1 - digits] >= '0' && s[s.size() - 1 - digits] <= '9') ++digits;
  int n = 0;
  const auto* first = s.data() + s.size() - digits;
  const auto [end, failed] = std::from_chars(first, s.data() + s.size(), n);
  if (digits < 5 || failed != std::errc{}) return std::nullopt;
  s.remove_suffix(digits);
  return n;
}

bool take(std::string_view& s, std::string_view suffix) {
  if (!s.ends_with(suffix)) return false;
  s.remove_suffix(suffix.size());
  return true;
}

}  // namespace

std::optional<shard_name> parse_shard_name(const std::string& path) {
  std::string_view rest = path;
  if (!take(rest, ".gguf")) return std::nullopt;
  const auto count = take_number(rest);
  if (!count || !take(rest, "-of-")) return std::nullopt;
  const auto number = take_number(rest);
  if (!number || !take(rest, "-") || *number < 1 || *number > *count) return std::nullopt;
  return shard_name{std::string(rest), *number, *count};
}

std::vector<std::filesystem::path> shard_files(const std::string& prefix, int count) {
  std::vector<std::filesystem::path> paths;
  for (int i = 1; i <= count; ++i) paths.emplace_back(prefix + text::format("-%05d-of-%05d.gguf", i, count));
  return paths;
}

}  // namespace quantal
