#include "pattern.hpp"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <array>

#include "text.hpp"

namespace quantal {
namespace {

constexpr std::size_t longest = 1000;
/// About 10 ms; names of tensors take some hundred steps.
constexpr std::uint32_t most_steps = 200'000;
constexpr std::uint32_t most_kibibytes = 16 * 1024;

const auto* units(std::string_view s) { return reinterpret_cast<PCRE2_SPTR>(s.data()); }

std::string message_of(int code) {
  std::array<PCRE2_UCHAR, 256> buffer{};
  pcre2_get_error_message(code, buffer.data(), buffer.size());
  return reinterpret_cast<const char*>(buffer.data());
}

using match_context = std::unique_ptr<pcre2_match_context, decltype(&pcre2_match_context_free)>;
using match_data = std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)>;

}  // namespace

result<pattern> pattern::compile(std::string_view text) {
  if (text.size() > longest)
    return error{"the regular expression is longer than " + std::to_string(longest) + " characters"};
  // Unset groups match nothing, [] is empty and \u is a character, as in ECMAScript.
  constexpr std::uint32_t options = PCRE2_DOLLAR_ENDONLY | PCRE2_MATCH_UNSET_BACKREF |
                                    PCRE2_ALLOW_EMPTY_CLASS | PCRE2_ALT_BSUX | PCRE2_NEVER_UTF |
                                    PCRE2_NEVER_BACKSLASH_C;
  int code = 0;
  PCRE2_SIZE at = 0;
  auto* compiled = pcre2_compile(units(text), text.size(), options, &code, &at, nullptr);
  if (!compiled)
    return error{"bad regular expression: " + message_of(code) + " (at character " + std::to_string(at) +
                 ")"};
  pattern p;
  p.text_ = text;
  p.code_ = std::shared_ptr<const void>(compiled, [compiled](const void*) { pcre2_code_free(compiled); });
  return p;
}

result<bool> pattern::found_in(std::string_view subject) const {
  const auto* code = static_cast<const pcre2_code*>(code_.get());
  const match_context limits(pcre2_match_context_create(nullptr), pcre2_match_context_free);
  const match_data data(pcre2_match_data_create_from_pattern(code, nullptr), pcre2_match_data_free);
  if (!limits || !data) return error{"out of memory"};
  pcre2_set_match_limit(limits.get(), most_steps);
  pcre2_set_heap_limit(limits.get(), most_kibibytes);
  const int found = pcre2_match(code, units(subject), subject.size(), 0, 0, data.get(), limits.get());
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  const std::string where =
      "the regular expression '" + text::printable(text_) + "' on " + text::in_quotes(subject) + ": ";
  if (found == PCRE2_ERROR_MATCHLIMIT || found == PCRE2_ERROR_HEAPLIMIT || found == PCRE2_ERROR_DEPTHLIMIT)
    return error{where + "takes too many steps; nested repetitions like (.*)* try every way to split a name"};
  return error{where + message_of(found)};
}

}  // namespace quantal
