#include "session.hpp"

namespace quantal::mla {

struct session::state {
  state(const model& m, const runtime::dispatcher& arch, executor_ref executor, std::int64_t context,
        const run_options& options)
      : source(m),
        run(m, arch, executor, context, options),
        capacity(context),
        cache(m.tensors.layers.size()),
        chosen(m.tensors.layers.size()) {
    for (auto& c : cache) c.reserve(m.hyper, options, context, context);
  }

  result<void> evaluate(std::span<const std::int32_t> tokens, std::span<float> logits,
                        std::int64_t first_logits, observer* watch) {
    const auto n = static_cast<std::int64_t>(tokens.size());
    if (position + n > capacity)
      return run.work().at_file(std::to_string(position + n) + " tokens exceed the context of " +
                                std::to_string(capacity));
    float* h = grow(stream, n * source.hyper.embedding);
    if (auto r = run.embed(tokens, h); !r) return r;
    const segment all{0, n, position};
    for (std::size_t b = 0; b < cache.size(); ++b) {
      const auto number = static_cast<std::int64_t>(b);
      const batch rows{h, n, {&all, 1}, &cache[b], position};
      if (auto r = run.block(number, source.tensors.layers[b], rows, watch); !r) return r;
      if (number >= source.hyper.dense_layers) chosen[b].assign(run.chosen().begin(), run.chosen().end());
    }
    position += n;
    if (auto r = run.output(h, {&all, 1}, n, watch); !r || logits.empty()) return r;
    return run.logits(first_logits, n - first_logits, logits);
  }

  const model& source;
  forward run;
  std::int64_t capacity, position = 0;
  std::vector<block_cache> cache;
  std::vector<std::vector<std::int32_t>> chosen;
  buffer stream;
};

session::session(const model& m, const runtime::dispatcher& arch, executor_ref executor, std::int64_t context,
                 run_options options)
    : s_(std::make_unique<state>(m, arch, executor, context, options)) {}
session::~session() = default;
session::session(session&&) noexcept = default;

void session::clear() noexcept { s_->position = 0; }
double session::operations() const noexcept { return s_->run.work().operations(); }
std::int64_t session::position() const noexcept { return s_->position; }

result<void> session::evaluate(std::span<const std::int32_t> tokens, std::span<float> logits,
                               std::int64_t first_logits, observer* watch) {
  return s_->evaluate(tokens, logits, first_logits, watch);
}

std::span<const std::int32_t> session::chosen_experts(std::int64_t block) const {
  return s_->chosen[static_cast<std::size_t>(block)];
}

}  // namespace quantal::mla
