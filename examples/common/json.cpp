#include "json.hpp"

#include <algorithm>
#include <cstdio>

namespace quantal {

void print_json(const json& document) {
  const std::string text = document.dump(2, ' ', false, json::error_handler_t::replace);
  std::fprintf(stdout, "%s\n", text.c_str());
}

result<json> parse_json(std::string_view text, const std::string& origin) {
  int depth = 0, deepest = 0;
  for (const char c : text) {
    if (c == '[' || c == '{') deepest = std::max(deepest, ++depth);
    if (c == ']' || c == '}') --depth;
  }
  if (deepest > 1000) return error{origin + ": nested too deeply"};
  json document = json::parse(text, nullptr, false);
  if (document.is_discarded()) return error{origin + ": not valid JSON"};
  return document;
}

}  // namespace quantal
