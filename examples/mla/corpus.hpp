// A text as the chunks that calibration and perplexity run on (imatrix.md section 1, quantize.md section 8).
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "file.hpp"
#include "tokenizer.hpp"

namespace quantal::mla {

/// Consecutive chunks of `size` tokens; the incomplete tail is dropped.
struct corpus {
  std::vector<std::int32_t> tokens;
  std::int64_t size = 512;
  std::int64_t chunks = 0;
  std::int32_t bos = -1;  ///< overwrites the first token of every chunk; -1: not

  std::vector<std::int32_t> chunk(std::int64_t i) const {
    std::vector<std::int32_t> c(tokens.begin() + i * size, tokens.begin() + (i + 1) * size);
    if (bos >= 0) c[0] = bos;
    return c;
  }
};

/// Tokenizes a whole file. `first` chunks are skipped, then at most `most` are kept (0: all).
inline result<corpus> load_corpus(const std::filesystem::path& path, const tokenizer& t, std::int64_t size,
                                  std::int64_t first = 0, std::int64_t most = 0) {
  const auto text = file::read_text(path);
  if (!text) return text.error();
  corpus c;
  c.size = size;
  c.tokens = t.encode(*text, true);
  const auto n = static_cast<std::int64_t>(c.tokens.size());
  if (n < 2 * size)
    return error{path.string() + ": " + std::to_string(n) + " tokens are fewer than two chunks of " + std::to_string(size)};
  c.tokens.erase(c.tokens.begin(), c.tokens.begin() + std::min(n, first * size));
  c.chunks = static_cast<std::int64_t>(c.tokens.size()) / size;
  if (most > 0) c.chunks = std::min(c.chunks, most);
  if (c.chunks == 0) return error{path.string() + ": no chunk is left after skipping " + std::to_string(first)};
  c.bos = t.adds_bos() ? t.bos() : -1;
  return c;
}

}  // namespace quantal::mla
