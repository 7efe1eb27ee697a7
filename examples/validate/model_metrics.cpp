#include "model_metrics.hpp"

#include "corpus.hpp"
#include "divergence.hpp"
#include "progress.hpp"
#include "quantal/runtime/ops.hpp"
#include "session.hpp"

namespace quantal::validate {
namespace {

/// Logits to log-probabilities.
void normalize(const float* logits, std::vector<float>& out) {
  const double norm = mla::log_sum_exp(logits, static_cast<std::int64_t>(out.size()));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = static_cast<float>(logits[i] - norm);
}

}  // namespace

std::string cannot_run(const gguf::reader& model) {
  const auto architecture = model.meta().string("general.architecture");
  if (architecture && *architecture == "deepseek2") return {};
  return model.path() + ": only deepseek2 models run here, this is " +
         (architecture ? "'" + *architecture + "'" : "of no named architecture");
}

result<metrics> compare_models(const std::filesystem::path& model, const std::filesystem::path& reference,
                               const text_options& o, executor_ref threads) {
  const auto m = mla::load_model(model), r = mla::load_model(reference);
  if (!m) return m.error();
  if (!r) return r.error();
  const auto width = m->hyper.vocabulary;
  if (width != r->hyper.vocabulary)
    return error{model.string() + ": vocabulary of " + std::to_string(width) + ", the reference has " +
                 std::to_string(r->hyper.vocabulary)};
  const auto tokenizer = mla::tokenizer::from_gguf(r->file->meta());
  if (!tokenizer) return error{reference.string() + ": " + tokenizer.error().message};
  const auto text = mla::load_corpus(o.text, *tokenizer, o.context, 0, o.chunks);
  if (!text) return text.error();

  const auto arch = runtime::dispatcher::best();
  mla::run_options how;
  how.policy = activation::q8;
  mla::session quantized(*m, arch, threads, o.context, how), exact(*r, arch, threads, o.context, {});
  const auto n = static_cast<std::size_t>(o.context * width);
  std::vector<float> logits(n), wanted(n), base(static_cast<std::size_t>(width));
  mla::divergence d;
  progress bar("comparing", text->chunks);
  for (std::int64_t i = 0; i < text->chunks; ++i) {
    const auto tokens = text->chunk(i);
    quantized.clear(), exact.clear();
    if (auto done = quantized.evaluate(tokens, logits); !done) return done.error();
    if (auto done = exact.evaluate(tokens, wanted); !done) return done.error();
    for (std::int64_t p = mla::first_scored(o.context); p + 1 < o.context; ++p) {
      normalize(wanted.data() + p * width, base);
      d.add(base, logits.data() + p * width, tokens[static_cast<std::size_t>(p + 1)]);
    }
    bar.update(i + 1);
  }
  return metrics{{"ppl", std::exp(d.nll().mean())},
                 {"ppl_ratio", std::exp(d.log_ratio())},
                 {"kld", d.kld().mean()},
                 {"kld_99", d.kld_percentile(.99)},
                 {"same_top", d.same_top()}};
}

}  // namespace quantal::validate
