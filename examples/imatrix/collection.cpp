#include "collection.hpp"

#include <cmath>
#include <memory>

namespace quantal::mla {
namespace {

/// What a block leaves: its second moments leave the memory.
result<void> keep_block(stream_state& state, std::int64_t block, int hidden, collector& c,
                        moments_collector* moments) {
  c.settle();
  if (moments)
    if (auto r = imatrix::save_moments(moments->take(), state.moments(block)); !r) return r;
  return state.keep(block + 1, hidden, c.statistics());
}

/// Second moments of all blocks from the files of the state.
result<imatrix::moments_source> kept_moments(const stream_state& state) {
  auto files = std::make_shared<std::vector<imatrix::moments_file>>();
  auto file_of = std::make_shared<std::map<std::string, std::size_t>>();
  imatrix::moments_source all;
  for (std::int64_t b = 0; b < state.blocks(); ++b) {
    auto file = imatrix::moments_file::open(state.moments(b));
    if (!file) return file.error();
    for (const auto& name : file->names()) {
      const auto counts = file->counts(name);
      if (!counts) return counts.error();
      all.shapes.emplace(name, std::pair(counts->cols, static_cast<std::int64_t>(counts->used.size())));
      file_of->emplace(name, files->size());
    }
    all.same.insert(file->same().begin(), file->same().end());
    files->push_back(std::move(*file));
  }
  all.read = [files, file_of](const std::string& name) { return (*files)[file_of->at(name)].read(name); };
  return all;
}

/// Statistics of a state belong to this run, and to blocks that the model has.
result<void> check_kept(const imatrix::store& kept, const imatrix::store& now, std::int64_t blocks,
                        std::int64_t layers, const std::filesystem::path& state) {
  if (blocks <= layers && kept.datasets == now.datasets && kept.chunks == now.chunks &&
      kept.chunk_size == now.chunk_size)
    return {};
  return error{state.string() + ": is damaged; remove the folder to begin anew"};
}

void add_scores(const corpus& text, std::int64_t chunk, std::span<const float> logits, running_mean& nll) {
  const std::int64_t first = first_scored(text.size);
  const auto tokens = text.chunk(chunk);
  const auto vocabulary = static_cast<std::int64_t>(logits.size()) / (text.size - first);
  for (std::int64_t t = first; t + 1 < text.size; ++t) {
    const float* row = logits.data() + (t - first) * vocabulary;
    nll.add(log_sum_exp(row, vocabulary) - row[tokens[static_cast<std::size_t>(t + 1)]]);
  }
}

}  // namespace

result<collection> collect(const model& m, const corpus& text, collector& c, moments_collector* moments,
                           executor_ref threads, const collection_options& o) {
  collection out;
  pass_options pass;
  pass.how = o.how, pass.batch = o.batch, pass.ram = o.ram, pass.scratch = o.scratch;
  pass.logits = o.perplexity, pass.first_logits = first_scored(text.size);
  std::optional<hidden_states> hidden;
  if (m.streamed && !o.state.empty()) {
    auto state = stream_state::open(o.state, o.identity);
    if (!state) return state.error();
    out.state.emplace(std::move(*state));
    auto kept =
        hidden_states::kept(text.chunks * text.size * m.hyper.embedding, o.state, out.state->hidden());
    if (!kept) return kept.error();
    hidden.emplace(std::move(*kept));
    pass.hidden = &*hidden, pass.first_block = out.state->blocks();
    if (pass.first_block > 0) {
      auto before = out.state->statistics();
      if (!before) return before.error();
      if (auto r = check_kept(*before, c.statistics(), pass.first_block, m.hyper.layers, o.state); !r)
        return r.error();
      c.resume(std::move(*before));
      std::fprintf(stderr, "going on from %s, after %lld of %lld blocks\n", o.state.c_str(),
                   static_cast<long long>(pass.first_block), static_cast<long long>(m.hyper.layers));
    }
    pass.after_block = [&](std::int64_t b) {
      return keep_block(*out.state, b, hidden->current(), c, moments);
    };
  }
  std::optional<observers> both;
  if (moments) both.emplace(c, *moments);
  progress bar("collecting", pass_steps(m, text.chunks));
  const auto after_chunk = [&](std::int64_t i, std::span<const float> logits) -> result<std::string> {
    if (!logits.empty()) add_scores(text, i, logits, out.nll);
    if (!std::isfinite(std::exp(out.nll.mean())))
      return error{"the perplexity is not finite; --no-ppl collects without it"};
    if (!m.streamed && o.after_chunk)
      if (auto r = o.after_chunk(i + 1); !r) return r.error();
    return out.nll.count() ? "ppl " + text::format("%.4f", std::exp(out.nll.mean())) : std::string();
  };
  auto report = run_text(m, chunks_of(text), runtime::dispatcher::best(), threads, pass, bar,
                         both ? static_cast<observer*>(&*both) : &c, after_chunk);
  if (!report) return report.error();
  out.pass = *report;
  c.settle();
  if (!moments) return out;
  if (!out.state) {
    out.moments = imatrix::source_of(moments->take());
    return out;
  }
  auto kept = kept_moments(*out.state);
  if (!kept) return kept.error();
  out.moments = std::move(*kept);
  return out;
}

}  // namespace quantal::mla
