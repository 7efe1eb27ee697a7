// params.json, which Mistral's own checkpoints (consolidated.safetensors) have in place of a config.json.
#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "key_reader.hpp"
#include "quantization.hpp"

namespace quantal::hf {

/// The directory holds such a checkpoint, and none with a config.json.
bool has_native_layout(const std::filesystem::path& directory);

struct native_config {
  document config;         ///< what a config.json would say
  std::string class_name;  ///< of the model, likewise
  bool wrapped = false;    ///< there is a part that sees
  std::vector<std::string> notices;
  /// Keys of `config` and what params.json calls them, "moe.num_experts"; of several names first the one that this
  /// file has.
  std::vector<key_name> names;
};
/// Errors name the file and the key.
result<native_config> config_of_params(const document& params, const std::string& where);

/// Modules of a checkpoint, word by word, under the names that lists of a quantization_config may have for them.
std::span<const module_word> native_words();

}  // namespace quantal::hf
