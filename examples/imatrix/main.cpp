// quantal-imatrix: model + text -> importance matrix; merging, checking and describing importance matrices.
#include <cstdio>

#include "cli.hpp"
#include "collection.hpp"
#include "collector.hpp"
#include "corpus.hpp"
#include "coverage.hpp"
#include "file_plan.hpp"
#include "json.hpp"
#include "memory.hpp"
#include "moments_collector.hpp"
#include "moments_report.hpp"
#include "program.hpp"
#include "quantal/atomic_file.hpp"
#include "quantal/imatrix/io.hpp"
#include "quantal/imatrix/statistics.hpp"

namespace quantal::mla {
namespace {

struct options {
  std::string model, text, out, format = "gguf", heads = "auto", hessian;
  std::vector<std::string> in_files, hessian_in;
  int mla = 1;
  bool flash = false, process_output = false, all_experts = false, statistics = false, similarity = false,
       check = false;
  bool no_perplexity = false, as_json = false, stream = false;
  std::string chunks = "0";  ///< N or A:B
  std::int64_t context = 512, batch = 0, from_chunk = 0, save_every = 0, ram = 0;
  std::int64_t first_chunk = 0, most_chunks = 0;  ///< of --chunks and --from-chunk
  bool part = false;                              ///< --chunks A:B
  std::int64_t hessian_limit = 1024;              ///< MiB
  int threads = 0;
};

/// --chunks N, at most so many, or A:B, these; with what --from-chunk says. False: neither.
bool read_chunks(options& o) {
  const auto colon = o.chunks.find(':');
  o.part = colon != std::string::npos;
  const auto number = [&](std::size_t from, std::size_t length) {
    const auto n =
        cli::detail::parse_number<std::int64_t>(std::string_view(o.chunks).substr(from, length), {0, 1e9});
    return n ? *n : -1;
  };
  const std::int64_t a = number(0, colon), b = o.part ? number(colon + 1, std::string::npos) : 0;
  o.first_chunk = o.part ? a : o.from_chunk, o.most_chunks = o.part ? b - a : a;
  return o.part ? a >= 0 && b > a : a >= 0;
}

int fail(const std::string& message) {
  std::fprintf(stderr, "quantal-imatrix: %s\n", message.c_str());
  return cli::exit_failure;
}

/// Programs that read the legacy form expect one vector for the heads of a model with two-dimensional attn_k_b.
imatrix::dat_heads heads_of_dat(const options& o, const gguf::reader* model) {
  if (o.heads != "auto") return o.heads == "mean" ? imatrix::dat_heads::mean : imatrix::dat_heads::each;
  if (!model) return imatrix::dat_heads::each;
  for (const auto& t : model->tensors())
    if (t.name.ends_with(".attn_k_b.weight") && t.slices() == 1) return imatrix::dat_heads::mean;
  return imatrix::dat_heads::each;
}

/// `model`: null without one.
result<void> save(const options& o, const imatrix::store& s, const gguf::reader* model) {
  if (o.format == "gguf") return imatrix::save_gguf(s, o.out);
  const auto heads = heads_of_dat(o, model);
  if (heads == imatrix::dat_heads::mean)
    std::fprintf(
        stderr,
        "note: %s holds the mean over heads of attn_k_b and attn_v_b, for their two-dimensional tensors; "
        "GGUF output keeps every head\n",
        o.out.c_str());
  return imatrix::save_dat(s, o.out, heads);
}

result<imatrix::store> merge_inputs(const options& o) {
  imatrix::store all;
  all.chunk_size = o.context;
  bool first = true;
  for (const auto& path : o.in_files) {
    auto s = imatrix::load(path);
    if (!s) return s.error();
    if (first) all.chunk_size = s->chunk_size;
    first = false;
    if (auto m = imatrix::merge(all, *s); !m) return error{path + ": " + m.error().message};
    std::fprintf(stderr, "loaded %zu importance matrix entries from %s computed on %lld chunks%s\n",
                 s->entries.size(), path.c_str(), static_cast<long long>(s->chunk_count()),
                 s->approximate_counts ? " (approximate counts)" : "");
  }
  return all;
}

/// What --show-statistics and --check tell: printed as it comes, or collected in one JSON document.
struct description {
  json document = json::object();
  bool complete = true;  ///< no tensor of the model lacks data
};

result<void> print_statistics(const imatrix::store& s, bool as_json, description& d) {
  const auto rows = imatrix::all_statistics(s);
  for (const auto& r : rows)
    for (const double v : {r.sum, r.min, r.max, r.mean, r.deviation, r.active, r.entropy, r.evenness,
                           r.outliers, r.similarity})
      if (!std::isfinite(v)) return error{"imatrix entry '" + r.name + "': a statistic is not finite"};
  if (as_json) {
    json list = json::array();
    for (const auto& r : rows)
      list.push_back({{"tensor", r.name},
                      {"block", r.block},
                      {"elements", r.elements},
                      {"sum", json_number(r.sum)},
                      {"min", json_number(r.min)},
                      {"max", json_number(r.max)},
                      {"mean", json_number(r.mean)},
                      {"deviation", json_number(r.deviation)},
                      {"active", r.active},
                      {"entropy", r.entropy},
                      {"evenness", r.evenness},
                      {"outliers", r.outliers},
                      {"cosine", r.similarity}});
    d.document["statistics"] = std::move(list);
    return {};
  }
  std::printf("%-36s %12s %10s %12s %10s %10s %8s %9s %8s %7s %7s\n", "Tensor", "Sum(Act^2)", "Min", "Max",
              "Mean", "StdDev", "%Active", "Entropy", "E(norm)", "ZD", "CosSim");
  for (const auto& r : rows)
    std::printf("%-36s %12.4f %10.4f %12.4f %10.4f %10.4f %7.2f%% %9.4f %7.2f%% %6.2f%% %7.4f\n",
                r.name.c_str(), r.sum, r.min, r.max, r.mean, r.deviation, 100 * r.active, r.entropy,
                r.evenness, 100 * r.outliers, r.similarity);
  return {};
}

void print_coverage(const std::vector<coverage_row>& rows, bool as_json, description& d) {
  std::int64_t gaps = 0;
  for (const auto& r : rows) gaps += r.gap();
  d.complete = d.complete && gaps == 0;
  if (as_json) {
    json list = json::array();
    for (const auto& r : rows)
      list.push_back({{"tensor", r.name},
                      {"source", std::string(to_string(r.from))},
                      {"detail", r.detail},
                      {"experts", r.experts},
                      {"unseen_experts", r.unseen},
                      {"least_rows", r.least},
                      {"median_rows", r.median},
                      {"most_rows", r.most},
                      {"gap", r.gap()}});
    d.document["tensors"] = std::move(list), d.document["gaps"] = gaps;
    return;
  }
  for (const auto& r : rows) {
    std::printf("%-36s %-18s %s", r.name.c_str(), std::string(to_string(r.from)).c_str(),
                r.detail == r.name ? "" : r.detail.c_str());
    if (r.experts)
      std::printf("  experts %lld/%lld", static_cast<long long>(r.experts - r.unseen),
                  static_cast<long long>(r.experts));
    if (r.most)
      std::printf("  rows min %lld median %lld max %lld", static_cast<long long>(r.least),
                  static_cast<long long>(r.median), static_cast<long long>(r.most));
    std::printf("%s\n", r.gap() ? "  <-- NO DATA" : "");
  }
  std::printf("%lld of %zu tensors without data\n", static_cast<long long>(gaps), rows.size());
}

/// The same of the file of second moments at `path`. `model`: null without --check.
result<void> describe_moments(const options& o, const std::string& path, const gguf::reader* model,
                              description& d) {
  const auto file = imatrix::moments_file::open(path);
  if (!file) return file.error();
  if (o.statistics) {
    const auto rows = all_statistics(*file);
    if (!rows) return rows.error();
    if (o.as_json)
      d.document["moments_statistics"] = statistics_json(*rows);
    else
      print_statistics(*rows);
  }
  if (!o.check) return {};
  const auto rows = check_moments(*file, *model);
  if (!rows) return rows.error();
  const auto gaps = std::count_if(rows->begin(), rows->end(), [](const moments_row& r) { return r.gap(); });
  d.complete = d.complete && gaps == 0;
  if (o.as_json)
    d.document["moments_tensors"] = check_json(*rows), d.document["moments_gaps"] = gaps;
  else
    print_check(*rows);
  return {};
}

int finish(const options& o, const description& d) {
  if (o.as_json && !d.document.empty()) print_json(d.document);
  return d.complete ? cli::exit_ok : cli::exit_failure;
}

void print_similarity(const char* title, const std::vector<layer_similarity::mean>& list) {
  std::vector<std::pair<double, std::size_t>> order;
  for (std::size_t i = 0; i < list.size(); ++i) order.emplace_back(list[i].value(), i);
  std::sort(order.begin(), order.end(),
            [](auto a, auto b) { return std::fabs(a.first) < std::fabs(b.first); });
  std::printf("%s\n", title);
  for (std::size_t rank = 0; rank < order.size(); ++rank)
    std::printf("%3zu: Layer %3zu, <cos_sim> = %g\n", rank, order[rank].second, order[rank].first);
}

result<imatrix::moments_store> merge_moments(const options& o) {
  imatrix::moments_store all;
  for (const auto& path : o.hessian_in) {
    const auto file = imatrix::moments_file::open(path);
    if (!file) return file.error();
    const auto s = file->read_all();
    if (!s) return s.error();
    if (auto m = imatrix::merge(all, *s); !m) return error{path + ": " + m.error().message};
    std::fprintf(stderr, "loaded second moments of %zu tensors from %s\n", s->entries.size(), path.c_str());
  }
  return all;
}

result<void> save_moments(const options& o, const imatrix::moments_source& all) {
  if (auto r = imatrix::save_moments(all, o.hessian); !r) return r;
  std::fprintf(stderr, "stored second moments of %zu tensors in %s; %zu more have the same inputs\n",
               all.shapes.size(), o.hessian.c_str(), all.same.size());
  return {};
}

/// Adds what has been collected to the moments of --hessian-in, which are in memory as a whole.
result<void> save_moments(const options& o, imatrix::moments_store all,
                          const imatrix::moments_source& collected) {
  if (all.entries.empty()) return save_moments(o, collected);
  imatrix::moments_store more;
  more.same = collected.same, more.datasets = collected.datasets;
  for (const auto& [name, shape] : collected.shapes) {
    auto m = collected.read(name);
    if (!m) return m.error();
    more.entries.emplace(name, std::move(*m));
  }
  if (auto m = imatrix::merge(all, more); !m) return error{"--hessian-in: " + m.error().message};
  return save_moments(o, imatrix::source_of(std::move(all)));
}

/// Second moments keep the last tenth of the tokens apart.
moments_options moments_options_of(const options& o, const corpus& text) {
  const std::int64_t tokens = text.chunks * o.context;
  return {static_cast<std::size_t>(o.hessian_limit) << 20, tokens - tokens / 10};
}

/// What files call the text.
std::string dataset_of(const options& o) { return std::filesystem::path(o.text).filename().string(); }

/// Whatever decides what a streamed run collects, by the option that says it.
json identity_of(const options& o, const corpus& text) {
  const auto file = [](const std::filesystem::path& path) {
    std::error_code ignored;
    return std::to_string(std::filesystem::file_size(path, ignored)) + " bytes of " +
           std::to_string(std::filesystem::last_write_time(path, ignored).time_since_epoch().count());
  };
  json in_files = json::array(), hessian_in = json::array();
  for (const auto& path : o.in_files) in_files.push_back(file(path));
  for (const auto& path : o.hessian_in) hessian_in.push_back(file(path));
  const std::string name = dataset_of(o);
  const auto used = std::span(text.tokens).first(static_cast<std::size_t>(text.chunks * text.size));
  return {{"-m", file(o.model)},
          {"-f", digest(std::as_bytes(used)) + " of " + digest(std::as_bytes(std::span(name)))},
          {"-c", o.context},
          {"-b", o.batch},
          {"--chunks", o.chunks},
          {"--from-chunk", o.first_chunk},
          {"-mla", o.mla},
          {"-fa", o.flash},
          {"--process-output", o.process_output},
          {"--all-experts", o.all_experts},
          {"--in-file", std::move(in_files)},
          {"--hessian", !o.hessian.empty()},
          {"--hessian-in", std::move(hessian_in)},
          {"--hessian-limit", o.hessian_limit}};
}

collection_options collection_options_of(const options& o, const corpus& text) {
  collection_options c;
  c.how = {o.mla, o.flash, activation::exact};
  c.batch = o.batch, c.perplexity = !o.no_perplexity, c.ram = memory_for(o.ram);
  c.scratch = std::filesystem::path(o.out).parent_path();
  const auto target = output_target::find(o.out);
  // Layer similarities need the inputs of earlier blocks, which no state holds.
  if (target && !target->stream && !o.similarity)
    c.state = o.out + ".stream", c.identity = identity_of(o, text);
  return c;
}

void print_pass(const options& o, const collection& done) {
  std::fprintf(stderr, "collected %lld chunks of %lld tokens: %s\n",
               static_cast<long long>(done.pass.tokens / o.context), static_cast<long long>(o.context),
               summary(done.pass).c_str());
  if (done.nll.count())
    std::fprintf(stderr, "Final estimate: PPL = %.4f +/- %.5f\n", std::exp(done.nll.mean()),
                 std::exp(done.nll.mean()) * done.nll.error());
}

/// A part of a text is marked as one.
void name_source(const options& o, const corpus& text, imatrix::store& s) {
  s.chunk_size = o.context;
  s.datasets.push_back(dataset_of(o));
  s.chunks.reset();
  if (o.part) s.chunks = imatrix::chunk_range{o.first_chunk, o.first_chunk + text.chunks};
}

/// A streamed run that was ended left a state: this one goes on from it, however much memory is free by now.
bool has_state(const options& o) {
  std::error_code ignored;
  return !o.similarity && std::filesystem::exists(o.out + ".stream/state.json", ignored);
}

int collect(const options& o) {
  const auto m = load_model(o.model, {o.stream || has_state(o), memory_for(o.ram)});
  if (!m) return fail(m.error().message);
  const auto t = tokenizer::from_gguf(m->file->meta());
  if (!t) return fail(o.model + ": " + t.error().message);
  const auto text = load_corpus(o.text, *t, o.context, o.first_chunk, o.most_chunks);
  if (!text) return fail(text.error().message);
  print_warnings(o.model, m->hyper.warnings);
  print_warnings(o.model, t->warnings());
  print_warnings(o.text, text->notes);
  if (const auto note = context_note(m->hyper, o.context); !note.empty()) print_warnings(o.model, {note});
  collector c({o.process_output, o.all_experts, o.similarity, o.part});
  auto earlier = merge_inputs(o);
  if (!earlier) return fail(earlier.error().message);
  if (!o.in_files.empty() && earlier->chunk_size != o.context)
    std::fprintf(stderr,
                 "note: continuing statistics of %lld-token chunks with %lld-token chunks; counts are in "
                 "rows, so this is exact\n",
                 static_cast<long long>(earlier->chunk_size), static_cast<long long>(o.context));
  c.resume(std::move(*earlier));
  name_source(o, *text, c.statistics());
  auto earlier_moments = merge_moments(o);
  if (!earlier_moments) return fail(earlier_moments.error().message);
  thread_pool pool(text::thread_count(o.threads));
  std::optional<moments_collector> moments;
  if (!o.hessian.empty())
    moments.emplace(moments_options_of(o, *text), runtime::dispatcher::best().product(), pool);
  auto how = collection_options_of(o, *text);
  if (m->streamed && o.save_every > 0)
    std::fprintf(stderr,
                 "note: -ofreq has no effect on a streamed run, which keeps a state after every block\n");
  how.after_chunk = [&](std::int64_t chunks) -> result<void> {
    if (o.save_every == 0 || chunks % o.save_every != 0 || chunks == text->chunks) return {};
    c.settle();
    // A part says which chunks it holds so far.
    const auto whole = c.statistics().chunks;
    if (auto& part = c.statistics().chunks) part->last = part->first + chunks;
    auto saved = save(o, c.statistics(), m->file.get());
    c.statistics().chunks = whole;
    return saved;
  };
  auto done = collect(*m, *text, c, moments ? &*moments : nullptr, pool, how);
  if (!done) return fail(done.error().message);
  print_pass(o, *done);
  if (auto r = save(o, c.statistics(), m->file.get()); !r) return fail(r.error().message);
  std::fprintf(stderr, "stored %zu entries after %lld chunks in %s\n", c.statistics().entries.size(),
               static_cast<long long>(text->chunks), o.out.c_str());
  if (moments) {
    done->moments.datasets.push_back(dataset_of(o));
    if (auto r = save_moments(o, std::move(*earlier_moments), done->moments); !r)
      return fail(r.error().message);
  }
  if (done->state) done->state->remove();
  if (o.similarity) {
    print_similarity("sorted layer importances:", c.similarity().layer);
    print_similarity("sorted attention importances:", c.similarity().attention);
    print_similarity("sorted ffn importances:", c.similarity().feed_forward);
  }
  description d;
  if (o.as_json)
    d.document["pass"] =
        report_json(done->pass, measure_limits(*m, runtime::dispatcher::best(), pool), m->streamed);
  if (o.statistics)
    if (auto r = print_statistics(c.statistics(), o.as_json, d); !r) return fail(r.error().message);
  const auto rows = check_coverage(c.statistics(), *m->file);
  if (!rows) return fail(rows.error().message);
  if (o.check) print_coverage(*rows, o.as_json, d);
  if (moments && (o.statistics || o.check))
    if (auto r = describe_moments(o, o.hessian, m->file.get(), d); !r) return fail(r.error().message);
  const int described = finish(o, d);
  if (o.check) return described;
  bool complete = true;
  for (const auto& r : *rows) {
    if (r.gap()) std::fprintf(stderr, "NO DATA: %s\n", r.name.c_str());
    if (r.unseen)
      std::fprintf(stderr, "entry '%s': %lld of %lld experts saw no token; they will use the pooled mean\n",
                   r.name.c_str(), static_cast<long long>(r.unseen), static_cast<long long>(r.experts));
    complete = complete && !r.gap();
  }
  return complete ? cli::exit_ok : fail("some tensors that quantizing needs have no data");
}

result<void> merge_importance(const options& o, const gguf::reader* model, description& d) {
  auto s = merge_inputs(o);
  if (!s) return s.error();
  if (!o.out.empty()) {
    if (auto r = save(o, *s, model); !r) return r;
    std::fprintf(stderr, "stored %zu entries in %s\n", s->entries.size(), o.out.c_str());
  }
  if (o.statistics)
    if (auto r = print_statistics(*s, o.as_json, d); !r) return r;
  if (!o.check) return {};
  const auto rows = check_coverage(*s, *model);
  if (!rows) return rows.error();
  print_coverage(*rows, o.as_json, d);
  return {};
}

int without_text(const options& o) {
  if (!o.hessian.empty()) {
    auto all = merge_moments(o);
    if (!all) return fail(all.error().message);
    if (auto r = save_moments(o, imatrix::source_of(std::move(*all))); !r) return fail(r.error().message);
  }
  std::optional<gguf::reader> model;
  if (!o.model.empty()) {
    auto opened = gguf::reader::open(o.model);
    if (!opened) return fail(opened.error().message);
    model.emplace(std::move(*opened));
  }
  description d;
  if (!o.in_files.empty())
    if (auto r = merge_importance(o, model ? &*model : nullptr, d); !r) return fail(r.error().message);
  if (!o.hessian_in.empty() && (o.statistics || o.check)) {
    const auto& path = o.hessian.empty() ? o.hessian_in.front() : o.hessian;
    if (auto r = describe_moments(o, path, model ? &*model : nullptr, d); !r) return fail(r.error().message);
  }
  return finish(o, d);
}

/// The matrix to write is none of the files that are read, also not the one that is continued: that one stays until the
/// user removes it.
result<void> check_files(const options& o) {
  file_plan files;
  files.input("-m", o.model)
      .input("-f", o.text)
      .inputs("--in-file", o.in_files)
      .inputs("--hessian-in", o.hessian_in);
  files.output("-o", o.out).output("--hessian", o.hessian);
  if (o.statistics || o.check || o.similarity || o.as_json) files.prints();
  if (auto ok = files.check(); !ok) return ok;
  if (o.out.empty() || o.save_every == 0) return {};
  const auto target = output_target::find(o.out);
  if (target && target->stream) return error{o.out + ": -ofreq needs a regular file that can be replaced"};
  return {};
}

int run(int argc, char** argv) {
  options o;
  cli::parser p(
      "quantal-imatrix",
      "Collects an importance matrix from a deepseek2 model and a text; merges, checks and describes them.");
  p.option({"-m", "--model"}, "FILE", "GGUF model", o.model);
  p.option({"-f", "--file"}, "FILE", "calibration text (UTF-8)", o.text);
  p.option({"-o", "--output-file"}, "FILE", "importance matrix to write", o.out);
  p.option({"--output-format"}, "FORMAT", "file format", o.format).one_of({"gguf", "dat"});
  p.option({"--dat-heads"}, "WHAT",
           "attn_k_b and attn_v_b in a dat file: every head or their mean; auto: as the tensors of -m have "
           "slices",
           o.heads)
      .one_of({"auto", "each", "mean"});
  p.option({"--in-file"}, "FILE",
           "importance matrix to start from, never the file of -o; without -f several are merged", o.in_files)
      .many();
  p.option({"--hessian"}, "FILE",
           "second moments of the inputs to write, for quantal-quantize --hessian; the last tenth of the "
           "tokens is kept apart in them",
           o.hessian);
  p.option({"--hessian-in"}, "FILE",
           "second moments that --hessian starts from, or that --show-statistics and --check describe; "
           "without -f several are merged",
           o.hessian_in)
      .many();
  p.option({"--hessian-limit"}, "MIB",
           "memory for the matrices of one tensor; experts or heads that need more share one",
           o.hessian_limit, {1, 1 << 20});
  p.option({"-mla", "--mla-use"}, "N", "attention mode 0, 1, 2 or 3; all collect the same entries", o.mla,
           {0, 3});
  p.flag({"-fa", "--flash-attn"}, "attention with an online softmax", o.flash);
  p.option({"-c", "--ctx-size"}, "N", "tokens per chunk", o.context, {2, 1 << 20});
  p.option({"-b", "--batch-size"}, "N", "tokens per pass, 0 = a whole chunk", o.batch, {0, 1 << 20});
  p.option({"--chunks"}, "N|A:B",
           "most chunks to run, 0 = all; or chunks A to B - 1 as a part of the text: parts merged in order "
           "(--in-file) "
           "have the bytes of one run over them all",
           o.chunks);
  p.option({"--chunk", "--from-chunk"}, "N", "chunks to skip first", o.from_chunk, {0, 1e9});
  p.flag({"--stream"},
         "one block of the model in memory at a time, all chunks through it; the default where the model is "
         "larger "
         "than the memory. After every block the state is kept in the folder OUT.stream, and the same "
         "command goes on "
         "from it",
         o.stream);
  p.option({"--ram"}, "GIB", "memory that a run may take, 0 = what is available", o.ram, {0, 1 << 20});
  p.option({"--output-frequency", "-ofreq"}, "N", "save every N chunks, 0 = at the end only", o.save_every,
           {0, 1e9});
  p.option({"-t", "--threads"}, "N", "threads, 0 = all", o.threads, {0, 1024});
  p.flag({"--process-output"}, "record output.weight too", o.process_output);
  p.flag({"--all-experts"}, "statistics of every expert on every token; outputs stay routed", o.all_experts);
  p.flag({"--no-ppl"}, "no perplexity", o.no_perplexity);
  p.flag({"--show-statistics"}, "print statistics per tensor, of second moments too", o.statistics);
  p.flag({"-lsim", "--layer-similarity"}, "print layer similarities", o.similarity);
  p.flag({"--check"},
         "print per tensor of -m where its importance and its second moments come from; exit code 1 if any "
         "lacks data",
         o.check);
  p.flag({"--json"}, "statistics, check and what the run took, phase by phase against its limit, as JSON",
         o.as_json);
  if (const auto code = p.run(argc, argv)) return *code;
  const auto usage = [](const char* why) {
    std::fprintf(stderr, "quantal-imatrix: %s\nTry 'quantal-imatrix --help'.\n", why);
    return cli::exit_usage;
  };
  if (!o.text.empty() && (o.model.empty() || o.out.empty())) return usage("-f needs -m and -o");
  if (o.text.empty() && o.in_files.empty() && o.hessian_in.empty())
    return usage("nothing to do: give -m, -f and -o, or --in-file, or --hessian-in");
  if (!o.hessian_in.empty() && o.hessian.empty() && !o.statistics && !o.check)
    return usage("--hessian-in needs --hessian, --show-statistics or --check");
  if (o.hessian_in.size() > 1 && o.hessian.empty())
    return usage("several files of --hessian-in need --hessian, which they are merged into");
  if (!o.text.empty() && !o.hessian_in.empty() && o.hessian.empty())
    return usage("--hessian-in needs --hessian where -f collects");
  if (o.text.empty() && !o.hessian.empty() && o.hessian_in.empty())
    return usage("--hessian needs -f or --hessian-in");
  if (o.check && o.model.empty()) return usage("--check needs -m");
  if (!read_chunks(o)) return usage("--chunks is neither a number nor a range A:B of chunks");
  if (o.part && (o.from_chunk > 0 || !o.in_files.empty()) && !o.text.empty())
    return usage("--chunks A:B begins anew at chunk A: --from-chunk and --in-file do not go with it");
  if (auto ok = check_files(o); !ok) return fail(ok.error().message);
  return o.text.empty() ? without_text(o) : collect(o);
}

}  // namespace
}  // namespace quantal::mla

int main(int argc, char** argv) {
  return quantal::run_program("quantal-imatrix", argc, argv, quantal::mla::run);
}
