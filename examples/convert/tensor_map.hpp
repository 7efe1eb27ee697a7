// Which tensors of a checkpoint make up which tensor of its GGUF: the rows of the family's table, block by
// block.
#pragma once

#include <string>
#include <vector>

#include "families/family.hpp"
#include "quantal/gguf/tensor_info.hpp"
#include "stored_matrix.hpp"

namespace quantal::hf {

struct mapped_tensor {
  gguf::tensor_info out;  ///< type bf16 for matrices; f32 for vectors and the router
  assembly how;
  order taken;
  bool plus_one;
  std::vector<std::string> parts;  ///< names in the checkpoint
  matrix_shape shape;              ///< of every part
};

/// What names in the checkpoint begin with; wrappers put theirs before it.
struct name_prefixes {
  std::string body = "model.";   ///< of "model.layers.0..."
  std::string head = "lm_head";  ///< of the output matrix
};

/// Every tensor of the model in file order.
std::vector<mapped_tensor> map_tensors(const model_config& c, const name_prefixes& from);

/// Tensors of a checkpoint that no GGUF has: layers behind the last (next-token prediction), rotary tables,
/// an output matrix that is tied to the embeddings, the indexer of sparse attention, the vision tower and the
/// like of a wrapper, scales of activations and of the KV cache.
bool is_dropped(const std::string& name, const model_config& c, const name_prefixes& from);

}  // namespace quantal::hf
