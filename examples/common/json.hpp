// JSON output: keys in the order of insertion, one document per program run.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "quantal/result.hpp"

namespace quantal {

using json = nlohmann::ordered_json;

/// JSON has no NaN or infinity: null stands for them.
inline json json_number(double v) { return std::isfinite(v) ? json(v) : json(nullptr); }

/// Prints an indented document; bytes that are not UTF-8 (names from files) are replaced, never thrown on.
inline void print_json(const json& document) {
  const std::string text = document.dump(2, ' ', false, json::error_handler_t::replace);
  std::fprintf(stdout, "%s\n", text.c_str());
}

/// Parses the text of a file that nobody vouches for; errors begin with `origin`. The parser recurses for
/// every level, which is why there is a limit.
inline result<json> parse_json(std::string_view text, const std::string& origin) {
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
