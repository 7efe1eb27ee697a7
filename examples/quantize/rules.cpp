#include "rules.hpp"

#include <algorithm>
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

constexpr std::string_view blanks = " \t\r";

/// Quotes of a shell around a word.
std::string_view unquoted(std::string_view word) {
  for (const char q : {'\'', '"'})
    if (word.size() >= 2 && word.front() == q && word.back() == q) return word.substr(1, word.size() - 2);
  return word;
}

void add_items(std::string_view list, std::vector<std::string_view>& out) {
  while (!list.empty()) {
    const auto comma = list.find(',');
    if (const auto item = text::trim(list.substr(0, comma)); !item.empty()) out.push_back(item);
    list = comma == std::string_view::npos ? std::string_view{} : list.substr(comma + 1);
  }
}

/// Words between white space, but "a = b" is one rule.
bool is_words(std::string_view line) {
  if (line.starts_with("-")) return true;
  if (line.find_first_of(blanks) == std::string_view::npos) return unquoted(line) != line;
  return line.front() == '\'' || line.front() == '"' ||
         (line.find(',') == std::string_view::npos && std::count(line.begin(), line.end(), '=') > 1);
}

/// The rules of a line, of a list between commas, or of a part of a command line.
std::vector<std::string_view> items_of(std::string_view line) {
  std::vector<std::string_view> out;
  line = text::trim(line);
  if (line.ends_with("\\") && (line.size() == 1 || line[line.size() - 2] == ' '))
    line = text::trim(line.substr(0, line.size() - 1));
  if (line.empty()) return out;
  if (!is_words(line)) return add_items(line, out), out;
  while (!line.empty()) {
    const auto end = std::min(line.find_first_of(blanks), line.size());
    auto word = line.substr(0, end);
    line = text::trim(line.substr(end));
    for (const std::string_view option : {"--custom-q", "--tensor-type"}) {
      if (word == option) word = {};
      if (word.starts_with(option) && word.size() > option.size() && word[option.size()] == '=')
        word = word.substr(option.size() + 1);
    }
    add_items(unquoted(word), out);
  }
  return out;
}

/// Between rules, within them, or before a comment; white space and what terminals do not show are.
bool separates_rules(char c) {
  return c == ',' || c == '=' || c == '#' || (c >= 0 && c <= ' ') || c == '\x7f';
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
  return for_each_line(input, [&](std::string_view line, std::int64_t number) -> result<void> {
    const std::string where = numbered ? origin + ":" + std::to_string(number) : origin;
    for (const auto& item : items_of(without_comment(line))) {
      auto r = parse_rule(item, where);
      if (!r) return r.error();
      out.push_back(std::move(*r));
    }
    return {};
  });
}

std::string rule_for(const std::string& tensor, const format_info& type) {
  std::string out = "^";
  for (const char c : tensor) {
    if (separates_rules(c)) {
      out += text::format("\\x%02x", static_cast<unsigned>(static_cast<unsigned char>(c)));
      continue;
    }
    if (std::string_view(".^$|()[]{}*+?\\").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out + "$=" + std::string(type.name);
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
