#include "layer_stream.hpp"

#include <algorithm>
#include <chrono>

namespace quantal::mla {
namespace {

/// Tokens that go through a block together where memory allows: experts of the largest models then see hundreds.
constexpr std::int64_t tokens_at_once = 8192;

class stopwatch {
 public:
  explicit stopwatch(double& sum) : sum_(sum) {}
  ~stopwatch() { sum_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  double& sum_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace

std::vector<segment> parts_of(std::int64_t chunks, std::int64_t size, std::int64_t batch) {
  std::vector<segment> parts;
  for (std::int64_t c = 0; c < chunks; ++c)
    for (std::int64_t at = 0; at < size; at += batch)
      parts.push_back({c * size + at, std::min(batch, size - at), at});
  return parts;
}

std::int64_t chunks_together(const config& c, const run_options& how, std::int64_t size, std::uint64_t ram,
                             bool all_experts) {
  std::int64_t tokens = tokens_at_once;
  const auto bytes = 4 * forward::scratch_per_token(c, how, all_experts);
  if (ram > 0) tokens = std::min(tokens, static_cast<std::int64_t>(ram / 4) / bytes);
  return std::max<std::int64_t>(1, tokens / size);
}

byte_ranges bytes_of(const model& m, std::int64_t block) {
  byte_ranges ranges;
  const std::string prefix = "blk." + std::to_string(block) + ".";
  for (const auto& t : m.file->tensors())
    if (t.name.starts_with(prefix))
      if (const auto bytes = m.file->data(t)) ranges.push_back(*bytes);
  return ranges;
}

layer_stream::layer_stream(const model& m, const chunk_source& text, const runtime::dispatcher& arch,
                           executor_ref executor, const pass_options& options, progress& bar)
    : model_(m),
      text_(text),
      options_(options),
      bar_(bar),
      run_(m, arch, executor, text.size, options.how),
      larger_than_ram_(options.ram > 0 && m.bytes() > options.ram / 2) {}

result<void> layer_stream::run(observer* watch, const chunk_sink& sink) {
  const stopwatch all(report_.seconds);
  report_.tokens = text_.count * text_.size;
  // A quarter of the memory is for hidden states; weights and scratch take the rest.
  std::optional<hidden_states> own;
  if (!options_.hidden) {
    auto made =
        hidden_states::temporary(text_.count * floats_per_chunk(),
                                 options_.ram > 0 ? options_.ram / 4 : ~std::uint64_t{0}, options_.scratch);
    if (!made) return made.error();
    own.emplace(std::move(*made));
  }
  hidden_states& h = own ? *own : *options_.hidden;
  read(options_.first_block);
  if (options_.first_block == 0)
    if (auto r = embed(h); !r) return r;
  for (std::int64_t b = options_.first_block; b < model_.hyper.layers; ++b)
    if (auto r = run_block(b, h, watch); !r) return r;
  reader_.wait();
  report_.bytes = reader_.bytes(), report_.reading = reader_.seconds();
  report_.operations = run_.work().operations();
  return run_output(h, watch, sink);
}

result<void> layer_stream::embed(hidden_states& h) {
  const stopwatch watch(report_.embedding);
  for (std::int64_t i = 0; i < text_.count; ++i)
    if (auto r = run_.embed(text_.tokens(i), h.before().data() + i * floats_per_chunk()); !r)
      return in_chunk(i, r.error());
  return {};
}

result<void> layer_stream::run_block(std::int64_t block, hidden_states& h, observer* watch) {
  layer l = model_.tensors.layers[static_cast<std::size_t>(block)];
  {
    const stopwatch waiting(report_.waiting);
    reader_.wait();
  }
  read(block + 1);
  {
    const stopwatch computing(report_.compute);
    if (auto r = complete_layer(*model_.file, model_.hyper, block, l); !r) return r;
    const std::int64_t most = chunks_at_once(watch && watch->wants_all_experts());
    for (std::int64_t i = 0; i < text_.count; i += most) {
      const std::int64_t chunks = std::min(most, text_.count - i), at = i * floats_per_chunk();
      float* const rows = h.after().data() + at;
      if (h.after().data() != h.before().data())
        std::copy_n(h.before().data() + at, chunks * floats_per_chunk(), rows);
      if (auto r = run_batch(block, l, i, chunks, rows, watch); !r) return r;
      show(block, i + chunks);
    }
  }
  release_pages(bytes_of(model_, block), larger_than_ram_);
  ++report_.blocks;
  const stopwatch keeping(report_.keeping);
  if (auto r = h.advance(); !r) return r;
  return options_.after_block ? options_.after_block(block) : result<void>{};
}

result<void> layer_stream::run_batch(std::int64_t block, const layer& l, std::int64_t first,
                                     std::int64_t chunks, float* h, observer* watch) {
  const std::int64_t n = chunks * text_.size,
                     batch_size = options_.batch > 0 ? std::min(options_.batch, text_.size) : text_.size;
  const auto parts = parts_of(chunks, text_.size, batch_size);
  cache_.reserve(model_.hyper, options_.how, n, text_.size);
  if (watch) watch->start_at(first * text_.size);
  if (auto r = run_.block(block, l, {h, n, parts, &cache_}, watch); !r) return in_chunk(first, r.error());
  return {};
}

result<void> layer_stream::run_output(hidden_states& h, observer* watch, const chunk_sink& sink) {
  const stopwatch timing(report_.output);
  const std::int64_t most = chunks_at_once(watch && watch->wants_all_experts()),
                     rows = text_.size - options_.first_logits;
  std::vector<float> logits(options_.logits ? static_cast<std::size_t>(rows * model_.hyper.vocabulary) : 0);
  for (std::int64_t first = 0; first < text_.count; first += most) {
    const std::int64_t chunks = std::min(most, text_.count - first);
    const auto parts = parts_of(chunks, text_.size, text_.size);
    if (watch) watch->start_at(first * text_.size);
    if (auto r =
            run_.output(h.before().data() + first * floats_per_chunk(), parts, chunks * text_.size, watch);
        !r)
      return in_chunk(first, r.error());
    for (std::int64_t i = 0; i < chunks; ++i) {
      if (!logits.empty())
        if (auto r = run_.logits(i * text_.size + options_.first_logits, rows, logits); !r)
          return in_chunk(first, r.error());
      const auto note = sink(first + i, logits);
      if (!note) return error{"chunk " + std::to_string(first + i) + ": " + note.error().message};
      bar_.update(model_.hyper.layers * text_.count + first + i + 1, *note);
    }
  }
  return {};
}

/// Beyond a quarter of the memory, what is read ahead would push out what is in use.
void layer_stream::read(std::int64_t block) {
  if (block < model_.hyper.layers)
    reader_.start(bytes_of(model_, block), options_.ram > 0 ? options_.ram / 4 : ~std::uint64_t{0});
}

std::int64_t layer_stream::chunks_at_once(bool all_experts) const {
  if (options_.chunks_at_once > 0) return options_.chunks_at_once;
  return chunks_together(model_.hyper, options_.how, text_.size, options_.ram, all_experts);
}

/// `first`: of the batch; the row that failed says which chunk of it.
error layer_stream::in_chunk(std::int64_t first, const error& e) const {
  const std::int64_t row = std::max<std::int64_t>(0, run_.work().failed_row());
  return {"chunk " + std::to_string(first + row / text_.size) + ": " + e.message};
}

void layer_stream::show(std::int64_t block, std::int64_t chunks) {
  const double seconds = std::max(1e-9, bar_.elapsed());
  const std::int64_t steps = block * text_.count + chunks, done = steps - options_.first_block * text_.count;
  bar_.update_logged(
      steps, text::format(
                 "layer %lld of %lld  %.1f tokens/s  %s/s", static_cast<long long>(block + 1),
                 static_cast<long long>(model_.hyper.layers),
                 static_cast<double>(done * text_.size) / seconds / static_cast<double>(model_.hyper.layers),
                 text::human_size(static_cast<std::uint64_t>(static_cast<double>(reader_.bytes()) / seconds))
                     .c_str()));
}

}  // namespace quantal::mla
