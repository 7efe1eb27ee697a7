// quantal-perplexity: perplexity of a text, KL divergence against a reference, raw logits.
#include <cstdio>

#include "cli.hpp"
#include "corpus.hpp"
#include "divergence.hpp"
#include "file.hpp"
#include "file_plan.hpp"
#include "json.hpp"
#include "kl_base.hpp"
#include "memory.hpp"
#include "pass_report.hpp"
#include "program.hpp"

namespace quantal::mla {
namespace {

struct options {
  std::string model, text, base, tokens, logits_out, act = "exact", arch;
  int mla = 1, threads = 0;
  bool flash = false, divergence = false, overwrite_base = false, as_json = false;
  bool context_given = false, stream = false;
  std::int64_t context = 512, batch = 0, chunks = 0, gpu_layers = 0, ram = 0;
  products* device = nullptr;
};

int fail(const std::string& message) {
  std::fprintf(stderr, "quantal-perplexity: %s\n", message.c_str());
  return cli::exit_failure;
}

/// The model over chunks of a text; `sink` gets their logits from `first_logits` on.
result<pass_report> run_model(const options& o, const model& m, const chunk_source& text,
                              std::int64_t first_logits, progress& bar, const chunk_sink& sink) {
  thread_pool pool(text::thread_count(o.threads));
  const auto arch = o.arch.empty() ? runtime::dispatcher::best() : *runtime::dispatcher::named(o.arch);
  pass_options pass;
  pass.how = {o.mla, o.flash, o.act == "q8" ? activation::q8 : activation::exact, o.device};
  pass.batch = o.batch, pass.first_logits = first_logits, pass.ram = memory_for(o.ram);
  std::error_code none;
  pass.scratch = std::filesystem::temp_directory_path(none);
  return run_text(m, text, arch, pool, pass, bar, nullptr, sink);
}

/// What a streamed run took.
void print_pass(const model& m, const pass_report& r) {
  if (m.streamed) std::fprintf(stderr, "%s\n", summary(r).c_str());
}

void note_context(const options& o, const model& m, std::int64_t context) {
  if (const auto note = context_note(m.hyper, context); !note.empty()) print_warnings(o.model, {note});
}

/// Raw token ids in, raw logits out.
result<void> dump_logits(const options& o, const model& m) {
  const auto tokens = file::read_raw<std::int32_t>(o.tokens);
  if (!tokens) return tokens.error();
  if (tokens->empty()) return error{o.tokens + ": holds no tokens"};
  note_context(o, m, static_cast<std::int64_t>(tokens->size()));
  const chunk_source text{1, static_cast<std::int64_t>(tokens->size()),
                          [&](std::int64_t) { return *tokens; }};
  progress bar("evaluating", pass_steps(m, 1));
  const auto write = [&](std::int64_t, std::span<const float> logits) -> result<std::string> {
    if (auto r = file::write(o.logits_out, std::as_bytes(logits)); !r) return r.error();
    return std::string();
  };
  if (auto r = run_model(o, m, text, 0, bar, write); !r) return r.error();
  return {};
}

/// exp(mean); logits can be finite and still so far apart that this is not.
result<double> perplexity_of(const running_mean& nll, const std::string& whose) {
  const double ppl = std::exp(nll.mean());
  if (std::isfinite(ppl)) return ppl;
  return error{whose + ": the perplexity is not finite; the mean of -ln p is " +
               text::format("%g", nll.mean())};
}

result<void> print_divergence(divergence& d, const options& o) {
  const auto model_ppl = perplexity_of(d.nll(), o.model), base_ppl = perplexity_of(d.base_nll(), o.base);
  if (!model_ppl) return model_ppl.error();
  if (!base_ppl) return base_ppl.error();
  const double ppl = *model_ppl, base = *base_ppl;
  for (const double v : {d.kld().mean(), d.kld().error(), d.dp().mean(), d.rms_dp(), d.rms_dp_error(),
                         d.log_ratio(), d.log_ratio_error(), d.correlation()})
    if (!std::isfinite(v))
      return error{o.model + ": a statistic of the divergence from " + o.base + " is not finite"};
  if (o.as_json) {
    json k = {{"mean_kld", d.kld().mean()},
              {"mean_kld_error", d.kld().error()},
              {"max_kld", d.kld_percentile(1)},
              {"kld_999", d.kld_percentile(.999)},
              {"kld_99", d.kld_percentile(.99)},
              {"kld_median", d.kld_percentile(.5)},
              {"same_top", d.same_top()},
              {"same_top_error", d.same_top_error()},
              {"rms_dp", d.rms_dp()},
              {"mean_dp", d.dp().mean()},
              {"ppl", ppl},
              {"ppl_error", ppl * d.nll().error()},
              {"ppl_base", base},
              {"log_ratio", d.log_ratio()},
              {"log_ratio_error", d.log_ratio_error()},
              {"tokens", d.count()}};
    print_json(k);
    return {};
  }
  std::printf("\n====== Perplexity statistics ======\n");
  std::printf("Mean PPL(Q)                   : %10.6f +/- %10.6f\n", ppl, ppl * d.nll().error());
  std::printf("Mean PPL(base)                : %10.6f +/- %10.6f\n", base, base * d.base_nll().error());
  std::printf("Cor(ln(PPL(Q)), ln(PPL(base))): %9.2f%%\n", 100 * d.correlation());
  std::printf("Mean ln(PPL(Q)/PPL(base))     : %10.6f +/- %10.6f\n", d.log_ratio(), d.log_ratio_error());
  std::printf("\n====== KL divergence statistics ======\n");
  std::printf("Mean    KLD: %10.6f +/- %10.6f\n", d.kld().mean(), d.kld().error());
  std::printf("Maximum KLD: %10.6f\n", d.kld_percentile(1));
  for (const double f : {99.9, 99.0, 95.0, 90.0, 50.0, 10.0, 5.0, 1.0, 0.1})
    std::printf("%5.1f%%  KLD: %10.6f\n", f, d.kld_percentile(f / 100));
  std::printf("Minimum KLD: %10.6f\n", d.kld_percentile(0));
  std::printf("\n====== Token probability statistics ======\n");
  std::printf("Mean    dp: %6.3f +/- %5.3f %%\n", 100 * d.dp().mean(), 100 * d.dp().error());
  for (const double f : {100.0, 99.9, 99.0, 95.0, 90.0, 75.0, 50.0, 25.0, 10.0, 5.0, 1.0, 0.1, 0.0})
    std::printf("%5.1f%%  dp: %6.3f%%\n", f, 100 * d.dp_percentile(f / 100));
  std::printf("RMS dp    : %6.3f +/- %5.3f %%\n", 100 * d.rms_dp(), 100 * d.rms_dp_error());
  std::printf("Same top p: %6.3f +/- %5.3f %%\n", 100 * d.same_top(), 100 * d.same_top_error());
  return {};
}

/// The file settles context, tokens and chunks; options that say otherwise are refused.
result<void> check_settings(const options& o, const model& m, const kl_header& h) {
  if (h.vocabulary != m.hyper.vocabulary)
    return error{o.base + ": made with a vocabulary of " + std::to_string(h.vocabulary) + ", " + o.model +
                 " has one of " + std::to_string(m.hyper.vocabulary)};
  if (o.context_given && o.context != h.context)
    return error{o.base + ": made with chunks of " + std::to_string(h.context) + " tokens, but -c asks for " +
                 std::to_string(o.context)};
  if (o.chunks > h.chunks)
    std::fprintf(stderr, "note: %s holds %d chunks, fewer than the %lld asked for\n", o.base.c_str(),
                 h.chunks, static_cast<long long>(o.chunks));
  return {};
}

/// A text given although the file holds the tokens: they have to be the same.
result<void> check_text(const options& o, const model& m, const kl_header& h) {
  if (o.text.empty()) return {};
  const auto t = tokenizer::from_gguf(m.file->meta());
  if (!t) return error{o.model + ": " + t.error().message};
  const auto text = load_corpus(o.text, *t, h.context);
  if (!text) return text.error();
  print_warnings(o.text, text->notes);
  const std::int64_t chunks = o.chunks > 0 ? std::min<std::int64_t>(o.chunks, h.chunks) : h.chunks;
  const auto n = static_cast<std::size_t>(chunks * h.context);
  std::size_t same = 0;
  while (same < std::min(n, text->tokens.size()) && text->tokens[same] == h.tokens[same]) ++same;
  if (same == n) return {};
  const auto context = static_cast<std::size_t>(h.context);
  return error{o.base + ": made from another text or with another tokenizer than " + o.text +
               " gives: chunk " + std::to_string(same / context) + ", token " +
               std::to_string(same % context) + " is " + std::to_string(h.tokens[same]) +
               (same < text->tokens.size() ? ", not " + std::to_string(text->tokens[same])
                                           : ", where the text has ended") +
               "; without -f the tokens of the file are used"};
}

result<void> compare(const options& o, const model& m) {
  auto base = kl_reader::open(o.base);
  if (!base) return base.error();
  const auto& h = base->header;
  if (auto r = check_settings(o, m, h); !r) return r;
  if (auto r = check_text(o, m, h); !r) return r;
  const auto special = read_special_tokens(m.file->meta(), m.hyper.vocabulary);
  if (!special) return error{o.model + ": " + special.error().message};
  print_warnings(o.model, special->warnings);
  note_context(o, m, h.context);
  const std::int64_t chunks = o.chunks > 0 ? std::min<std::int64_t>(o.chunks, h.chunks) : h.chunks;
  const chunk_source text{chunks, h.context,
                          [&](std::int64_t i) { return evaluated_tokens(h.chunk(i), *special); }};
  divergence d;
  std::vector<float> reference;
  progress bar("comparing", pass_steps(m, chunks));
  const std::int64_t first = first_scored(h.context);
  const auto add = [&](std::int64_t i, std::span<const float> logits) -> result<std::string> {
    const auto tokens = h.chunk(i);
    for (std::int64_t t = first; t + 1 < h.context; ++t) {
      if (auto r = base->next(reference); !r) return r.error();
      d.add(reference, logits.data() + (t - first) * h.vocabulary, tokens[static_cast<std::size_t>(t + 1)]);
    }
    return text::format("kld %.5f", d.kld().mean());
  };
  const auto report = run_model(o, m, text, first, bar, add);
  if (!report) return report.error();
  bar.clear();
  print_pass(m, *report);
  return print_divergence(d, o);
}

result<void> measure(const options& o, const model& m) {
  const auto t = tokenizer::from_gguf(m.file->meta());
  if (!t) return error{o.model + ": " + t.error().message};
  const auto text = load_corpus(o.text, *t, o.context, 0, o.chunks);
  if (!text) return text.error();
  print_warnings(o.model, t->warnings());
  print_warnings(o.text, text->notes);
  note_context(o, m, o.context);
  std::optional<kl_writer> base;
  if (!o.base.empty()) {
    kl_header h{static_cast<std::int32_t>(o.context),
                static_cast<std::int32_t>(m.hyper.vocabulary),
                static_cast<std::int32_t>(text->chunks),
                {}};
    h.tokens.assign(text->tokens.begin(), text->tokens.begin() + text->chunks * o.context);
    auto w = kl_writer::create(o.base, h);
    if (!w) return w.error();
    base.emplace(std::move(*w));
  }
  running_mean nll;
  progress bar("perplexity", pass_steps(m, text->chunks));
  const std::int64_t first = first_scored(o.context), width = m.hyper.vocabulary;
  const auto add = [&](std::int64_t i, std::span<const float> logits) -> result<std::string> {
    const auto tokens = text->chunk(i);
    for (std::int64_t p = first; p + 1 < o.context; ++p) {
      const float* row = logits.data() + (p - first) * width;
      nll.add(log_sum_exp(row, width) - row[tokens[static_cast<std::size_t>(p + 1)]]);
      if (base)
        if (auto r = base->add(row); !r) return r.error();
    }
    const auto ppl = perplexity_of(nll, o.model);
    if (!ppl) return ppl.error();
    if (!o.as_json) {
      bar.clear();
      std::printf("[%lld]%.4f,", static_cast<long long>(i + 1), *ppl);
      std::fflush(stdout);
    }
    return std::string();
  };
  const auto report = run_model(o, m, chunks_of(*text), first, bar, add);
  if (!report) return report.error();
  bar.clear();
  print_pass(m, *report);
  if (base)
    if (auto r = base->finish(); !r) return r;
  const double ppl = std::exp(nll.mean());
  if (o.as_json)
    print_json({{"ppl", ppl},
                {"ppl_error", ppl * nll.error()},
                {"chunks", text->chunks},
                {"context", o.context},
                {"tokens", nll.count()}});
  else
    std::printf("\nFinal estimate: PPL over %lld chunks for n_ctx=%lld = %.4f +/- %.5f\n",
                static_cast<long long>(text->chunks), static_cast<long long>(o.context), ppl,
                ppl * nll.error());
  return {};
}

/// Reference logits take hours to make: they are not replaced because --kl-divergence was forgotten.
result<void> check_files(const options& o) {
  file_plan files;
  files.input("-m", o.model)
      .input("-f", o.text)
      .input("--tokens", o.tokens)
      .output("--logits-out", o.logits_out);
  if (o.divergence) return files.input("--kl-divergence-base", o.base).check();
  files.output("--kl-divergence-base", o.base);
  if (!o.base.empty()) files.prints();
  if (auto ok = files.check(); !ok) return ok;
  std::error_code ignored;
  if (std::filesystem::is_regular_file(o.base, ignored) && !o.overwrite_base)
    return error{o.base +
                 ": exists; give --kl-divergence to compare with it, or --overwrite-base to write it anew"};
  return {};
}

int run(int argc, char** argv) {
  options o;
  cli::parser p("quantal-perplexity",
                "Perplexity of a deepseek2 model, KL divergence against a reference, or raw logits.");
  p.option({"-m", "--model"}, "FILE", "GGUF model", o.model).required();
  p.option({"-f", "--file"}, "FILE", "text (UTF-8, taken as it is)", o.text);
  p.option({"-c", "--ctx-size"}, "N", "tokens per chunk", o.context, {4, 1 << 20});
  p.option({"-b", "--batch-size"}, "N", "tokens per pass, 0 = a whole chunk", o.batch, {0, 1 << 20});
  p.option({"--chunks"}, "N", "most chunks to run, 0 = all", o.chunks, {0, 1e9});
  p.flag({"--stream"},
         "one block of the model in memory at a time, all chunks through it; the default where the model is "
         "larger "
         "than the memory",
         o.stream);
  p.option({"--ram"}, "GIB", "memory that a run may take, 0 = what is available", o.ram, {0, 1 << 20});
  p.option({"-t", "--threads"}, "N", "threads, 0 = all", o.threads, {0, 1024});
  p.option({"-mla", "--mla-use"}, "N", "attention mode 0, 1, 2 or 3", o.mla, {0, 3});
  p.flag({"-fa", "--flash-attn"}, "attention with an online softmax", o.flash);
  p.option({"--act"}, "POLICY", "activations against quantized weights", o.act).one_of({"exact", "q8"});
  p.option({"-ngl", "--gpu-layers"}, "N",
           "last blocks whose products run on CUDA, more than all: output, too", o.gpu_layers, {0, 1 << 20});
  p.option({"--arch"}, "NAME", "kernel variant (scalar, avx2, ...) instead of the best", o.arch);
  p.option({"--kl-divergence-base"}, "FILE", "reference logits: written, or read with --kl-divergence",
           o.base);
  p.flag({"--kl-divergence"}, "compare with the reference logits", o.divergence);
  p.flag({"--overwrite-base"}, "write the reference logits although the file exists", o.overwrite_base);
  p.option({"--tokens"}, "FILE", "int32 little-endian token ids to evaluate as one sequence", o.tokens);
  p.option({"--logits-out"}, "FILE", "where --tokens writes float32 logits [tokens, vocabulary]",
           o.logits_out);
  p.flag({"--json"}, "results as JSON", o.as_json);
  if (const auto code = p.run(argc, argv)) return *code;
  const auto usage = [](const char* why) {
    std::fprintf(stderr, "quantal-perplexity: %s\nTry 'quantal-perplexity --help'.\n", why);
    return cli::exit_usage;
  };
  if (o.tokens.empty() != o.logits_out.empty()) return usage("--tokens and --logits-out go together");
  if (!o.tokens.empty() && (!o.text.empty() || !o.base.empty() || o.divergence))
    return usage(
        "--tokens evaluates one sequence: -f, --kl-divergence and --kl-divergence-base do not go with it");
  o.context_given = p.given("-c");
  if (o.divergence && o.base.empty()) return usage("--kl-divergence needs --kl-divergence-base");
  if (o.text.empty() && o.tokens.empty() && !o.divergence)
    return usage("nothing to do: give -f, --tokens or --kl-divergence");
  if (!o.arch.empty() && !runtime::dispatcher::named(o.arch))
    return usage("--arch: this machine or build has no such variant");
  if (auto ok = check_files(o); !ok) return fail(ok.error().message);
  const auto m = load_model(o.model, {o.stream, memory_for(o.ram)});
  if (!m) return fail(m.error().message);
  print_warnings(o.model, m->hyper.warnings);
  std::unique_ptr<products> device;
  if (o.gpu_layers > 0) {
    auto made = cuda_products(o.gpu_layers, m->hyper.layers);
    if (!made) return fail(made.error().message);
    device = std::move(*made);
    o.device = device.get();
  }
  const auto r = !o.tokens.empty() ? dump_logits(o, *m) : o.divergence ? compare(o, *m) : measure(o, *m);
  return r ? cli::exit_ok : fail(r.error().message);
}

}  // namespace
}  // namespace quantal::mla

int main(int argc, char** argv) {
  return quantal::run_program("quantal-perplexity", argc, argv, quantal::mla::run);
}
