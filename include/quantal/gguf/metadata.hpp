// Key-value metadata of a GGUF file (gguf.md section 1): ordered, typed, with getters that answer errors instead of
// asserting, because files in the wild store the same key with different integer types.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>

#include "quantal/finite.hpp"
#include "quantal/result.hpp"

namespace quantal::gguf {

/// Value types by their number in files.
enum class value_type : std::uint32_t {
  u8,
  i8,
  u16,
  i16,
  u32,
  i32,
  f32,
  boolean,
  string,
  array,
  u64,
  i64,
  f64
};

/// An array of one element type. Booleans are stored as bytes.
using array = std::variant<std::vector<std::uint8_t>, std::vector<std::int8_t>, std::vector<std::uint16_t>,
                           std::vector<std::int16_t>, std::vector<std::uint32_t>, std::vector<std::int32_t>,
                           std::vector<float>, std::vector<bool>, std::vector<std::string>,
                           std::vector<std::uint64_t>, std::vector<std::int64_t>, std::vector<double>>;

using value =
    std::variant<std::uint8_t, std::int8_t, std::uint16_t, std::int16_t, std::uint32_t, std::int32_t, float,
                 bool, std::string, array, std::uint64_t, std::int64_t, double>;

inline value_type type_of(const value& v) noexcept { return static_cast<value_type>(v.index()); }
/// Element type number of an array: the alternatives follow value_type with `array` left out.
inline value_type element_type_of(const array& a) noexcept {
  const auto i = static_cast<std::uint32_t>(a.index());
  return static_cast<value_type>(i < static_cast<std::uint32_t>(value_type::array) ? i : i + 1);
}

class metadata {
 public:
  using item = std::pair<std::string, value>;

  const std::vector<item>& items() const noexcept { return items_; }
  std::size_t size() const noexcept { return items_.size(); }

  const value* find(std::string_view key) const {
    const auto it = index_.find(std::string(key));
    return it == index_.end() ? nullptr : &items_[it->second].second;
  }
  bool contains(std::string_view key) const { return find(key) != nullptr; }

  /// Replaces the value of a key in place or appends it.
  void set(std::string_view key, value v) {
    const auto [it, added] = index_.try_emplace(std::string(key), items_.size());
    if (added)
      items_.emplace_back(std::string(key), std::move(v));
    else
      items_[it->second].second = std::move(v);
  }
  void erase(std::string_view key) {
    const auto it = index_.find(std::string(key));
    if (it == index_.end()) return;
    const std::size_t at = it->second;
    items_.erase(items_.begin() + static_cast<std::ptrdiff_t>(at));
    index_.erase(it);
    for (auto& [k, i] : index_)
      if (i > at) --i;
  }

  /// Any integer type (or boolean) whose value lies in [low, high].
  result<std::int64_t> integer(std::string_view key,
                               std::int64_t low = std::numeric_limits<std::int64_t>::min(),
                               std::int64_t high = std::numeric_limits<std::int64_t>::max()) const {
    const value* v = find(key);
    if (!v) return missing(key);
    std::optional<std::int64_t> n;
    std::visit([&](const auto& x) { n = as_integer(x); }, *v);
    if (!n) return error{"key '" + std::string(key) + "' is not an integer"};
    if (*n < low || *n > high)
      return error{"key '" + std::string(key) + "' = " + std::to_string(*n) + " is outside [" +
                   std::to_string(low) + ", " + std::to_string(high) + "]"};
    return *n;
  }

  /// Any finite number.
  result<double> number(std::string_view key) const {
    const value* v = find(key);
    if (!v) return missing(key);
    std::optional<double> n;
    std::visit(
        [&](const auto& x) {
          using T = std::decay_t<decltype(x)>;
          if constexpr (std::is_arithmetic_v<T>) n = static_cast<double>(x);
        },
        *v);
    if (!n) return error{"key '" + std::string(key) + "' is not a number"};
    if (!is_finite(*n)) return error{"key '" + std::string(key) + "' is not finite"};
    return *n;
  }

  result<bool> boolean(std::string_view key) const {
    const auto n = integer(key);
    if (!n) return n.error();
    return *n != 0;
  }

  result<std::string> string(std::string_view key) const {
    const value* v = find(key);
    if (!v) return missing(key);
    const auto* s = std::get_if<std::string>(v);
    if (!s) return error{"key '" + std::string(key) + "' is not a string"};
    return *s;
  }

  /// Array of strings, without copying.
  result<const std::vector<std::string>*> strings(std::string_view key) const {
    const value* v = find(key);
    if (!v) return missing(key);
    const auto* a = std::get_if<array>(v);
    const auto* s = a ? std::get_if<std::vector<std::string>>(a) : nullptr;
    if (!s) return error{"key '" + std::string(key) + "' is not an array of strings"};
    return s;
  }

  /// Array of any integer type, or a single integer as an array of one.
  result<std::vector<std::int64_t>> integers(std::string_view key) const {
    const value* v = find(key);
    if (!v) return missing(key);
    const auto* a = std::get_if<array>(v);
    if (!a) {
      const auto n = integer(key);
      if (!n) return n.error();
      return std::vector<std::int64_t>{*n};
    }
    std::vector<std::int64_t> out;
    bool ok = true;
    std::visit(
        [&](const auto& xs) {
          for (const auto& x : xs) {
            const auto n = as_integer(x);
            ok = ok && n;
            out.push_back(n.value_or(0));
          }
        },
        *a);
    if (!ok) return error{"key '" + std::string(key) + "' is not an array of integers"};
    return out;
  }

 private:
  static error missing(std::string_view key) { return {"key '" + std::string(key) + "' is missing"}; }

  template <class T>
  static std::optional<std::int64_t> as_integer(const T& x) {
    if constexpr (std::is_integral_v<T>) {
      if constexpr (std::is_same_v<T, std::uint64_t>)
        if (x > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) return std::nullopt;
      return static_cast<std::int64_t>(x);
    }
    return std::nullopt;
  }

  std::vector<item> items_;
  std::unordered_map<std::string, std::size_t> index_;
};

}  // namespace quantal::gguf
