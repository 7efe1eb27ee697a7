// The tokenizer files of a checkpoint as the tokenizer.* keys of a GGUF (gguf.md section 4).
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "hf_config.hpp"

namespace quantal::hf {

/// Token types as GGUF numbers them.
enum class token_type : std::int32_t {
  normal = 1,
  unknown = 2,
  control = 3,
  user_defined = 4,
  unused = 5,
  byte = 6
};

struct vocabulary {
  std::string pre;                  ///< name of the pre-tokenizer
  std::vector<std::string> tokens;  ///< by number; bytes as symbols
  std::vector<std::int32_t> types;  ///< token_type of each
  std::vector<std::string> merges;  ///< "left right", best first

  /// Makes room for `n` tokens; numbers that nobody names are unused.
  explicit vocabulary(std::size_t n = 0);
  /// False if the number is taken by another token or out of range.
  bool put(std::size_t number, const std::string& token, token_type type);
  /// Names what is still unused "[PADn]".
  void fill();

 private:
  std::vector<bool> taken_;
};

/// Adds the keys for `directory` to `meta`, from tokenizer.json or tiktoken.model, tokenizer_config.json and
/// chat_template.jinja. Errors name the file and what it holds that a GGUF tokenizer cannot do.
result<void> add_vocabulary(const std::filesystem::path& directory, const model_config& c,
                            gguf::metadata& meta, std::vector<std::string>& notices);

}  // namespace quantal::hf
