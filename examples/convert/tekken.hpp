// tekken.json, the tokenizer of Mistral's own layout: bytes of tokens in order of rank, and special tokens before them.
#pragma once

#include "vocabulary.hpp"

namespace quantal::hf {

/// `size`: entries that the model's embeddings have. Errors name the file and the entry; an expression that no
/// known pre-tokenizer has is printed.
result<vocabulary> read_tekken(const std::filesystem::path& path, std::int64_t size);

/// What a tokenizer_config.json would say of the special tokens.
document tekken_names();

}  // namespace quantal::hf
