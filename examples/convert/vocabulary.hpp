// The tokenizer files of a checkpoint as the tokenizer.* keys of a GGUF (gguf.md section 4).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
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
  std::string model = "gpt2";       ///< byte-level BPE; "llama": SentencePiece
  std::string pre;                  ///< name of the pre-tokenizer
  std::vector<std::string> tokens;  ///< by number; bytes as symbols
  std::vector<std::int32_t> types;  ///< token_type of each
  std::vector<std::string> merges;  ///< "left right", best first
  std::vector<float> scores;        ///< SentencePiece: in place of merges
  /// SentencePiece: a space is put before the text.
  std::optional<bool> add_space_prefix;
  /// Special tokens that stand around every text.
  std::string first, last;
  /// What was ignored and why, for the user.
  std::vector<std::string> notices;

  /// Of tokens that stand for nothing and of those that are found as a whole, not merged.
  static constexpr float unused_score = -10000, added_score = -1000;

  /// Makes room for `n` tokens; numbers that nobody names are unused.
  explicit vocabulary(std::size_t n = 0);
  /// False if the number is taken by another token or out of range.
  bool put(std::size_t number, const std::string& token, token_type type);
  /// A token that is found as a whole. One that is there keeps its score, and its type if it is one of a kind.
  /// One behind the last number of the model is left out with a notice: no row of its matrices is for it.
  bool put_added(std::size_t number, const std::string& token, bool is_control);
  /// Names what is still unused "[PADn]".
  void fill();

 private:
  std::vector<bool> taken_;
};

/// A token that tokenizer_config.json names by its number.
struct numbered_token {
  std::size_t number;
  std::string content;
  bool special;
};
/// added_tokens_decoder of tokenizer_config.json. Errors name the file and the entry.
result<std::vector<numbered_token>> decoder_tokens(const std::filesystem::path& directory,
                                                   const document& tokenizer_config);

/// Adds the keys for `directory` to `meta`, from tokenizer.json, tokenizer.model or tiktoken.model,
/// tokenizer_config.json, added_tokens.json and chat_template.jinja. Errors name the file and what it holds that a GGUF tokenizer cannot do.
result<void> add_vocabulary(const std::filesystem::path& directory, const model_config& c,
                            gguf::metadata& meta, std::vector<std::string>& notices);

}  // namespace quantal::hf
