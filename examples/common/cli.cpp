#include "cli.hpp"

#include <algorithm>
#include <cstdio>

namespace quantal::cli {
namespace {

/// "-" alone and negative numbers are values.
bool looks_like_option(std::string_view a) {
  return a.size() > 1 && a[0] == '-' && a[1] != '.' && !(a[1] >= '0' && a[1] <= '9');
}

std::string joined(const std::vector<std::string>& items, std::string_view separator) {
  std::string out;
  for (const auto& s : items) {
    if (!out.empty()) out += separator;
    out += s;
  }
  return out;
}

}  // namespace

bool parser::given(std::string_view name) const {
  return std::any_of(options_.begin(), options_.end(),
                     [&](const auto& d) { return d.count > 0 && d.has(name); });
}

result<void> parser::parse(const std::vector<std::string>& arguments) {
  bool only_positionals = false;
  for (std::size_t i = 0; i < arguments.size() && !help_; ++i) {
    const std::string& a = arguments[i];
    if (!only_positionals && a == "--")
      only_positionals = true;
    else if (only_positionals || !looks_like_option(a)) {
      if (auto r = take_positional(a); !r) return r;
    } else if (auto r = take_option(arguments, i); !r)
      return r;
  }
  if (help_) return {};
  return check_required();
}

std::optional<int> parser::run(int argc, const char* const* argv) {
  const auto r = parse(std::vector<std::string>(argv + std::min(argc, 1), argv + argc));
  if (!r) {
    std::fprintf(stderr, "%s: %s\nTry '%s --help'.\n", program_.c_str(), r.error().message.c_str(),
                 program_.c_str());
    return exit_usage;
  }
  if (!help_) return std::nullopt;
  std::fputs(help().c_str(), stdout);
  return exit_ok;
}

std::string parser::help() const {
  std::string out = "usage: " + program_ + " [options]";
  for (const auto& d : positionals_) {
    const std::string name =
        d.names[0] + (d.repeatable && d.names[0].find(' ') == std::string::npos ? "..." : "");
    out.append(d.required ? " " : " [").append(name).append(d.required ? "" : "]");
  }
  out += "\n\n" + summary_ + "\n";
  if (!positionals_.empty()) out += "\narguments:\n";
  for (const auto& d : positionals_) out += entry(d.names[0], d);
  out += "\noptions:\n";
  for (const auto& d : options_) out += entry(spellings(d), d);
  out += "  -h, --help\n        print this text\n";
  if (!epilogue_.empty()) out += "\n" + epilogue_ + "\n";
  return out;
}

parser::declaration* parser::find(std::string_view name) {
  const auto it =
      std::find_if(options_.begin(), options_.end(), [&](const auto& d) { return d.has(name); });
  return it == options_.end() ? nullptr : &*it;
}

result<void> parser::store(declaration& d, const std::string& label, const std::string& value) {
  if (!d.choices.empty() && std::find(d.choices.begin(), d.choices.end(), value) == d.choices.end())
    return error{label + ": '" + value + "' is not one of " + joined(d.choices, ", ")};
  if (auto r = d.set(value); !r) return error{label + ": " + r.error().message};
  ++d.count;
  return {};
}

result<void> parser::take_positional(const std::string& a) {
  while (next_positional_ < positionals_.size() && positionals_[next_positional_].count > 0 &&
         !positionals_[next_positional_].repeatable)
    ++next_positional_;
  if (next_positional_ == positionals_.size()) return error{"unexpected argument '" + a + "'"};
  auto& d = positionals_[next_positional_];
  return store(d, d.names[0], a);
}

result<void> parser::take_option(const std::vector<std::string>& arguments, std::size_t& i) {
  const auto equals = arguments[i].find('=');
  const std::string name = arguments[i].substr(0, equals);
  if (name == "-h" || name == "--help") return help_ = true, result<void>{};
  declaration* d = find(name);
  if (!d) return error{"unknown option '" + name + "'" + suggestion(name)};
  if (d->count > 0 && !d->repeatable) return error{name + " was given twice"};
  if (d->is_flag) {
    if (equals != std::string::npos) return error{name + " takes no value"};
    return store(*d, name, "");
  }
  if (equals != std::string::npos) return store(*d, name, arguments[i].substr(equals + 1));
  if (i + 1 == arguments.size() || looks_like_option(arguments[i + 1]))
    return error{name + " needs a value"};
  do {
    if (auto r = store(*d, name, arguments[++i]); !r) return r;
  } while (d->many && i + 1 < arguments.size() && !looks_like_option(arguments[i + 1]));
  return {};
}

/// An option that differs in its dashes only ("--mla" for "-mla") is worth a hint.
std::string parser::suggestion(std::string_view name) const {
  const auto bare = [](std::string_view s) {
    return s.substr(std::min(s.find_first_not_of('-'), s.size()));
  };
  for (const auto& d : options_)
    for (const auto& n : d.names)
      if (bare(n) == bare(name)) return " (did you mean " + n + "?)";
  return {};
}

result<void> parser::check_required() const {
  for (const auto& d : positionals_)
    if (d.required && d.count == 0) return error{"missing argument " + d.names[0]};
  for (const auto& d : options_)
    if (d.required && d.count == 0) return error{"missing option " + d.names[0]};
  return {};
}

std::string parser::spellings(const declaration& d) {
  return joined(d.names, ", ") + (d.value_name.empty() ? "" : " " + d.value_name) + (d.many ? " ..." : "");
}

std::string parser::entry(const std::string& head, const declaration& d) {
  std::string out = "  " + head + "\n        " + d.help;
  if (!d.choices.empty()) out += " (one of " + joined(d.choices, ", ") + ")";
  if (d.required)
    out += " (required)";
  else if (!d.is_flag && !d.shown_default.empty())
    out += " (default: " + d.shown_default + ")";
  if (d.repeatable && !d.is_flag && !d.value_name.empty()) out += " (repeatable)";
  return out + "\n";
}

}  // namespace quantal::cli
