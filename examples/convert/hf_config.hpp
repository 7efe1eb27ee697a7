// config.json of a DeepSeek V2, V3 or Kimi-K2 checkpoint, checked before anything is computed with it.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config.hpp"
#include "layout.hpp"
#include "strict_json.hpp"

namespace quantal::hf {

struct model_config {
  mla::config hyper{};
  bool tied_embeddings = false;
  /// Routing adds e_score_correction_bias, which the checkpoint must then have.
  bool routing_bias = false;
  /// Rows and columns that share one scale of an fp8 matrix.
  std::array<std::int64_t, 2> fp8_block{128, 128};
  /// Special tokens by number; tokenizer files may say more.
  std::optional<std::int64_t> bos, eos, pad;
  /// What was ignored and why, for the user.
  std::vector<std::string> notices;
};

/// Errors name the file, the key and the cause: a missing or absurd value, another architecture, something
/// that a deepseek2 GGUF cannot say (biases, another activation, half-split rotary pairs, scale types).
result<model_config> read_config(const std::filesystem::path& directory);

/// "9.9M": parameters as model cards count them.
std::string size_label(double parameters);

struct model_names {
  std::string name, license, size_label;  ///< empty: the key is left out
};

/// Every key of gguf.md section 3 for a bf16 file in the given layout; without the tokenizer's.
gguf::metadata model_metadata(const model_config& c, mla::layout to, const model_names& names);

}  // namespace quantal::hf
