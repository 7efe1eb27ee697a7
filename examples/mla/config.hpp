// Hyper-parameters of a deepseek2 model (DeepSeek V2, V2-Lite, V3, Kimi-K2), read from GGUF metadata and checked
// before anything is computed with them (gguf.md section 3, mla.md).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "quantal/gguf/reader.hpp"

namespace quantal::mla {

enum class gating { softmax = 1, sigmoid = 2, softmax_selected = 3 };

struct yarn {
  double factor = 1.0;  ///< 1: plain RoPE
  double original_context = 4096;
  double log_multiplier = 0.0;  ///< 0.1 * mscale_all_dim
  double beta_fast = 32, beta_slow = 1;
  double ext_factor = 0;  ///< 1 if the scaling type is yarn
};

struct config {
  std::int64_t layers;  ///< blocks that run: block_count without the next-token-prediction ones
  std::int64_t embedding, vocabulary, context;
  std::int64_t heads;
  std::int64_t nope, rope, value;  ///< per head
  std::int64_t kv_rank;            ///< width of the shared latent
  std::int64_t q_rank;             ///< 0: no query low-rank projection
  std::int64_t dense_layers, dense_hidden;
  std::int64_t experts, experts_used, experts_shared, expert_hidden;
  std::int64_t groups = 1, groups_used = 1;
  gating gate = gating::softmax;
  bool normalise_weights = false;
  double weights_scale = 1.0;
  double rms_epsilon;
  double rope_base;
  yarn scaling;
  /// Queries at position p are multiplied by 1 + scale ln(1 + floor(p / length)) (Mistral Large 3); 0: they are not.
  double temperature_scale = 0;
  std::int64_t temperature_length = 1;
  /// Keys that the file lacks or that contradict its tensors, and what was taken instead. They decide what the model
  /// computes, so programs that run it print them.
  std::vector<std::string> warnings;

  std::int64_t key() const noexcept { return nope + rope; }
  /// Softmax scale: yarn's magnitude squared over sqrt(key width), also in absorbed form.
  double softmax_scale() const noexcept;
  /// What a query is multiplied by for its position.
  double temperature(std::int64_t position) const noexcept;
};

/// Reads and validates; errors name the file and the key.
result<config> read_config(const gguf::reader& file);

}  // namespace quantal::mla
