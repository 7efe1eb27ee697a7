// A declarative option parser in the manner of llama.cpp's programs: options with one or two dashes (-m,
// -mla,
// --imatrix), each possibly with several spellings, bound to variables that also hold the defaults.
//
//   cli::parser p("quantal-x", "What it does.");
//   p.option({"-m", "--model"}, "FILE", "model to read", model).required();
//   p.option({"-t", "--threads"}, "N", "threads, 0 = all", threads, {0, 1024});
//   p.flag({"-fa", "--flash-attn"}, "flash attention", flash);
//   p.positional("IN", "input", in).required();
//   if (const auto exit_code = p.run(argc, argv)) return *exit_code;
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <concepts>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <functional>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "quantal/result.hpp"

namespace quantal::cli {

/// Exit codes that all programs share.
inline constexpr int exit_ok = 0, exit_failure = 1, exit_usage = 2;

/// Inclusive bounds of a number.
struct range {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
};

namespace detail {

template <class T>
struct is_vector : std::false_type {};
template <class T>
struct is_vector<std::vector<T>> : std::true_type {};

template <class T>
std::string shown(const T& v) {
  if constexpr (std::is_floating_point_v<T>) {
    char buffer[32];
    std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(v));
    return buffer;
  } else if constexpr (std::integral<T>) {
    return std::to_string(v);
  } else if constexpr (std::same_as<T, std::filesystem::path>) {
    return v.string();
  } else if constexpr (std::same_as<T, std::string>) {
    return v;
  } else {
    return {};  // optionals and lists start empty
  }
}

/// The whole of `text` as a number within bounds.
template <class T>
result<T> parse_number(std::string_view text, const range& bounds) {
  T v{};
  std::string shown_text(1, '\'');
  shown_text.append(text).append("'");
  const auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), v);
  if (failure == std::errc::result_out_of_range) return error{shown_text + " is out of range"};
  if (failure != std::errc{} || end != text.data() + text.size())
    return error{shown_text + (std::integral<T> ? " is not an integer" : " is not a number")};
  const auto d = static_cast<double>(v);
  if (!std::isfinite(d)) return error{shown_text + " is not finite"};
  if (d < bounds.low || d > bounds.high) {
    const auto side = [](double b, const char* none) { return std::isinf(b) ? std::string(none) : shown(b); };
    return error{shown_text + " is outside [" + side(bounds.low, "-inf") + ", " + side(bounds.high, "inf") +
                 "]"};
  }
  return v;
}

/// Stores one value: numbers are checked, optionals are set, lists grow.
template <class T>
result<void> assign(T& target, std::string_view text, const range& bounds) {
  if constexpr (is_vector<T>::value) {
    typename T::value_type v{};
    if (auto r = assign(v, text, bounds); !r) return r;
    target.push_back(std::move(v));
  } else if constexpr (requires {
                         typename T::value_type;
                         target.emplace();
                       } &&
                       !std::same_as<T, std::string> && !std::same_as<T, std::filesystem::path>) {
    typename T::value_type v{};
    if (auto r = assign(v, text, bounds); !r) return r;
    target = std::move(v);
  } else if constexpr (std::is_arithmetic_v<T>) {
    auto v = parse_number<T>(text, bounds);
    if (!v) return v.error();
    target = *v;
  } else {
    target = T(std::string(text));
  }
  return {};
}

}  // namespace detail

class parser {
  struct declaration {
    std::vector<std::string> names;
    std::string value_name, help, shown_default = {};
    std::vector<std::string> choices = {};
    bool is_flag = false, repeatable = false, required = false, many = false;
    int count = 0;
    std::function<result<void>(std::string_view)> set = {};

    bool has(std::string_view n) const { return std::find(names.begin(), names.end(), n) != names.end(); }
  };

 public:
  /// What was declared; the setters refine it.
  class handle {
   public:
    /// Must be given.
    handle& required() { return spec().required = true, *this; }
    /// Must be one of these.
    handle& one_of(std::vector<std::string> choices) { return spec().choices = std::move(choices), *this; }
    /// Takes every following argument that is not an option (at least one): -f A B C.
    handle& many() { return spec().many = true, *this; }

   private:
    friend class parser;
    handle(parser& p, bool positional, std::size_t at) : parser_(&p), positional_(positional), at_(at) {}
    declaration& spec() { return positional_ ? parser_->positionals_[at_] : parser_->options_[at_]; }
    parser* parser_;
    bool positional_;
    std::size_t at_;
  };

  parser(std::string program, std::string summary)
      : program_(std::move(program)), summary_(std::move(summary)) {}

  /// An option with a value. T: a number, string, path, std::optional of one, or std::vector of one
  /// (repeatable). `target` must outlive the parser; its value at this point is the default that --help
  /// shows.
  template <class T>
  handle option(std::vector<std::string> names, std::string value_name, std::string help, T& target,
                range bounds = {}) {
    declaration d{.names = std::move(names), .value_name = std::move(value_name), .help = std::move(help)};
    d.shown_default = detail::shown(target);
    d.repeatable = detail::is_vector<T>::value;
    d.set = [&target, bounds](std::string_view v) { return detail::assign(target, v, bounds); };
    options_.push_back(std::move(d));
    return {*this, false, options_.size() - 1};
  }

