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
  constexpr std::string_view byte_order_mark = "\xef\xbb\xbf";
  if (input.starts_with(byte_order_mark)) input.remove_prefix(byte_order_mark.size());
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

result<rule_matches> rule_matches::find(std::vector<rule>& rules,
                                        const std::vector<gguf::tensor_info>& tensors,
                                        const std::function<bool(const gguf::tensor_info&)>& is_quantized) {
  rule_matches out(rules);
  for (auto& r : rules) r.matched = r.hits = r.kept = 0;
  if (rules.empty()) return out;
  for (const auto& t : tensors) {
    const bool quantized = is_quantized(t);
    out.quantized_.push_back(quantized);
    auto& matching = out.of_tensor_.emplace_back();
    for (std::size_t i = 0; i < rules.size(); ++i) {
      const auto found = rules[i].pattern.found_in(t.name);
      if (!found) return error{rules[i].origin + ": " + found.error().message};
      if (!*found) continue;
      matching.push_back(static_cast<int>(i));
      ++rules[i].matched;
      rules[i].kept += quantized ? 0 : 1;
    }
  }
  return out;
}

int rule_matches::decide(std::size_t tensor) {
  if (of_tensor_.empty()) return -1;
  for (const int i : of_tensor_[tensor]) {
    auto& r = (*rules_)[static_cast<std::size_t>(i)];
    if (quantized_[tensor] || r.reaches_kept()) return ++r.hits, i;
  }
  return -1;
}

result<void> check_rules(const std::vector<rule>& rules) {
  std::string message;
  for (const auto& r : rules) {
    if (r.hits > 0) continue;
    if (!message.empty()) message += "; ";
    message += r.origin + ": rule '" + text::printable(r.pattern.text()) + "' ";
    if (r.matched == 0)
      message += "matches no tensor";
    else
      message += "decides nothing: earlier rules or options take all " + std::to_string(r.matched) +
                 " tensors it matches";
  }
  if (!message.empty()) return error{message};
  return {};
}

}  // namespace quantal::plan
