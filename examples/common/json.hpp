// JSON output: keys in the order of insertion, one document per program run.
#pragma once

#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "quantal/result.hpp"

namespace quantal {

using json = nlohmann::ordered_json;

/// JSON has no NaN or infinity: null stands for them.
inline json json_number(double v) { return std::isfinite(v) ? json(v) : json(nullptr); }

/// Prints an indented document; bytes that are not UTF-8 (names from files) are replaced, never thrown on.
void print_json(const json& document);

/// Parses the text of a file that nobody vouches for; errors begin with `origin`. The parser recurses for
/// every level, which is why there is a limit.
result<json> parse_json(std::string_view text, const std::string& origin);

}  // namespace quantal
