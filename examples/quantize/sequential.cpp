#include "sequential.hpp"

#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <vector>

#include "corpus.hpp"
#include "layer_stream.hpp"
#include "memory.hpp"
#include "paired_collector.hpp"
#include "text.hpp"
#include "tokenizer.hpp"

namespace quantal::plan {
namespace {

enum class half : std::uint8_t { attention, feed_forward };

/// Tensors whose inputs do not depend on each other.
struct stage {
  half of;
  std::vector<std::string_view> tensors;
};

const std::array<stage, 8>& stages() {
  static const std::array<stage, 8> all{{
      {half::attention, {"attn_q", "attn_q_a", "attn_kv_a_mqa"}},
      {half::attention, {"attn_q_b"}},
      {half::attention, {"attn_k_b", "attn_kv_b"}},
      {half::attention, {"attn_v_b"}},
      {half::attention, {"attn_output"}},
      {half::feed_forward, {"ffn_gate_inp"}},
      {half::feed_forward,
       {"ffn_gate", "ffn_up", "ffn_gate_shexp", "ffn_up_shexp", "ffn_gate_exps", "ffn_up_exps",
        "ffn_gate_up_exps"}},
      {half::feed_forward, {"ffn_down", "ffn_down_shexp", "ffn_down_exps"}},
  }};
  return all;
}

/// Every matrix of a layer that the file may hold.
std::vector<mla::matrix*> matrices_of(mla::layer& l) {
  return {&l.q,         &l.q_a,         &l.q_b,       &l.kv_a,       &l.k_b,      &l.v_b,
          &l.kv_b,      &l.attn_output, &l.gate,      &l.up,         &l.down,     &l.router,
          &l.gate_exps, &l.up_exps,     &l.down_exps, &l.gate_shexp, &l.up_shexp, &l.down_shexp};
}

/// `m`, a part of a tensor whose rows begin at `whole`, becomes the same part of the converted tensor.
void replace(mla::matrix& m, const std::byte* whole, std::uint32_t type, const converted& by) {
  const auto row = find_format(type)->row_bytes(m.cols);
  const std::int64_t first = (m.data - whole) / m.row_stride, slice_rows = m.slice_stride / m.row_stride;
  m.format = type, m.row_stride = row, m.slice_stride = slice_rows * row;
  m.data = by.bytes.data() + first * row;
  m.scale = by.scale;
}

}  // namespace

struct sequential_run::state {
  /// One of the two models, and its tokens between two halves of a block.
  struct lane {
    mla::model model;
    std::optional<mla::forward> run = {};
    std::optional<mla::hidden_states> tokens = {};
    mla::block_cache cache = {};
    mla::layer stored = {}, layer = {};  ///< of the block: as it is in the file, and complete

    result<void> open_block(std::int64_t block) {
      stored = model.tensors.layers[static_cast<std::size_t>(block)];
      return complete(block);
    }
    result<void> complete(std::int64_t block) {
      layer = stored;
      return mla::complete_layer(*model.file, model.hyper, block, layer);
    }
  };

  sequential_options options;
  mla::corpus text;
  lane quantized, reference;

  // Of run():
  std::uint64_t ram = 0;
  const model_plan* plan = nullptr;
  const step_converter* convert = nullptr;
  std::unordered_map<std::string, std::size_t> steps = {};  ///< by tensor
  std::vector<bool> done = {};

  const mla::config& hyper() const { return reference.model.hyper; }
  std::int64_t floats_per_chunk() const { return text.size * hyper().embedding; }

