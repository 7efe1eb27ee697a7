// All tensors of a Hugging Face checkpoint directory: one safetensors file, or shards named by an index.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "safetensors.hpp"

namespace quantal::hf {

class checkpoint {
 public:
  /// Reads NAME.safetensors.index.json and its shards, or NAME.safetensors, or the one *.safetensors there
  /// is. Errors: what safetensors_file refuses, a shard or a tensor of the index that is missing, a tensor in
  /// two shards, a shard name that leaves the directory.
  static result<checkpoint> open(const std::filesystem::path& directory, const std::string& name = "model");

  struct place {
    const stored_tensor* tensor;
    const safetensors_file* file;
  };

  const std::filesystem::path& directory() const noexcept { return directory_; }
  const std::vector<safetensors_file>& files() const noexcept { return files_; }
  /// In the order of files and of bytes in them.
  const std::vector<place>& tensors() const noexcept { return tensors_; }
  /// Null if there is no such tensor.
  const place* find(std::string_view name) const;
  /// Tensors that the shards hold and the index does not list; they are not part of the model.
  const std::vector<std::string>& unlisted() const noexcept { return unlisted_; }

 private:
  result<void> add_tensors(const std::unordered_map<std::string, std::string>* listed);

  std::filesystem::path directory_;
  std::string index_name_;
  std::vector<safetensors_file> files_;
  std::vector<place> tensors_;
  std::unordered_map<std::string, std::size_t> by_name_;
  std::vector<std::string> unlisted_;
};

/// "FILE: tensor 'NAME'", the start of messages.
std::string describe(const checkpoint::place& p);

}  // namespace quantal::hf
