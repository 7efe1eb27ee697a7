// A Hugging Face checkpoint seen as the GGUF that it converts to: rows are decoded when they are asked for,
// so that quantizing it and quantizing that GGUF are the same computation.
#pragma once

#include <filesystem>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "checkpoint.hpp"
#include "hf_config.hpp"
#include "quantal/gguf/input_scale.hpp"
#include "quantal/gguf/model_view.hpp"
#include "stored_matrix.hpp"
#include "tensor_map.hpp"

namespace quantal::hf {

/// What types the matrices of the model have.
enum class presentation : std::uint8_t {
  bf16,
  f32,      ///< for output types that can hold more than bf16
  natural,  ///< the type that holds a matrix as it is stored; bf16 if there is none
};

struct import_options {
  mla::layout layout = mla::layout::heads;
  std::string name;  ///< general.name; empty: the directory's
  presentation types = presentation::bf16;
};

class hf_model final : public gguf::model_view {
 public:
  /// Reads and checks everything but the weights themselves: configuration, tokenizer, and that every tensor
  /// of the model is there with its shape, type and scales, and none is left over.
  static result<hf_model> open(const std::filesystem::path& directory, const import_options& options);

  const std::string& path() const noexcept override { return path_; }
  const gguf::metadata& meta() const noexcept override { return meta_; }
  const std::vector<gguf::tensor_info>& tensors() const noexcept override { return tensors_; }
  const gguf::tensor_info* find(std::string_view name) const override;
  result<gguf::row_source> rows(const gguf::tensor_info& t) const override;

  /// What was ignored and why, for the user.
  const std::vector<std::string>& notices() const noexcept { return notices_; }
  const checkpoint& source() const noexcept { return source_; }
  /// Puts tensor `i` into the output file number `shard`.
  void place(std::size_t i, int shard) { tensors_[i].shard = shard; }

 private:
  explicit hf_model(checkpoint source) : source_(std::move(source)) {}
  /// Where in the checkpoint the language model is; what is missing is said when it is looked for.
  void find_prefixes();
  void decide_ties();
  result<void> take_tensors(const import_options& options);
  result<void> take(mapped_tensor t, presentation types);
  /// The scales beside matrix `m`, whose names end so.
  void take_scales(mapped_tensor m, assembly how, std::string_view end);
  result<std::vector<matrix_ptr>> parts_of(const mapped_tensor& t) const;
  result<void> check_leftovers();
  void set_file_type();

  std::string path_;
  checkpoint source_;
  model_config config_;
  name_prefixes prefixes_;
  bool natural_ = false;
  std::size_t rounded_ = 0;               ///< matrices of f16 or f32 that become bf16
  std::unordered_set<std::string> used_;  ///< tensors of the checkpoint that have a place
  gguf::metadata meta_;
  std::vector<mapped_tensor> mapped_;
  std::vector<gguf::tensor_info> tensors_;  ///< parallel to mapped_
  std::unordered_map<std::string, std::size_t> by_name_;
  std::vector<std::string> notices_;
};

}  // namespace quantal::hf