  result<void> begin(const std::filesystem::path& scratch, executor_ref threads);
  result<void> embed();
  result<void> run_block(std::int64_t block, executor_ref threads);
  result<void> run_stage(const std::vector<std::size_t>& steps, half h, std::int64_t block,
                         executor_ref threads);
  result<void> run_output(executor_ref threads);
  result<void> collect(half h, std::int64_t block, paired_collector& to);
  result<void> advance(half h, std::int64_t block);
  result<void> convert_step(std::size_t i, paired_collector* pairs);
  result<void> convert_rest();
  void install(const gguf::tensor_info& t, std::uint32_t type, const converted& by);
  std::vector<std::size_t> steps_of(std::int64_t block, const stage& s) const;
  std::vector<std::string> wanted(const std::vector<std::size_t>& of) const;
  paired_collector collector(std::vector<std::string> names, executor_ref threads) const;
  /// body(first chunk, chunks), of as many as go through a block together.
  template <class Body>
  result<void> for_batches(Body body) const;
  result<void> run_half(lane& l, half h, std::int64_t block, std::int64_t first, std::int64_t chunks,
                        mla::observer* watch);
};

result<sequential_run> sequential_run::open(const std::filesystem::path& path, const sequential_options& o) {
  const auto load = [&]() -> result<mla::model> {
    auto m = mla::load_model(path, {.stream = true});
    if (!m) return error{"--sequential runs the model, and this one cannot be run: " + m.error().message};
    return m;
  };
  auto reference = load(), quantized = load();
  if (!reference) return reference.error();
  if (!quantized) return quantized.error();
  const auto words = mla::tokenizer::from_gguf(reference->file->meta());
  if (!words) return error{path.string() + ": " + words.error().message};
  auto text = mla::load_corpus(o.text, *words, o.context, o.from_chunk, o.chunks);
  if (!text) return text.error();
  mla::print_warnings(path.string(), reference->hyper.warnings);
  mla::print_warnings(path.string(), words->warnings());
  mla::print_warnings(o.text.string(), text->notes);
  if (const auto note = mla::context_note(reference->hyper, o.context); !note.empty())
    mla::print_warnings(path.string(), {note});
  return sequential_run(std::unique_ptr<state>(
      new state{o, std::move(*text), {std::move(*quantized)}, {std::move(*reference)}}));
}

sequential_run::sequential_run(std::unique_ptr<state> s) noexcept : s_(std::move(s)) {}
sequential_run::sequential_run(sequential_run&&) noexcept = default;
sequential_run::~sequential_run() = default;

bool sequential_run::meets(std::string_view tensor) const {
  if (tensor == "output.weight") return true;
  for (std::int64_t b = 0; b < s_->hyper().layers; ++b) {
    const auto prefix = "blk." + std::to_string(b) + ".";
    if (!tensor.starts_with(prefix) || !tensor.ends_with(".weight")) continue;
    const auto name = tensor.substr(prefix.size(), tensor.size() - prefix.size() - 7);
    return std::ranges::any_of(
        stages(), [&](const stage& s) { return std::ranges::find(s.tensors, name) != s.tensors.end(); });
  }
  return false;
}

std::string sequential_run::describe() const {
  return std::to_string(s_->text.chunks) + " chunks of " + std::to_string(s_->text.size) + " tokens of " +
         text::printable(s_->options.text.string());
}

result<void> sequential_run::run(const model_plan& plan, const std::filesystem::path& scratch,
                                 executor_ref threads, const step_converter& convert) {
  s_->plan = &plan, s_->convert = &convert;
  if (auto r = s_->begin(scratch, threads); !r) return r;
  if (auto r = s_->embed(); !r) return r;
  for (std::int64_t b = 0; b < s_->hyper().layers; ++b)
    if (auto r = s_->run_block(b, threads); !r) return r;
  if (auto r = s_->run_output(threads); !r) return r;
  return s_->convert_rest();
}

result<void> sequential_run::state::begin(const std::filesystem::path& scratch, executor_ref threads) {
  ram = memory_for(options.ram);
  for (lane* l : {&quantized, &reference}) {
    l->run.emplace(l->model, runtime::dispatcher::best(), threads, text.size, mla::run_options{});
    auto tokens = mla::hidden_states::temporary(text.chunks * floats_per_chunk(),
                                                ram > 0 ? ram / 8 : ~std::uint64_t{0}, scratch);
    if (!tokens) return tokens.error();
    l->tokens.emplace(std::move(*tokens));
  }
  done.assign(plan->steps.size(), false);
  for (std::size_t i = 0; i < plan->steps.size(); ++i)
    if (!plan->steps[i].scale_of) steps.emplace(plan->steps[i].tensor->name, i);
  return {};
}

/// The embeddings are quantized before anything meets them.
result<void> sequential_run::state::embed() {
  const auto it = steps.find(reference.model.tensors.token_embd.name);
  if (it != steps.end() && !plan->steps[it->second].to.copy)
    if (auto r = convert_step(it->second, nullptr); !r) return r;
  for (lane* l : {&quantized, &reference})
    for (std::int64_t i = 0; i < text.chunks; ++i)
      if (auto r = l->run->embed(text.chunk(i), l->tokens->before().data() + i * floats_per_chunk()); !r)
        return error{"chunk " + std::to_string(i) + ": " + r.error().message};
  return {};
}

result<void> sequential_run::state::run_block(std::int64_t block, executor_ref threads) {
  for (lane* l : {&quantized, &reference})
    if (auto r = l->open_block(block); !r) return r;
  for (const half h : {half::attention, half::feed_forward}) {
    for (const auto& s : stages())
      if (s.of == h)
        if (auto r = run_stage(steps_of(block, s), h, block, threads); !r) return r;
    if (auto r = advance(h, block); !r) return r;
  }
  for (lane* l : {&quantized, &reference})
    mla::release_pages(mla::bytes_of(l->model, block), ram > 0 && l->model.bytes() > ram / 2);
  return {};
}

/// Tensors of a stage that are quantized.
std::vector<std::size_t> sequential_run::state::steps_of(std::int64_t block, const stage& s) const {
  std::vector<std::size_t> found;
  for (const auto name : s.tensors) {
    const auto it = steps.find("blk." + std::to_string(block) + "." + std::string(name) + ".weight");
    if (it != steps.end() && !plan->steps[it->second].to.copy) found.push_back(it->second);
  }
  return found;
}

/// Of these tensors, those whose inputs choose their codes.
std::vector<std::string> sequential_run::state::wanted(const std::vector<std::size_t>& of) const {
  std::vector<std::string> names;
  for (const auto i : of)
    if (wants_moments(plan->steps[i])) names.push_back(plan->steps[i].tensor->name);
  return names;
}

paired_collector sequential_run::state::collector(std::vector<std::string> names,
                                                  executor_ref threads) const {
  const std::int64_t tokens = text.chunks * text.size;  // the last tenth is kept apart
  return {std::move(names),
          {static_cast<std::size_t>(options.limit) << 20, tokens - tokens / 10},
          runtime::dispatcher::best().product(),
          threads};
}

result<void> sequential_run::state::run_stage(const std::vector<std::size_t>& of, half h, std::int64_t block,
                                              executor_ref threads) {
  if (of.empty()) return {};
  auto names = wanted(of);
  const bool any = !names.empty();
  auto pairs = collector(std::move(names), threads);
  if (any)
    if (auto r = collect(h, block, pairs); !r) return r;
  for (const auto i : of)
    if (auto r = convert_step(i, any ? &pairs : nullptr); !r) return r;
  return quantized.complete(block);
}

/// What the output matrix sees.
result<void> sequential_run::state::run_output(executor_ref threads) {
  const auto it = steps.find(reference.model.tensors.output.name);
  if (it == steps.end() || done[it->second] || !wants_moments(plan->steps[it->second])) return {};
  auto pairs = collector({it->first}, threads);
  const auto seen = for_batches([&](std::int64_t first, std::int64_t chunks) -> result<void> {
    const auto parts = mla::parts_of(chunks, text.size, text.size);
    for (lane* l : {&quantized, &reference}) {
      auto& watch = l == &quantized ? pairs.quantized() : pairs.reference();
      watch.start_at(first * text.size);
      if (auto r = l->run->output(l->tokens->before().data() + first * floats_per_chunk(), parts,
                                  chunks * text.size, &watch);
          !r)
        return r;
    }
    return {};
  });
  return seen ? convert_step(it->second, &pairs) : seen;
}

template <class Body>
result<void> sequential_run::state::for_batches(Body body) const {
  const std::int64_t most = mla::chunks_together(hyper(), {}, text.size, ram / 2, false);
  for (std::int64_t first = 0; first < text.chunks; first += most)
    if (auto r = body(first, std::min(most, text.chunks - first)); !r) return r;
  return {};
}

result<void> sequential_run::state::run_half(lane& l, half h, std::int64_t block, std::int64_t first,
                                             std::int64_t chunks, mla::observer* watch) {
  const auto parts = mla::parts_of(chunks, text.size, text.size);
  const std::int64_t n = chunks * text.size;
  l.cache.reserve(hyper(), {}, n, text.size);
  if (watch) watch->start_at(first * text.size);
  const mla::batch b{l.tokens->before().data() + first * floats_per_chunk(), n, parts, &l.cache};
  auto r = h == half::attention ? l.run->attention_half(l.layer, b, watch)
                                : l.run->feed_forward_half(block, l.layer, b, watch);
  if (r) return r;
  const auto row = std::max<std::int64_t>(0, l.run->work().failed_row());
  return error{reference.model.file->path() + ": chunk " + std::to_string(first + row / text.size) + ": " +
               r.error().message};
}

result<void> sequential_run::state::collect(half h, std::int64_t block, paired_collector& to) {
  return for_batches([&](std::int64_t first, std::int64_t chunks) -> result<void> {
    if (auto r = run_half(quantized, h, block, first, chunks, &to.quantized()); !r) return r;
    if (auto r = run_half(reference, h, block, first, chunks, &to.reference()); !r) return r;
    return to.complete() ? result<void>{}
                         : error{reference.model.file->path() + ": block " + std::to_string(block) +
                                 ": not all of " + text::printable(to.described()) + " have inputs"};
  });
}

/// Both models' tokens go through the half, which is quantized in one of them by now.
result<void> sequential_run::state::advance(half h, std::int64_t block) {
  return for_batches([&](std::int64_t first, std::int64_t chunks) -> result<void> {
    for (lane* l : {&quantized, &reference})
      if (auto r = run_half(*l, h, block, first, chunks, nullptr); !r) return r;
    return {};
  });
}

/// Converts a tensor, after the scale that lies beside it in the output.
result<void> sequential_run::state::convert_step(std::size_t i, paired_collector* pairs) {
  const auto& s = plan->steps[i];
  if (i > 0 && plan->steps[i - 1].scale_of) {
    if (auto scale = (*convert)(i - 1, nullptr); !scale) return scale.error();
    done[i - 1] = true;
  }
  const auto made = (*convert)(i, pairs && wants_moments(s) ? &pairs->moments_of(s.tensor->name) : nullptr);
  if (!made) return made.error();
  done[i] = true;
  if (!s.to.copy) install(*s.tensor, s.to.type, *made);
  return {};
}

/// What nothing that runs depends on, or what stays as it is.
result<void> sequential_run::state::convert_rest() {
  for (std::size_t i = 0; i < done.size(); ++i)
    if (!done[i] && !plan->steps[i].scale_of)
      if (auto r = convert_step(i, nullptr); !r) return r;
  return {};
}

/// The quantized model goes on with the converted tensor.
void sequential_run::state::install(const gguf::tensor_info& t, std::uint32_t type, const converted& by) {
  const auto* own = quantized.model.file->find(t.name);
  const auto bytes = own ? quantized.model.file->data(*own) : result<std::span<const std::byte>>(error{""});
  if (!bytes) return;
  auto all = matrices_of(quantized.stored);
  all.push_back(&quantized.model.tensors.token_embd);
  for (auto* m : all)
    if (*m && m->name == t.name) replace(*m, bytes->data(), type, by);
}

}  // namespace quantal::plan
