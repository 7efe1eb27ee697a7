// tokenizer.json of the Hugging Face tokenizers library: byte-level BPE only.
#pragma once

#include "vocabulary.hpp"

namespace quantal::hf {

/// `size`: entries that the model's embeddings have. Errors name the file and the cause; an unknown
/// pre-tokenizer is printed.
result<vocabulary> read_tokenizer_json(const std::filesystem::path& path, std::int64_t size);

}  // namespace quantal::hf
