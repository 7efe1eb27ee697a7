// tokenizer.json of the Hugging Face tokenizers library: BPE, byte-level or of pieces.
#pragma once

#include "vocabulary.hpp"

namespace quantal::hf {

/// Tokens are made of bytes, so that nothing but this file tells what they are.
bool is_byte_level(const document& tokenizer);

/// `where`: the file's name; `size`: entries that the model's embeddings have. Errors name the file and the
/// cause; an unknown pre-tokenizer is printed.
result<vocabulary> read_tokenizer_json(const document& tokenizer, const std::string& where,
                                       std::int64_t size);

/// `pieces` of another file, with the added tokens of this one and what it puts around a text.
result<vocabulary> add_to_pieces(const document& tokenizer, const std::string& where, vocabulary pieces);

}  // namespace quantal::hf
