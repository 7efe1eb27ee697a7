#include "model_metrics.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>

#include "corpus.hpp"
#include "divergence.hpp"
#include "kl_base.hpp"
#include "memory.hpp"
#include "quantal/runtime/ops.hpp"
#include "text_pass.hpp"
#include "unnamed_file.hpp"

namespace quantal::validate {
namespace {

void add_notes(std::vector<std::string>& to, const std::string& about,
               const std::vector<std::string>& notes) {
  for (const auto& n : notes)
    if (const auto whole = about + ": " + n; std::find(to.begin(), to.end(), whole) == to.end())
      to.push_back(whole);
}

/// Keys of the tokenizer that differ; the reference's are used.
std::vector<std::string> tokenizer_differences(const gguf::metadata& model, const gguf::metadata& reference) {
  std::vector<std::string> out;
  for (const char* key :
       {"tokenizer.ggml.model", "tokenizer.ggml.pre", "tokenizer.ggml.tokens", "tokenizer.ggml.merges",
        "tokenizer.ggml.token_type", "tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.add_bos_token", "tokenizer.ggml.add_eos_token"}) {
    const auto *a = model.find(key), *b = reference.find(key);
    if ((a == nullptr) != (b == nullptr) || (a && *a != *b))
      out.push_back(std::string("key '") + key + "' differs from the reference's, which is used for both");
  }
  return out;
}

/// Options of both models' passes; their logits are those of the scored positions.
mla::pass_options pass_of(const mla::corpus& text, std::uint64_t ram, activation policy) {
  mla::pass_options pass;
  pass.how.policy = policy;
  pass.first_logits = mla::first_scored(text.size), pass.ram = ram;
  std::error_code none;
  pass.scratch = std::filesystem::temp_directory_path(none);
  return pass;
}

/// The reference's distributions, as files of reference logits hold them.
result<void> write_reference(const mla::model& m, const mla::corpus& text, executor_ref threads,
                             std::uint64_t ram, const unnamed_file& records) {
  std::ofstream out(records.path(), std::ios::binary);
  mla::kl_codec codec(m.hyper.vocabulary);
  const auto write = [&](std::int64_t, std::span<const float> logits) -> result<std::string> {
    for (std::size_t at = 0; at < logits.size(); at += static_cast<std::size_t>(m.hyper.vocabulary)) {
      codec.encode(logits.data() + at);
      const auto bytes = std::as_bytes(codec.record());
      out.write(reinterpret_cast<const char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
    }
    return out.flush() ? result<std::string>(std::string())
                       : error{"the reference's logits cannot be written to a temporary file"};
  };
  progress bar("reference", mla::pass_steps(m, text.chunks));
  const auto done = mla::run_text(m, mla::chunks_of(text), runtime::dispatcher::best(), threads,
                                  pass_of(text, ram, activation::exact), bar, nullptr, write);
  return done ? result<void>{} : done.error();
}

result<void> compare(const mla::model& m, const mla::corpus& text, executor_ref threads, activation policy,
                     std::uint64_t ram, const unnamed_file& records, mla::divergence& d) {
  std::ifstream in(records.path(), std::ios::binary);
  const std::int64_t width = m.hyper.vocabulary, first = mla::first_scored(text.size);
  mla::kl_codec codec(width);
  std::vector<float> base;
  const auto add = [&](std::int64_t i, std::span<const float> logits) -> result<std::string> {
    const auto tokens = text.chunk(i);
    for (std::int64_t p = first; p < text.size; ++p) {
      const auto bytes = std::as_writable_bytes(codec.record());
      in.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
      if (!in) return error{"the reference's logits cannot be read from a temporary file"};
      if (p + 1 == text.size) break;  // nothing follows
      if (auto done = codec.decode(base); !done) return done.error();
      d.add(base, logits.data() + (p - first) * width, tokens[static_cast<std::size_t>(p + 1)]);
    }
    return std::string();
  };
  progress bar("comparing", mla::pass_steps(m, text.chunks));
  const auto done = mla::run_text(m, mla::chunks_of(text), runtime::dispatcher::best(), threads,
                                  pass_of(text, ram, policy), bar, nullptr, add);
  return done ? result<void>{} : done.error();
}

}  // namespace

std::string cannot_run(const gguf::reader& model) {
  const auto architecture = model.meta().string("general.architecture");
  if (architecture && *architecture == "deepseek2") return {};
  return model.path() + ": only deepseek2 models run here, this is " +
         (architecture ? "'" + *architecture + "'" : "of no named architecture");
}

result<model_comparison> compare_models(const std::filesystem::path& model,
                                        const std::filesystem::path& reference, const text_options& o,
                                        executor_ref threads) {
  // Both take turns; neither has to leave memory to the other.
  const mla::residence where{.ram = available_memory()};
  const auto m = mla::load_model(model, where), r = mla::load_model(reference, where);
  if (!m) return m.error();
  if (!r) return r.error();
  const auto width = m->hyper.vocabulary;
  if (width != r->hyper.vocabulary)
    return error{model.string() + ": vocabulary of " + std::to_string(width) + ", " + reference.string() +
                 " has one of " + std::to_string(r->hyper.vocabulary)};
  const auto tokenizer = mla::tokenizer::from_gguf(r->file->meta());
  if (!tokenizer) return error{reference.string() + ": " + tokenizer.error().message};
  const auto text = mla::load_corpus(o.text, *tokenizer, o.context, 0, o.chunks);
  if (!text) return text.error();
  model_comparison out;
  add_notes(out.notes, model.string(), m->hyper.warnings);
  add_notes(out.notes, reference.string(), r->hyper.warnings);
  add_notes(out.notes, reference.string(), tokenizer->warnings());
  add_notes(out.notes, model.string(), tokenizer_differences(m->file->meta(), r->file->meta()));
  add_notes(out.notes, o.text.string(), text->notes);
  for (const auto& [path, hyper] : {std::pair{&model, &m->hyper}, std::pair{&reference, &r->hyper}})
    if (const auto note = mla::context_note(*hyper, o.context); !note.empty())
      add_notes(out.notes, path->string(), {note});

  mla::divergence d;
  auto records = unnamed_file::in(std::filesystem::temp_directory_path());
  if (!records) return records.error();
  if (auto done = write_reference(*r, *text, threads, where.ram, *records); !done) return done.error();
  if (auto done = compare(*m, *text, threads, o.policy, where.ram, *records, d); !done) return done.error();
  out.values = {{"ppl", std::exp(d.nll().mean())},
                {"ppl_ratio", std::exp(d.log_ratio())},
                {"kld", d.kld().mean()},
                {"kld_99", d.kld_percentile(.99)},
                {"same_top", d.same_top()}};
  for (const auto& [name, value] : out.values)
    if (!std::isfinite(value)) return error{model.string() + ": " + name + " is not finite"};
  return out;
}

}  // namespace quantal::validate
