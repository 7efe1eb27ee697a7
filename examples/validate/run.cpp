#include "run.hpp"

#include <algorithm>

#include "file.hpp"
#include "html.hpp"
#include "model_metrics.hpp"
#include "progress.hpp"
#include "quantal/imatrix/io.hpp"
#include "text.hpp"

namespace quantal::validate {
namespace {

result<std::vector<gate>> read_gates(const run_options& o) {
  std::vector<gate> out;
  for (const auto& path : o.gate_files) {
    const auto content = file::read_text(path);
    if (!content) return content.error();
    auto gates = parse_gate_file(*content, gate_syntax_of(path), path);
    if (!gates) return gates.error();
    std::move(gates->begin(), gates->end(), std::back_inserter(out));
  }
  for (const auto& g : o.gates) {
    auto parsed = parse_gate(g, "--gate");
    if (!parsed) return parsed.error();
    out.push_back(std::move(*parsed));
  }
  return out;
}

result<void> read_points(const run_options& o, findings& f) {
  if (o.points.empty()) return {};
  const auto content = file::read_text(o.points);
  if (!content) return content.error();
  auto points = parse_points(*content, o.points);
  if (!points) return points.error();
  f.points = std::move(*points);
  return {};
}

/// Of the file; of several files the tensors alone.
std::uint64_t bytes_of(const std::filesystem::path& path, const gguf::reader& model) {
  std::error_code failed;
  const auto bytes = std::filesystem::file_size(path, failed);
  if (model.shards() == 1 && !failed) return bytes;
  std::uint64_t sum = 0;
  for (const auto& t : model.tensors()) sum += t.nbytes;
  return sum;
}

std::string listed(const std::vector<std::string>& names) {
  std::string out = names.front();
  for (std::size_t i = 1; i < std::min<std::size_t>(names.size(), 4); ++i) out += ", " + names[i];
  return names.size() > 4 ? out + " and " + std::to_string(names.size() - 4) + " more" : out;
}

/// Tensors without a partner are an error, or a note where that was asked for.
result<void> check_missing(const pairing& p, const run_options& o, findings& f) {
  for (const auto& [names, where] :
       {std::pair{&p.only_in_reference, &o.model}, std::pair{&p.only_in_model, &o.reference}}) {
    if (names->empty()) continue;
    const std::string what = where->string() + ": lacks " + listed(*names);
    if (!o.allow_missing) return error{what + "; --allow-missing compares what both have"};
    f.notes.push_back(what);
  }
  if (p.both.empty())
    return error{o.model.string() + ": has no tensor in common with " + o.reference.string()};
  return {};
}

result<void> measure_tensors(const run_options& o, const gguf::reader& model, const gguf::reader& reference,
                             executor_ref threads, findings& f) {
  std::optional<imatrix::store> statistics;
  if (!o.imatrix.empty()) {
    auto loaded = imatrix::load(o.imatrix);
    if (!loaded) return loaded.error();
    statistics = std::move(*loaded);
  }
  std::optional<imatrix::moments_file> moments;
  if (!o.hessian.empty()) {
    auto opened = imatrix::moments_file::open(o.hessian);
    if (!opened) return opened.error();
    moments.emplace(std::move(*opened));
  }
  const auto pairs = pair_tensors(model, reference);
  if (!pairs) return pairs.error();
  if (auto ok = check_missing(*pairs, o, f); !ok) return ok;
  progress bar("tensors", static_cast<std::int64_t>(pairs->both.size()));
  for (const auto& [t, source] : pairs->both) {
    auto r = measure(model, *t, reference, *source, statistics ? &*statistics : nullptr,
                     moments ? &*moments : nullptr, threads);
    if (!r) return r.error();
    f.tensors.push_back(std::move(*r));
    bar.update(static_cast<std::int64_t>(f.tensors.size()), t->name);
  }
  return {};
}

result<void> measure_model(const run_options& o, const gguf::reader& model, executor_ref threads,
                           findings& f) {
  if (o.text.empty()) return {};
  if (auto why = cannot_run(model); !why.empty()) return f.notes.push_back(std::move(why)), result<void>{};
  auto m = compare_models(o.model, o.reference,
                          {o.text, o.context, o.chunks, o.act == "q8" ? activation::q8 : activation::exact},
                          threads);
  if (!m && f.not_finite().empty()) return m.error();
  if (!m) return f.notes.push_back(m.error().message), result<void>{};
  f.whole = std::move(m->values);
  std::move(m->notes.begin(), m->notes.end(), std::back_inserter(f.notes));
  return {};
}

}  // namespace

result<findings> validate(const run_options& o) {
  findings f{o.model.string(), o.reference.string(), {}, {}, {}, {}, {}, 0};
  if (auto read = read_points(o, f); !read) return read.error();
  auto gates = read_gates(o);
  if (!gates) return gates.error();
  f.gates = std::move(*gates);
  const auto model = gguf::reader::open(o.model), reference = gguf::reader::open(o.reference);
  if (!model) return model.error();
  if (!reference) return reference.error();
  f.bytes = bytes_of(o.model, *model);
  thread_pool pool(text::thread_count(o.threads));
  if (auto done = measure_tensors(o, *model, *reference, pool, f); !done) return done.error();
  if (auto done = measure_model(o, *model, pool, f); !done) return done.error();
  std::vector<subject> subjects;
  for (const auto& t : f.tensors) subjects.push_back({t.name, false, t.values});
  subjects.push_back({"model", true, f.whole});
  auto checks = evaluate(f.gates, subjects);
  if (!checks) return checks.error();
  f.checks = std::move(*checks);
  return f;
}

result<void> write_outputs(const findings& f, const std::vector<std::string>& outputs) {
  for (const auto& o : outputs.empty() ? std::vector<std::string>{"table"} : outputs) {
    const auto equals = o.find('=');
    const auto kind = o.substr(0, equals);
    const std::string text = kind == "json"       ? as_json(f)
                             : kind == "junit"    ? as_junit(f)
                             : kind == "markdown" ? as_markdown(f)
                             : kind == "html"     ? as_html(f)
                                                  : as_table(f);
    if (equals == std::string::npos) {
      std::fputs(text.c_str(), stdout);
      std::fflush(stdout);  // a file may be the same pipe
    } else if (auto w = file::write(o.substr(equals + 1), text); !w) {
      return w;
    }
  }
  return {};
}

}  // namespace quantal::validate
