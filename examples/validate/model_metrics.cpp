#include "model_metrics.hpp"

#include <algorithm>
#include <cmath>

#include "corpus.hpp"
#include "divergence.hpp"
#include "kl_base.hpp"
#include "progress.hpp"
#include "quantal/runtime/ops.hpp"
#include "session.hpp"

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
  const auto m = mla::load_model(model), r = mla::load_model(reference);
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

  const auto arch = runtime::dispatcher::best();
  mla::run_options how;
  how.policy = o.policy;
  mla::session quantized(*m, arch, threads, o.context, how), exact(*r, arch, threads, o.context, {});
  const auto n = static_cast<std::size_t>(o.context * width);
  std::vector<float> logits(n), wanted(n), base;
  mla::kl_codec codec(width);
  mla::divergence d;
  progress bar("comparing", text->chunks);
  for (std::int64_t i = 0; i < text->chunks; ++i) {
    const auto in_chunk = [&](const error& e) {
      return error{"chunk " + std::to_string(i) + ": " + e.message};
    };
    const auto tokens = text->chunk(i);
    quantized.clear(), exact.clear();
    if (auto done = quantized.evaluate(tokens, logits); !done) return in_chunk(done.error());
    if (auto done = exact.evaluate(tokens, wanted); !done) return in_chunk(done.error());
    for (std::int64_t p = mla::first_scored(o.context); p + 1 < o.context; ++p) {
      codec.encode(wanted.data() + p * width);
      if (auto done = codec.decode(base); !done) return in_chunk(done.error());
      d.add(base, logits.data() + p * width, tokens[static_cast<std::size_t>(p + 1)]);
    }
    bar.update(i + 1);
  }
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
