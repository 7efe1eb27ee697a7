// Regular expressions from command lines and files, searched in names with a bound on time and memory.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "quantal/result.hpp"

namespace quantal {

/// Perl's syntax, of which ECMAScript's is a part; case-sensitive. Cheap to copy.
class pattern {
 public:
  /// Errors say what is wrong and where.
  static result<pattern> compile(std::string_view text);

  /// Whether it matches somewhere in `subject`. An error if that takes more steps than any sane expression needs:
  /// some expressions try exponentially many ways.
  result<bool> found_in(std::string_view subject) const;

  const std::string& text() const noexcept { return text_; }

 private:
  pattern() = default;
  std::string text_;
  std::shared_ptr<const void> code_;
};

}  // namespace quantal
