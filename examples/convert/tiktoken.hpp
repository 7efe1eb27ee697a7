// tiktoken.model as Kimi-K2 has it: a line "base64 rank" per token; merges follow from the ranks.
#pragma once

#include "vocabulary.hpp"

namespace quantal::hf {

/// The tokens in order of rank as raw bytes. Errors name the file and the line: bad base64, ranks that are
/// not 0, 1, 2..., a token twice, more than `most` tokens, a missing single byte.
result<std::vector<std::string>> read_tiktoken(const std::filesystem::path& path, std::int64_t most);

/// Bytes as the symbols that tokens of a GGUF are made of.
std::string in_symbols(const std::string& bytes);

/// Every single byte must be a token, and no token may be there twice.
result<void> check_bytes(const std::vector<std::string>& tokens);

/// The pair of tokens that each token of two bytes or more is merged from: what byte-pair merging makes of
/// its bytes with tokens of lower rank only. Tokens that this does not leave in two pieces are counted in
/// `unreachable` and get no merge.
std::vector<std::pair<std::string, std::string>> merges_of(const std::vector<std::string>& tokens,
                                                           std::size_t& unreachable);

/// The vocabulary of tiktoken.model with the special tokens of tokenizer_config.json behind it, kimi-k2's
/// pre-tokenizer and reserved names for the numbers that nobody names.
result<vocabulary> read_kimi_vocabulary(const std::filesystem::path& directory,
                                        const document& tokenizer_config, std::int64_t size,
                                        std::vector<std::string>& notices);

}  // namespace quantal::hf
