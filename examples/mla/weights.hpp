// The tensors of a deepseek2 model as the forward pass uses them, checked against the metadata when they are loaded.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::mla {

/// One or several (heads, experts) matrices of the same shape, row by row in memory.
struct matrix {
  std::string name;  ///< of the tensor in the file that the statistics belong to
  std::uint32_t format = 0;
  const std::byte* data = nullptr;
  std::int64_t cols = 0, rows = 0, slices = 1;
  std::int64_t row_stride = 0, slice_stride = 0;  ///< bytes
  std::shared_ptr<std::vector<std::byte>> owned;  ///< derived matrices own their bytes
  gguf::tensor_scale scale;                       ///< multiplies products, by slice

  explicit operator bool() const noexcept { return data != nullptr; }
};

struct layer {
  std::vector<float> attn_norm, q_a_norm, kv_a_norm, ffn_norm;
  matrix q, q_a, q_b, kv_a;  ///< q without, q_a and q_b with a query low-rank projection
  matrix k_b, v_b, kv_b;     ///< what the file holds; all three once the layer is complete
  matrix attn_output;
  matrix gate, up, down;  ///< dense blocks
  matrix router;
  std::vector<float> router_bias;  ///< empty: none
  matrix gate_exps, up_exps, down_exps;
  matrix gate_shexp, up_shexp, down_shexp;
};

struct weights {
  matrix token_embd, output;
  std::vector<float> output_norm;
  std::vector<layer> layers;
};

/// Finds and checks every tensor; of the matrices, nothing is read.
result<weights> load_weights(const gguf::reader& file, const config& c);
/// Derives attn_kv_b from attn_k_b and attn_v_b or the reverse (mla.md section 1.1): float32, so nothing is rounded
/// again. Until then a layer cannot run.
result<void> complete_layer(const gguf::reader& file, const config& c, std::int64_t number, layer& l);

}  // namespace quantal::mla
