// tokenizer.model of SentencePiece: a protobuf message with a piece per token.
#pragma once

#include <string_view>

#include "vocabulary.hpp"

namespace quantal::hf {

/// How pieces write a space: U+2581.
inline constexpr std::string_view space_mark = "\u2581";

/// The pieces with their scores and types, for `size` tokens; numbers behind them are free. Errors name the file and the piece: a message
/// that is cut off or contradicts itself, a piece twice or of no known type, more than `size` pieces, spaces
/// that are not written as U+2581, models of words or characters.
result<vocabulary> read_sentencepiece(const std::filesystem::path& path, std::int64_t size);

/// Whether a token stands for a byte: "<0x0A>".
bool is_byte_token(const std::string& token) noexcept;

}  // namespace quantal::hf
