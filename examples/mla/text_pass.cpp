#include "text_pass.hpp"

#include <algorithm>

#include "layer_stream.hpp"
#include "session.hpp"

namespace quantal::mla {
namespace {

/// One chunk through a model in memory.
result<void> run_chunk(session& s, std::span<const std::int32_t> tokens, std::int64_t first_token,
                       const pass_options& o, std::int64_t vocabulary, std::vector<float>& logits,
                       observer* watch) {
  const auto n = static_cast<std::int64_t>(tokens.size());
  const std::int64_t batch = o.batch > 0 ? std::min(o.batch, n) : n;
  s.clear();
  for (std::int64_t at = 0; at < n; at += batch) {
    const std::int64_t end = std::min(at + batch, n), first = std::max(at, o.first_logits);
    if (watch) watch->start_at(first_token + at);
    auto into = std::span(logits);
    into = o.logits && first < end
               ? into.subspan(static_cast<std::size_t>((first - o.first_logits) * vocabulary))
               : std::span<float>();
    if (auto r = s.evaluate(tokens.subspan(static_cast<std::size_t>(at), static_cast<std::size_t>(end - at)),
                            into, first - at, watch);
        !r)
      return r;
  }
  return {};
}

/// Answers the operations of all products.
result<double> run_resident(const model& m, const chunk_source& text, const runtime::dispatcher& arch,
                            executor_ref executor, const pass_options& o, progress& bar, observer* watch,
                            const chunk_sink& sink) {
  session s(m, arch, executor, text.size, o.how);
  std::vector<float> logits(
      o.logits ? static_cast<std::size_t>((text.size - o.first_logits) * m.hyper.vocabulary) : 0);
  for (std::int64_t i = 0; i < text.count; ++i) {
    const auto in_chunk = [&](const error& e) {
      return error{"chunk " + std::to_string(i) + ": " + e.message};
    };
    if (auto r = run_chunk(s, text.tokens(i), i * text.size, o, m.hyper.vocabulary, logits, watch); !r)
      return in_chunk(r.error());
    const auto note = sink(i, logits);
    if (!note) return in_chunk(note.error());
    bar.update(i + 1, *note);
  }
  return s.operations();
}

}  // namespace

chunk_source chunks_of(const corpus& text) {
  return {text.chunks, text.size, [&text](std::int64_t i) { return text.chunk(i); }};
}

std::int64_t pass_steps(const model& m, std::int64_t chunks) {
  return m.streamed ? (m.hyper.layers + 1) * chunks : chunks;
}

result<pass_report> run_text(const model& m, const chunk_source& text, const runtime::dispatcher& arch,
                             executor_ref executor, const pass_options& options, progress& bar,
                             observer* watch, const chunk_sink& sink) {
  if (m.streamed) {
    layer_stream s(m, text, arch, executor, options, bar);
    if (auto r = s.run(watch, sink); !r) return r.error();
    return s.report();
  }
  const auto operations = run_resident(m, text, arch, executor, options, bar, watch, sink);
  if (!operations) return operations.error();
  pass_report report;
  report.operations = *operations;
  report.tokens = text.count * text.size, report.blocks = m.hyper.layers;
  report.seconds = report.compute = bar.elapsed();
  return report;
}

}  // namespace quantal::mla
