// Reads keys of a JSON object and remembers the first complaint.
#pragma once

#include <cmath>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "strict_json.hpp"
#include "text.hpp"

namespace quantal::hf {

/// A key of config.json and what the file at hand calls it.
struct key_name {
  const char *config, *own;
};

/// Takes values out of an object and remembers the first complaint and the keys that were looked at.
class key_reader {
 public:
  /// `names`: of keys that the user knows by another name.
  key_reader(const document& object, std::string where, std::span<const key_name> names = {})
      : object_(object), where_(std::move(where)), names_(names) {}

  bool has(const char* key) {
    used_.insert(key);
    return member(object_, key) != nullptr;
  }
  const document* get(const char* key) {
    used_.insert(key);
    return member(object_, key);
  }
  std::int64_t integer(const char* key, std::int64_t low, std::int64_t high) {
    const auto* v = get(key);
    if (!v) return fail(key, "is missing"), low;
    if (!v->is_number_integer()) return fail(key, "is no integer"), low;
    const auto n = v->is_number_unsigned() && v->get<std::uint64_t>() >> 63 ? -1 : v->get<std::int64_t>();
    if (n < low || n > high)
      return fail(key, v->dump() + " is outside [" + std::to_string(low) + ", " + std::to_string(high) + "]"),
             low;
    return n;
  }
  std::int64_t integer_or(const char* key, std::int64_t otherwise, std::int64_t low, std::int64_t high) {
    return has(key) ? integer(key, low, high) : otherwise;
  }
  double number(const char* key, double low) {
    const auto* v = get(key);
    if (!v) return fail(key, "is missing"), low;
    if (!v->is_number()) return fail(key, "is no number"), low;
    const double x = v->get<double>();
    if (!std::isfinite(x) || x < low) return fail(key, v->dump() + text::format(" is below %g", low)), low;
    return x;
  }
  double number_or(const char* key, double otherwise, double low) {
    return has(key) ? number(key, low) : otherwise;
  }
  bool flag_or(const char* key, bool otherwise) {
    const auto* v = get(key);
    if (!v) return otherwise;
    if (!v->is_boolean()) return fail(key, "is neither true nor false"), otherwise;
    return v->get<bool>();
  }
  std::string text_or(const char* key, std::string otherwise) {
    const auto* v = get(key);
    if (!v) return otherwise;
    if (!v->is_string()) return fail(key, "is no string"), otherwise;
    return v->get<std::string>();
  }
  /// The key must have this value or be absent: anything else is something that the GGUF cannot say.
  void only(const char* key, const document& value) {
    const auto* v = get(key);
    if (v && *v != value) fail(key, v->dump() + " is not supported, only " + value.dump());
  }
  void fail(const char* key, const std::string& why) {
    fail("key '" + std::string(own_name(key)) + "' " + text::printable(why.substr(0, 200)));
  }
  void fail(const std::string& why) {
    if (message_.empty()) message_ = where_ + ": " + why;
  }

  /// The first complaint about a part, whose name begins with this one's, is one about the whole.
  void adopt(const key_reader& part) {
    if (!part.message_.empty()) fail(part.message_.substr(where_.size() + 2));
  }

  const std::string& where() const { return where_; }
  std::span<const key_name> names() const { return names_; }
  const std::string& message() const { return message_; }
  /// Keys that nobody asked for.
  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (const auto& [key, value] : object_.items())
      if (!used_.contains(key)) out.push_back(key);
    return out;
  }

 private:
  const char* own_name(const char* key) const {
    for (const auto& n : names_)
      if (std::string_view(n.config) == key) return n.own;
    return key;
  }

  const document& object_;
  std::string where_, message_;
  std::span<const key_name> names_;
  std::set<std::string> used_;
};

}  // namespace quantal::hf
