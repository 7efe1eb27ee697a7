// JSON output: keys in the order of insertion, one document per program run.
#pragma once

#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

namespace quantal {

using json = nlohmann::ordered_json;

/// JSON has no NaN or infinity: null stands for them.
inline json json_number(double v) { return std::isfinite(v) ? json(v) : json(nullptr); }

/// Prints an indented document; bytes that are not UTF-8 (names from files) are replaced, never thrown on.
inline void print_json(const json& document) {
  const std::string text = document.dump(2, ' ', false, json::error_handler_t::replace);
  std::fprintf(stdout, "%s\n", text.c_str());
}

}  // namespace quantal
