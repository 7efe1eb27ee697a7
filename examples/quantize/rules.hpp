// Custom rules `regex=type` (quantize.md section 3): searched, not anchored; the first rule that matches
// wins.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "pattern.hpp"
#include "quantal/formats.hpp"
#include "quantal/gguf/tensor_info.hpp"
#include "quantal/result.hpp"

namespace quantal::plan {

struct rule {
  quantal::pattern pattern;
  const format_info* type;
  std::string origin;        ///< "--custom-q" or "FILE:LINE", for messages
  std::int64_t matched = 0;  ///< tensors that the pattern matches
  std::int64_t hits = 0;     ///< tensors that the rule decided
  std::int64_t kept = 0;     ///< matching tensors that stay without a rule of their own (norms, routers, ...)
  /// A rule that matches only such tensors means them; one that matches others too leaves them alone.
  bool reaches_kept() const noexcept { return kept > 0 && kept == matched; }
};

/// A format that can be stored in a model, by name (any case) or GGUF type number; the error lists all names.
result<const format_info*> parse_type(std::string_view text);

inline std::string_view without_byte_order_mark(std::string_view content) {
  constexpr std::string_view mark = "\xef\xbb\xbf";
  return content.starts_with(mark) ? content.substr(mark.size()) : content;
}

/// Calls f(line, number) for every line of a file, numbered from 1, without a byte order mark; stops at an error.
template <class F>
result<void> for_each_line(std::string_view content, F&& f) {
  content = without_byte_order_mark(content);
  for (std::int64_t number = 1; !content.empty(); ++number) {
    const auto end = content.find('\n');
    if (auto ok = f(content.substr(0, end), number); !ok) return ok;
    content = end == std::string_view::npos ? std::string_view{} : content.substr(end + 1);
  }
  return {};
}

/// Appends the rules of `text`: items separated by commas or line ends, the first '=' splits, '#' starts a
/// comment at the start of a line or after white space. Items of which several stand between white space are read, too, and so are
/// command lines: --custom-q and --tensor-type, quotes and the backslash at the end of a line are skipped. Errors name `origin`
/// (and the line if `numbered`).
result<void> parse_rules(std::string_view text, const std::string& origin, bool numbered,
                         std::vector<rule>& out);

/// "^blk\.0\.ffn_up\.weight$=q4_0": the rule that gives one tensor a type. What parse_rules() would split at is escaped.
std::string rule_for(const std::string& tensor, const format_info& type);

/// Which rules match which tensors; counts them in the rules.
class rule_matches {
 public:
  /// `is_quantized`: whether a tensor is converted even if no rule matches. The rules must outlive the answer.
  static result<rule_matches> find(std::vector<rule>& rules, const std::vector<gguf::tensor_info>& tensors,
                                   const std::function<bool(const gguf::tensor_info&)>& is_quantized);

  /// The first rule that reaches the tensor, or -1; counts a hit.
  int decide(std::size_t tensor);

 private:
  explicit rule_matches(std::vector<rule>& rules) : rules_(&rules) {}

  std::vector<rule>* rules_;
  std::vector<std::vector<int>> of_tensor_;
  std::vector<bool> quantized_;
};

/// An error for every rule that decided nothing: it matches no tensor, or other rules or options come first.
result<void> check_rules(const std::vector<rule>& rules);

}  // namespace quantal::plan
