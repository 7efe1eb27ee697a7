// The forward pass (mla.md): a model, a key-value cache and the modes in which attention can run.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "config.hpp"
#include "observer.hpp"
#include "products.hpp"
#include "quantal/executor.hpp"
#include "weights.hpp"

namespace quantal::mla {

struct model {
  std::unique_ptr<gguf::reader> file;
  config hyper;
  weights tensors;
};

/// Opens, validates and prepares a model; errors name the file and the tensor or key.
result<model> load_model(const std::filesystem::path& path);

struct run_options {
  /// 0: heads materialised through attn_kv_b and cached; 1: absorbed (attn_k_b, attn_v_b over the latent cache);
  /// 2, 3: absorbed for batches below 128 tokens, materialised from the latent cache for larger ones with `flash`.
  int mla = 1;
  /// Attention over tiles of keys with an online softmax instead of whole score rows. Mode 2 uses it for large
  /// batches only, mode 3 for all.
  bool flash = false;
  activation policy = activation::exact;
  /// Asked first for every product; null: the processor does all.
  products* device = nullptr;
};

/// One sequence. Not thread-safe; parallel inside through the executor. The results do not depend on the executor.
class session {
 public:
  /// `context`: most tokens the cache holds.
  session(const model& m, const runtime::dispatcher& arch, executor_ref executor, std::int64_t context,
          run_options options);
  ~session();
  session(session&&) noexcept;

  /// Forgets the sequence.
  void clear() noexcept;
  std::int64_t position() const noexcept;

  /// Appends tokens. `logits` receives vocabulary floats per token from `first_logits` on (empty: none are computed
  /// unless the observer watches). Errors: token out of range, context exceeded, whatever the observer answers.
  result<void> evaluate(std::span<const std::int32_t> tokens, std::span<float> logits,
                        std::int64_t first_logits = 0, observer* watch = nullptr);

  /// Experts that the last evaluate chose in a block, [tokens, used], best first; empty for dense blocks. For tests.
  std::span<const std::int32_t> chosen_experts(std::int64_t block) const;

 private:
  struct state;
  std::unique_ptr<state> s_;
};

}  // namespace quantal::mla