  /// An option without a value.
  handle flag(std::vector<std::string> names, std::string help, bool& target) {
    declaration d{.names = std::move(names), .value_name = {}, .help = std::move(help)};
    d.is_flag = true;
    d.repeatable = true;
    d.set = [&target](std::string_view) { return target = true, result<void>{}; };
    options_.push_back(std::move(d));
    return {*this, false, options_.size() - 1};
  }

  /// An argument without a name, in order of declaration. A vector takes all that remain.
  template <class T>
  handle positional(std::string name, std::string help, T& target, range bounds = {}) {
    declaration d{.names = {std::move(name)}, .value_name = {}, .help = std::move(help)};
    d.shown_default = detail::shown(target);
    d.repeatable = detail::is_vector<T>::value;
    d.set = [&target, bounds](std::string_view v) { return detail::assign(target, v, bounds); };
    positionals_.push_back(std::move(d));
    return {*this, true, positionals_.size() - 1};
  }

  /// Text after the options in --help.
  void epilogue(std::string text) { epilogue_ = std::move(text); }

  bool help_requested() const noexcept { return help_; }
  /// Whether an option (any of its spellings) was on the command line.
  bool given(std::string_view name) const {
    return std::any_of(options_.begin(), options_.end(),
                       [&](const auto& d) { return d.count > 0 && d.has(name); });
  }

  /// Reads the arguments after the program name.
  result<void> parse(const std::vector<std::string>& arguments) {
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

  /// parse() for main: prints help or the message, and answers the exit code if the program should end now.
  std::optional<int> run(int argc, const char* const* argv) {
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

  std::string help() const {
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

 private:
  /// "-" alone and negative numbers are values.
  static bool looks_like_option(std::string_view a) {
    return a.size() > 1 && a[0] == '-' && a[1] != '.' && !(a[1] >= '0' && a[1] <= '9');
  }

  declaration* find(std::string_view name) {
    const auto it =
        std::find_if(options_.begin(), options_.end(), [&](const auto& d) { return d.has(name); });
    return it == options_.end() ? nullptr : &*it;
  }

  static result<void> store(declaration& d, const std::string& label, const std::string& value) {
    if (!d.choices.empty() && std::find(d.choices.begin(), d.choices.end(), value) == d.choices.end())
      return error{label + ": '" + value + "' is not one of " + joined(d.choices, ", ")};
    if (auto r = d.set(value); !r) return error{label + ": " + r.error().message};
    ++d.count;
    return {};
  }

  result<void> take_positional(const std::string& a) {
    while (next_positional_ < positionals_.size() && positionals_[next_positional_].count > 0 &&
           !positionals_[next_positional_].repeatable)
      ++next_positional_;
    if (next_positional_ == positionals_.size()) return error{"unexpected argument '" + a + "'"};
    auto& d = positionals_[next_positional_];
    return store(d, d.names[0], a);
  }

  result<void> take_option(const std::vector<std::string>& arguments, std::size_t& i) {
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
  std::string suggestion(std::string_view name) const {
    const auto bare = [](std::string_view s) {
      return s.substr(std::min(s.find_first_not_of('-'), s.size()));
    };
    for (const auto& d : options_)
      for (const auto& n : d.names)
        if (bare(n) == bare(name)) return " (did you mean " + n + "?)";
    return {};
  }

  result<void> check_required() const {
    for (const auto& d : positionals_)
      if (d.required && d.count == 0) return error{"missing argument " + d.names[0]};
    for (const auto& d : options_)
      if (d.required && d.count == 0) return error{"missing option " + d.names[0]};
    return {};
  }

  static std::string joined(const std::vector<std::string>& items, std::string_view separator) {
    std::string out;
    for (const auto& s : items) {
      if (!out.empty()) out += separator;
      out += s;
    }
    return out;
  }
  static std::string spellings(const declaration& d) {
    return joined(d.names, ", ") + (d.value_name.empty() ? "" : " " + d.value_name) + (d.many ? " ..." : "");
  }
  static std::string entry(const std::string& head, const declaration& d) {
    std::string out = "  " + head + "\n        " + d.help;
    if (!d.choices.empty()) out += " (one of " + joined(d.choices, ", ") + ")";
    if (d.required)
      out += " (required)";
    else if (!d.is_flag && !d.shown_default.empty())
      out += " (default: " + d.shown_default + ")";
    if (d.repeatable && !d.is_flag && !d.value_name.empty()) out += " (repeatable)";
    return out + "\n";
  }

  std::string program_, summary_, epilogue_;
  std::vector<declaration> options_, positionals_;
  std::size_t next_positional_ = 0;
  bool help_ = false;
};

}  // namespace quantal::cli
