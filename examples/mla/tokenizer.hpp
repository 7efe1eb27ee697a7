// Byte-level BPE from GGUF metadata (gguf.md section 4).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "quantal/gguf/metadata.hpp"

namespace quantal::mla {

/// What stands for each byte in byte-level vocabularies, as UTF-8: printable Latin-1 for itself, the other bytes for
/// code points numbered from 256 on.
std::array<std::string, 256> byte_symbols();

/// Tokens that stand at the ends of a text or of a chunk although the text does not hold them.
struct special_tokens {
  std::int32_t bos = -1, eos = -1;  ///< -1: none
  bool add_bos = false, add_eos = false;
  std::vector<std::string> warnings;  ///< keys that are missing, and what was taken instead

  /// Takes the place of the first token of every chunk; -1: nothing does.
  std::int32_t chunk_start() const noexcept { return add_bos ? bos : -1; }
};

/// Reads tokenizer.ggml.{bos,eos}_token_id and add_{bos,eos}_token; ids lie below `vocabulary`. A model needs no other
/// tokenizer key for this. Errors name the key.
result<special_tokens> read_special_tokens(const gguf::metadata& meta, std::int64_t vocabulary);

class tokenizer {
 public:
  /// Reads tokenizer.ggml.*; errors name the key. Pre-tokenizers: those of pretokenizer.hpp.
  static result<tokenizer> from_gguf(const gguf::metadata& meta);

  tokenizer(tokenizer&&) noexcept;
  tokenizer& operator=(tokenizer&&) noexcept;
  ~tokenizer();

  /// Token ids of UTF-8 text; invalid bytes are tokenized byte by byte. `add_special` adds BOS/EOS where the model's
  /// metadata asks for them; `parse_special` recognises control tokens written out in the text.
  std::vector<std::int32_t> encode(std::string_view text, bool add_special = false,
                                   bool parse_special = false) const;
  /// The bytes of these tokens; unknown ids are skipped.
  std::string decode(const std::vector<std::int32_t>& ids) const;

  const special_tokens& special() const noexcept;
  /// Keys that are missing, and what was taken instead.
  const std::vector<std::string>& warnings() const noexcept;
  std::int32_t bos() const noexcept;  ///< -1: none
  bool adds_bos() const noexcept;
  std::int64_t size() const noexcept;

 private:
  struct state;
  explicit tokenizer(std::unique_ptr<state> s) noexcept;
  std::unique_ptr<state> s_;
};

}  // namespace quantal::mla
