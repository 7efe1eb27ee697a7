// Names of the files of a split model: PREFIX-00001-of-00003.gguf.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace quantal {

struct shard_name {
  std::string prefix;
  int number = 1, count = 1;  ///< from 1
};

/// Nothing for other names.
std::optional<shard_name> parse_shard_name(const std::string& path);

/// PREFIX-00001-of-0000N.gguf and so on.
std::vector<std::filesystem::path> shard_files(const std::string& prefix, int count);

}  // namespace quantal
