// config.json of a checkpoint of the DeepSeek V2 and V3 families, checked before anything is computed with
// it.
#pragma once

#include <array>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "config.hpp"
#include "layout.hpp"
#include "quantization.hpp"
#include "strict_json.hpp"

namespace quantal::hf {

struct model_config {
  mla::config hyper{};
  quantization quantized;
  /// The checkpoint holds more than a language model (a vision tower, say), which is left out.
  bool wrapped = false;
  /// Attention of the checkpoint is sparse from this many tokens on; 0: never. The GGUF's is dense.
  std::int64_t sparse_from = 0;
  /// GLM: further end tokens are the end of a turn and of a message.
  bool is_glm = false;
  bool tied_embeddings = false;
  /// Routing adds e_score_correction_bias, which the checkpoint must then have.
  bool routing_bias = false;
  /// Special tokens by number; tokenizer files may say more.
  std::optional<std::int64_t> bos, eos, pad, eot, eom;
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
