// A text as the chunks that calibration and perplexity run on (imatrix.md section 1, quantize.md section 8).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"
#include "tokenizer.hpp"

namespace quantal::mla {

/// A chunk as the model sees it: BOS takes the place of the first token where the model asks for it. Files of reference
/// logits hold the tokens before that. The one place that knows this, for every program.
std::vector<std::int32_t> evaluated_tokens(std::span<const std::int32_t> chunk,
                                           const special_tokens& special);

/// Consecutive chunks of `size` tokens; the incomplete tail is dropped.
struct corpus {
  std::vector<std::int32_t> tokens;
  std::int64_t size = 512;
  std::int64_t chunks = 0;
  special_tokens special;
  std::vector<std::string> notes;  ///< what is odd about the text

  /// The tokens of the text, and the ones to evaluate in their place.
  std::span<const std::int32_t> text_of(std::int64_t i) const {
    return std::span(tokens).subspan(static_cast<std::size_t>(i * size), static_cast<std::size_t>(size));
  }
  std::vector<std::int32_t> chunk(std::int64_t i) const { return evaluated_tokens(text_of(i), special); }
};

/// Tokenizes a whole file. `first` chunks are skipped, then at most `most` are kept (0: all).
result<corpus> load_corpus(const std::filesystem::path& path, const tokenizer& t, std::int64_t size,
                           std::int64_t first = 0, std::int64_t most = 0);

/// What is odd about the bytes of a text: UTF-16, byte order marks, bytes that are not UTF-8. It is tokenized as it is.
std::vector<std::string> text_notes(std::string_view text);

/// Empty, or that chunks are longer than what the model was trained on.
std::string context_note(const config& c, std::int64_t context);

/// "warning: FILE: WHAT" on stderr, for each.
void print_warnings(const std::string& file, const std::vector<std::string>& warnings);

}  // namespace quantal::mla
