// Regular expressions from command lines and files.
#pragma once

#include <algorithm>
#include <regex>
#include <string>
#include <string_view>

#include "quantal/result.hpp"

namespace quantal {

/// ECMAScript, case-sensitive. The standard library compiles and matches recursively and multiplies digits up
/// without looking: expressions of a sane length with counts and references of at most four digits can
/// neither exhaust its stack nor overflow.
inline result<std::regex> compile_pattern(std::string_view pattern) {
  if (pattern.size() > 1000) return error{"the regular expression is longer than 1000 characters"};
  const auto is_digit = [](char c) { return c >= '0' && c <= '9'; };
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != '\\' && pattern[i] != '{' && pattern[i] != ',') continue;
    const auto digits = pattern.substr(i + 1);
    const auto end = std::find_if_not(digits.begin(), digits.end(), is_digit);
    if (end - digits.begin() > 4)
      return error{"the regular expression has a number of more than four digits"};
  }
  try {
    return std::regex(pattern.begin(), pattern.end(), std::regex::ECMAScript | std::regex::optimize);
  } catch (const std::regex_error& e) {
    return error{std::string("bad regular expression: ") + e.what()};
  }
}

}  // namespace quantal
