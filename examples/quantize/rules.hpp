// Custom rules `regex=type` (quantize.md section 3): searched, not anchored; the first rule that matches
// wins.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "pattern.hpp"
#include "quantal/formats.hpp"
#include "quantal/result.hpp"

namespace quantal::plan {

struct rule {
  quantal::pattern pattern;
  const format_info* type;
  std::string origin;        ///< "--custom-q" or "FILE:LINE", for messages
  std::int64_t matched = 0;  ///< tensors that the pattern matches
  std::int64_t hits = 0;     ///< tensors that the rule decided
};

/// A format that can be stored in a model, by name (any case) or GGUF type number; the error lists all names.
result<const format_info*> parse_type(std::string_view text);

/// Appends the rules of `text`: items separated by commas or line ends, the first '=' splits, '#' starts a
/// comment at the start of a line or after white space. Errors name `origin` (and the line if `numbered`).
result<void> parse_rules(std::string_view text, const std::string& origin, bool numbered,
                         std::vector<rule>& out);

/// Index of the first rule that matches `name`, or -1; counts matches of every rule and the hit of the first.
result<int> match_rules(std::vector<rule>& rules, const std::string& name);

/// An error for every rule that decided nothing: it matches no tensor, or other rules or options come first.
result<void> check_rules(const std::vector<rule>& rules);

}  // namespace quantal::plan
