// One sequence through a model that is in memory: a key-value cache for every block.
#pragma once

#include <memory>

#include "forward.hpp"

namespace quantal::mla {

/// Not thread-safe; parallel inside through the executor. The results do not depend on the executor.
class session {
 public:
  /// `context`: most tokens the cache holds. The model is not streamed.
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

  /// Multiplications and additions of all products so far.
  double operations() const noexcept;

  /// Experts that the last evaluate chose in a block, [tokens, used], best first; empty for dense blocks. For tests.
  std::span<const std::int32_t> chosen_experts(std::int64_t block) const;

 private:
  struct state;
  std::unique_ptr<state> s_;
};

}  // namespace quantal::mla
