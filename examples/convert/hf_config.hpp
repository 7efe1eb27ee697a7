// config.json of a checkpoint, checked before anything is computed with it.
#pragma once

#include <filesystem>
#include <string>

#include "families/family.hpp"

namespace quantal::hf {

/// Errors name the file, the key and the cause: a missing or absurd value, an unknown architecture, something
/// that its GGUF cannot say (another activation, half-split rotary pairs, scale types). `layout`: of models
/// with latent attention.
result<model_config> read_config(const std::filesystem::path& directory, mla::layout layout);

/// "9.9M": parameters as model cards count them.
std::string size_label(double parameters);

struct model_names {
  std::string name, license, size_label;  ///< empty: the key is left out
};

/// Every key of a bf16 file but the tokenizer's (gguf.md section 3).
gguf::metadata model_metadata(const model_config& c, const model_names& names);

}  // namespace quantal::hf
