// Mixes: which tensor departs from the base format of a file type, by the tensor's class, its place in the model and the
// model's architecture. The tables are facts about llama.cpp and ik_llama.cpp, found by dry runs of both on small models;
// tests/tools/data/plans holds what llama.cpp answered.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "file_types.hpp"
#include "quantal/gguf/metadata.hpp"
#include "quantal/gguf/tensor_info.hpp"

namespace quantal::plan {

/// What mixes need to know of a model.
struct model_traits {
  std::string architecture;
  std::int64_t blocks = 0;
  std::int64_t unrun_blocks = 0;  ///< the last ones, for next-token prediction: no forward pass reaches them
  std::int64_t heads = 0, kv_heads = 0;  ///< of the first block
  std::int64_t experts = 0;
  bool tied_embeddings = false;  ///< no output.weight: token_embd serves as it
};
model_traits traits_of(const gguf::metadata& meta, const std::vector<gguf::tensor_info>& tensors);

/// Whether the mixes were compared with llama.cpp's for this architecture.
bool is_known_architecture(std::string_view name);

/// Block number of "blk.17.x", or nothing.
std::optional<std::int64_t> block_index(std::string_view tensor_name);

/// What kind of matrix a tensor is, by its name.
enum class tensor_class : std::uint8_t {
  token_embd,
  output,
  attn_v,  ///< also attn_qkv and attn_kv_b, which hold V
  attn_k,
  attn_q,
  attn_qkv,  ///< ik_llama.cpp's mixes tell it from attn_v
  attn_output,
  ffn_gate,
  ffn_up,
  ffn_down,
  other,
  any,  ///< in rules only
};
tensor_class class_of(std::string_view name, dialect d, const model_traits& model);

/// Chooses the formats of a model's tensors one after the other: some rules count the tensors that pass.
class mixer {
 public:
  mixer(const file_type& type, dialect d, const model_traits& model, bool has_imatrix,
        const std::vector<gguf::tensor_info>& tensors);

  std::string_view choose(const gguf::tensor_info& tensor);

 private:
  std::uint32_t place(const gguf::tensor_info& tensor, tensor_class kind);

  const file_type& type_;
  dialect dialect_;
  const model_traits& model_;
  std::uint32_t facts_ = 0;              ///< those that hold for every tensor
  std::int64_t values_ = 0;              ///< tensors of class attn_v
  std::array<std::int64_t, 11> seen_{};  ///< tensors so far, per class
};

}  // namespace quantal::plan
