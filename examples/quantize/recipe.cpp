#include "recipe.hpp"

#include <algorithm>
#include <regex>

#include "text.hpp"

namespace quantal::plan {
namespace {

std::string item(const rule& r) { return r.pattern.text() + "=" + std::string(r.type->name); }

/// Both other programs have std::regex, which knows less than Perl does.
bool is_ecmascript(const std::string& pattern) {
  try {
    const std::regex compiled(pattern);
    return true;
  } catch (const std::regex_error&) {
    return false;
  }
}

/// llama.cpp reads patterns in lower case: names have no capitals, but \S and \D turn into their opposites.
bool changes_in_lower_case(const std::string& pattern) {
  for (std::size_t i = 0; i + 1 < pattern.size(); ++i)
    if (pattern[i] == '\\' && pattern[++i] >= 'A' && pattern[i] <= 'Z') return true;
  return false;
}

std::vector<std::string> caveats_of(const std::vector<rule>& rules, dialect d) {
  std::vector<std::string> out;
  for (const auto& r : rules) {
    const std::string which = "'" + text::printable(r.pattern.text()) + "': ";
    if (!reads(d, *r.type)) out.push_back(which + "does not know " + std::string(r.type->name));
    if (!is_ecmascript(r.pattern.text())) out.push_back(which + "does not know this kind of expression");
    if (d == dialect::llama_cpp && changes_in_lower_case(r.pattern.text()))
      out.push_back(which + "reads the expression in lower case, which changes what it means");
    if (r.reaches_kept()) out.push_back(which + "leaves these tensors as they are");
  }
  return out;
}

std::string list_of(const std::vector<rule>& rules) {
  std::string out;
  for (const auto& r : rules) out += (out.empty() ? "" : ",") + item(r);
  return "--custom-q " + shell_quoted(out);
}

}  // namespace

std::string shell_quoted(const std::string& s) {
  std::string out = "'";
  for (const char c : s) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::vector<written_recipe> write_recipes(const std::vector<rule>& rules) {
  std::string each;
  for (const auto& r : rules)
    each += (each.empty() ? "--tensor-type " : " --tensor-type ") + shell_quoted(item(r));
  return {{"quantal", list_of(rules), {}},
          {std::string(program_name(dialect::ik)), list_of(rules), caveats_of(rules, dialect::ik)},
          {std::string(program_name(dialect::llama_cpp)), each, caveats_of(rules, dialect::llama_cpp)}};
}

}  // namespace quantal::plan
