// Which tensors of a checkpoint make up which tensor of a deepseek2 GGUF (mla.md section 1).
#pragma once

#include <string>
#include <vector>

#include "hf_config.hpp"
#include "quantal/gguf/tensor_info.hpp"

namespace quantal::hf {

/// How a GGUF tensor comes out of stored matrices.
enum class assembly {
  matrix,        ///< one matrix, row by row
  vector,        ///< one vector, as f32
  stack,         ///< one matrix per expert, a slice each
  keys,          ///< attn_k_b: per head, the transpose of the first rows of kv_b_proj
  values,        ///< attn_v_b: per head, the remaining rows of kv_b_proj
  scales,        ///< what the encoded parts are multiplied by, one f32 each
  input_scales,  ///< what their inputs are divided by, one f32 each
};

struct mapped_tensor {
  gguf::tensor_info out;  ///< type bf16 for matrices; f32 for vectors and the router
  assembly how;
  std::vector<std::string> parts;  ///< names in the checkpoint
  std::int64_t rows, cols;         ///< of every part; a vector has one row
};

/// What names in the checkpoint begin with; wrappers put theirs before it.
struct name_prefixes {
  std::string body = "model.";   ///< of "model.layers.0..."
  std::string head = "lm_head";  ///< of the output matrix
};

/// Every tensor of the model in file order.
std::vector<mapped_tensor> map_tensors(const model_config& c, mla::layout to, const name_prefixes& from);

/// Tensors of a checkpoint that no GGUF has: layers behind the last (next-token prediction), rotary tables,
/// an output matrix that is tied to the embeddings, the indexer of sparse attention, the vision tower and the
/// like of a wrapper, scales of activations and of the KV cache.
bool is_dropped(const std::string& name, const model_config& c, const name_prefixes& from);

}  // namespace quantal::hf
