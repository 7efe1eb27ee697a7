#include "rules.hpp"

#include <charconv>

#include "text.hpp"

namespace quantal::plan {
namespace {

/// The part of a line before its comment.
std::string_view without_comment(std::string_view line) {
  for (std::size_t i = 0; i < line.size(); ++i)
    if (line[i] == '#' && (i == 0 || line[i - 1] == ' ' || line[i - 1] == '\t')) return line.substr(0, i);
  return line;
}

result<rule> parse_rule(std::string_view item, const std::string& where) {
  const auto equals = item.find('=');
  const std::string shown = where + ": rule '" + text::printable(item) + "': ";
  if (equals == std::string_view::npos) return error{shown + "expected REGEX=TYPE"};
  const auto written = text::trim(item.substr(0, equals));
  if (written.empty()) return error{shown + "the pattern is empty"};
  const auto type = parse_type(text::trim(item.substr(equals + 1)));
  if (!type) return error{shown + type.error().message};
  auto compiled = pattern::compile(written);
  if (!compiled) return error{shown + compiled.error().message};
  return rule{std::move(*compiled), *type, where};
}

}  // namespace

result<const format_info*> parse_type(std::string_view s) {
  const format_info* f = find_format(s);
  std::uint32_t id = 0;
  const auto [end, failure] = std::from_chars(s.data(), s.data() + s.size(), id);
  if (!f && failure == std::errc{} && end == s.data() + s.size()) f = find_format(id);
  if (f && f->usage == role::weight) return f;
  std::string names;
  for (const auto& known : format_table)
    if (known.usage == role::weight) names += (names.empty() ? "" : ", ") + std::string(known.name);
  return error{"unknown type '" + text::printable(s) + "'; known: " + names};
}

result<void> parse_rules(std::string_view input, const std::string& origin, bool numbered,
                         std::vector<rule>& out) {
  for (std::int64_t number = 1; !input.empty(); ++number) {
    const auto line_end = input.find('\n');
    auto line = without_comment(input.substr(0, line_end));
    input = line_end == std::string_view::npos ? std::string_view{} : input.substr(line_end + 1);
    const std::string where = numbered ? origin + ":" + std::to_string(number) : origin;
    while (!line.empty()) {
      const auto comma = line.find(',');
      const auto item = text::trim(line.substr(0, comma));
      line = comma == std::string_view::npos ? std::string_view{} : line.substr(comma + 1);
      if (item.empty()) continue;
      auto r = parse_rule(item, where);
      if (!r) return r.error();
      out.push_back(std::move(*r));
    }
  }
  return {};
}

result<int> match_rules(std::vector<rule>& rules, const std::string& name) {
  int first = -1;
  for (std::size_t i = 0; i < rules.size(); ++i) {
    const auto found = rules[i].pattern.found_in(name);
    if (!found) return error{rules[i].origin + ": " + found.error().message};
    if (!*found) continue;
    ++rules[i].matched;
    if (first < 0) first = static_cast<int>(i);
  }
  if (first >= 0) ++rules[static_cast<std::size_t>(first)].hits;
  return first;
}

result<void> check_rules(const std::vector<rule>& rules) {
  std::string message;
  for (const auto& r : rules) {
    if (r.hits > 0) continue;
    if (!message.empty()) message += "; ";
    message += r.origin + ": rule '" + text::printable(r.pattern.text()) + "' ";
    if (r.matched == 0)
      message += "matches no tensor that is quantized";
    else
      message += "decides nothing: earlier rules or options take all " + std::to_string(r.matched) +
                 " tensors it matches";
  }
  if (!message.empty()) return error{message};
  return {};
}

}  // namespace quantal::plan
