// The forward pass (mla.md): embedding, one block, output. Each is a function over a batch of tokens, and the only
// place that computes it; who calls it decides what is in memory.
#pragma once

#include <span>
#include <vector>

#include "attention.hpp"
#include "model.hpp"
#include "multiplier.hpp"
#include "observer.hpp"
#include "rope.hpp"
#include "router.hpp"

namespace quantal::mla {

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

/// What the attention of one block keeps.
struct block_cache {
  buffer latent;        ///< [rows, kv_rank + rope]: normalised latent, then the rotated key all heads share
  buffer keys, values;  ///< mode 0: [heads, context, key], [heads, context, value], of one sequence at a time

  void reserve(const config& c, const run_options& o, std::int64_t rows, std::int64_t context);
};

/// Tokens that go through a block together.
struct batch {
  float* stream;  ///< [n, embedding], in and out
  std::int64_t n;
  std::span<const segment> parts;  ///< sequences one after the other, each in the order of its tokens
  block_cache* cache;
  std::int64_t cache_row = 0;  ///< of the batch's first row
};

/// Scratch of a run. Not thread-safe; parallel inside through the executor. No row depends on the executor or on the
/// rows of other sequences, bit for bit.
class forward {
 public:
  forward(const model& m, const runtime::dispatcher& arch, executor_ref executor, std::int64_t context,
          run_options options);

  /// h[n][embedding] of the tokens.
  result<void> embed(std::span<const std::int32_t> tokens, float* h);
  /// Block `number`, whose tensors are `l`.
  result<void> block(std::int64_t number, const layer& l, const batch& b, observer* watch);
  /// Its two halves, one after the other. Where the observer is done, the stream stays as it was.
  result<void> attention_half(const layer& l, const batch& b, observer* watch);
  result<void> feed_forward_half(std::int64_t number, const layer& l, const batch& b, observer* watch);
  /// What the output matrix sees of rows h[n]; h stays.
  result<void> output(const float* h, std::span<const segment> parts, std::int64_t n, observer* watch);
  /// Logits of some of these rows.
  result<void> logits(std::int64_t first, std::int64_t n, std::span<float> out);

  const multiplier& work() const noexcept { return products_; }
  /// Experts that the last block chose, [tokens, used], best first.
  std::span<const std::int32_t> chosen() const noexcept { return {chosen_.data(), chosen_size_}; }

  /// Floats of scratch that a token of a batch takes.
  static std::int64_t scratch_per_token(const config& c, const run_options& o, bool all_experts);

 private:
  struct attention_rows;
  struct half;

  half begin_half(const std::vector<float>& gain, const batch& b, observer* watch);
  void temper(std::int64_t position, float* q) const;
  result<void> attend(const layer& l, const batch& b, const float* x, float* out);
  result<void> queries(const layer& l, const float* x, std::int64_t n, float* q);
  result<void> attend_absorbed(const layer& l, const attention_rows& a);
  result<void> attend_materialised(const layer& l, const attention_rows& a);
  result<void> materialise(const layer& l, const attention_rows& a, std::int64_t from, std::int64_t stored,
                           float* keys, float* values);
  result<void> dense(const matrix& gate, const matrix& up, const matrix& down, const float* x, std::int64_t n,
                     float* out);
  result<void> experts(const layer& l, float* x, std::int64_t n, float* out);
  result<void> expert_hidden(const layer& l, const float* x, std::int64_t n,
                             const std::vector<std::int32_t>& ids, std::int64_t used, buffer& hidden);
  result<void> report_experts(const layer& l, const float* x, std::int64_t n, const std::int32_t* ids,
                              std::int64_t used);
  result<void> report_hidden(const layer& l, const float* hidden, std::int64_t n, const std::int32_t* ids,
                             std::int64_t used);
  result<void> report_other_experts(const layer& l, const float* x, std::int64_t n,
                                    std::vector<std::int32_t> ids);
  std::vector<std::int32_t> other_experts(std::int64_t n) const;
  bool seen_enough() const;
  result<void> observed(const matrix& m, const float* x, std::int64_t n, float* out);
  result<void> report(std::string_view name, const float* x, std::int64_t cols, std::int64_t n,
                      std::int64_t stride, std::int64_t slices = 1, std::int64_t slice_stride = 0);
  result<void> check_heads(const layer& l) const;
  void normalise(const float* h, const std::vector<float>& gain, std::int64_t n, float* out) const;
  void add(float* h, const float* y, std::int64_t n) const;
  template <class Body>
  void for_tokens(std::int64_t n, Body body) const;

  std::int64_t latent_width() const { return c_.kv_rank + c_.rope; }
  float scale() const { return static_cast<float>(c_.softmax_scale()); }

  const config& c_;
  const weights& tensors_;
  runtime::dispatcher arch_;
  executor_ref executor_;
  run_options options_;
  std::int64_t context_;
  multiplier products_;
  rope_table rope_;
  router route_;
  std::vector<attention> heads_;
  observer* watch_ = nullptr;
  std::vector<std::int32_t> chosen_;
  std::size_t chosen_size_ = 0;

  buffer normed_, block_out_, q_, q_low_, joint_, heads_out_, absorbed_, attended_, keys_, values_, up_;
  buffer gate_, up_hidden_, router_logits_, router_weights_, expert_out_;
};

}  // namespace quantal::mla
