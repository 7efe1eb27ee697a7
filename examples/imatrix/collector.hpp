// Collects importance statistics while a model runs (imatrix.md sections 1 and 7).
#pragma once

#include <map>
#include <string>
#include <vector>

#include "observer.hpp"
#include "quantal/imatrix/store.hpp"

namespace quantal::mla {

struct collector_options {
  bool output = false;       ///< record output.weight too
  bool all_experts = false;  ///< statistics of every expert on every token
  bool similarity = false;   ///< keep layer inputs for layer similarity
  bool exact = false;        ///< keep what sums lose to rounding (imatrix::entry::rest)
};

/// Mean cosine between the inputs of neighbouring parts, per block.
struct layer_similarity {
  struct mean {
    double sum = 0;
    std::int64_t n = 0;
    double value() const { return n ? sum / static_cast<double>(n) : 0; }
  };
  std::vector<mean> layer, attention, feed_forward;
};

/// Adds to raw float64 sums and int64 counts, in the order of the tokens: the result does not depend on threads.
class collector : public observer {
 public:
  explicit collector(collector_options o = {}) : options_(o) {}

  /// Continues from statistics collected earlier.
  void resume(imatrix::store s) { store_ = std::move(s); }
  /// Call it before looking at exact sums.
  void settle();
  const imatrix::store& statistics() const noexcept { return store_; }
  imatrix::store& statistics() noexcept { return store_; }
  const layer_similarity& similarity() const noexcept { return similarity_; }

  void start_at(std::int64_t token) override { batch_ = token; }
  result<void> on_mul_mat(const matrix_input& in) override;
  result<void> on_mul_mat_id(const expert_input& in) override;
  bool wants_all_experts() const override { return options_.all_experts; }

 private:
  result<imatrix::entry*> entry_for(std::string_view name, std::int64_t cols, std::int64_t slices);
  void note_layer_input(const matrix_input& in);

  collector_options options_;
  imatrix::store store_;
  layer_similarity similarity_;
  /// By the first token of their batch, from its first block to its output.
  struct inputs {
    std::vector<float> layer, feed_forward;
  };
  std::map<std::int64_t, inputs> inputs_;
  std::int64_t batch_ = 0;
};

}  // namespace quantal::mla
