// Splits text into the words that BPE works on: a list of regular expressions, each splitting the pieces that the
// one before it left whole.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quantal/result.hpp"

namespace quantal::mla {

class pretokenizer {
 public:
  /// `name`: the value of tokenizer.ggml.pre. Unknown names are an error that lists the known ones.
  static result<pretokenizer> named(std::string_view name);

  /// The name of the pre-tokenizer with these expressions, or nothing. Characters may be spelled as themselves or as
  /// \x{...}, \xhh, \uhhhh.
  static std::optional<std::string> recognise(const std::vector<std::string>& patterns);
  /// "gpt-2, deepseek-llm, ...".
  static std::string known_names();

  pretokenizer(pretokenizer&&) noexcept;
  ~pretokenizer();

  /// Pieces in order; their concatenation is the text. Views into `text`.
  std::vector<std::string_view> split(std::string_view text) const;

 private:
  struct pattern;
  pretokenizer();
  std::vector<std::unique_ptr<pattern>> patterns_;
};

}  // namespace quantal::mla
