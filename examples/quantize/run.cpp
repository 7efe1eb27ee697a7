#include "run.hpp"

#include <chrono>
#include <cstdio>

#include "allocate.hpp"
#include "convert.hpp"
#include "file.hpp"
#include "lattices.hpp"
#include "output.hpp"
#include "output_aware.hpp"
#include "progress.hpp"
#include "quantal/imatrix/io.hpp"
#include "quantal/runtime/ops.hpp"
#include "recipe.hpp"
#include "released.hpp"
#include "step_store.hpp"
#include "summary.hpp"

namespace quantal::plan {
namespace {

result<const format_info*> optional_type(const std::string& name, const char* option) {
  if (name.empty()) return nullptr;
  auto f = parse_type(name);
  if (!f) return error{std::string(option) + ": " + f.error().message};
  return f;
}

/// Whose mixes and formats: by default those of the program that has the file type, llama.cpp's if both have it.
result<void> choose_family(const std::string& types, type_options& t) {
  const auto wanted = types == "ik"                   ? dialect::ik
                      : types == "llama.cpp"          ? dialect::llama_cpp
                      : t.type->known_to == owner::ik ? dialect::ik
                                                      : dialect::llama_cpp;
  if (t.type->known_to == (wanted == dialect::ik ? owner::llama_cpp : owner::ik))
    return error{"--types " + types + ": " + std::string(program_name(wanted)) + " has no type " +
                 std::string(t.type->name)};
  t.family = wanted;
  t.any_format = types == "all";
  return {};
}

/// Candidate types and sensitivities as the command line names them.
result<allocation_options> read_allocation_options(const run_options& o, const type_options& types) {
  allocation_options a;
  a.bpw = o.target_bpw, a.bytes = o.target_size, a.types = default_candidates();
  if (!o.target_types.empty()) a.types.clear();
  for (std::string_view rest = o.target_types; !rest.empty();) {
    const auto comma = rest.find(',');
    const auto f = parse_type(text::trim(rest.substr(0, comma)));
    if (!f) return error{"--target-types: " + f.error().message};
    if (!runtime::can_quantize((*f)->gguf_id))
      return error{"--target-types: " + std::string((*f)->name) + " cannot be quantized to"};
    if (o.target_size && has_tensor_scale((*f)->gguf_id))
      return error{"--target-types: " + std::string((*f)->name) +
                   " keeps a scale beside the tensor, which --target-size cannot count"};
    if (!types.any_format && !reads(types.family, **f))
      return error{"--target-types: " + std::string(program_name(types.family)) + " does not read " +
                   std::string((*f)->name) + "; --types all allows it"};
    a.types.push_back(*f);
    rest = comma == std::string_view::npos ? std::string_view{} : rest.substr(comma + 1);
  }
  if (o.sensitivity.empty()) return a;
  const auto content = file::read_text(o.sensitivity);
  if (!content) return content.error();
  if (!text::trim(without_byte_order_mark(*content)).starts_with('{')) {
    auto measured = parse_measured_losses(*content, o.sensitivity);
    if (!measured) return measured.error();
    a.measured = std::move(*measured);
    return a;
  }
  auto classes = parse_sensitivities(*content, o.sensitivity);
  if (!classes) return classes.error();
  a.sensitivities = std::move(*classes);
  return a;
}

std::optional<imatrix_note> note_of(const std::string& file, const std::optional<imatrix::store>& s) {
  if (!s) return std::nullopt;
  imatrix_note note{file, {}, static_cast<std::int64_t>(s->entries.size()), s->chunk_count()};
  for (const auto& d : s->datasets) note.dataset += (note.dataset.empty() ? "" : ", ") + d;
  return note;
}

/// What tensors are quantized with.
struct statistics_of_run {
  const std::optional<imatrix::store>& importance;
  const std::optional<imatrix::moments_file>& moments;
};

gguf::metadata metadata_of(const gguf::model_view& model, const run_options& o, const file_type& type,
                           const std::optional<imatrix::store>& importance) {
  auto meta = output_metadata(model, type, note_of(o.imatrix, importance), o.hessian);
  if (o.sequential) meta.set("quantize.sequential.dataset", o.sequential.dataset());
  return meta;
}

/// Importance from the inputs that a sequential run collects, for models without an importance matrix.
imatrix::importance diagonal_of(const imatrix::moments& m, const gguf::tensor_info& t) {
  imatrix::importance out{
      imatrix::source::own, t.name, m.cols, m.slices, t.rows() * t.slices() / m.slices, {}, {}};
  for (std::int64_t s = 0; s < m.slices; ++s) {
    const float* sums = m.sums.data() + s * imatrix::triangle(m.cols);
    const double count = m.counts[static_cast<std::size_t>(s)];
    for (std::int64_t c = 0; c < m.cols; ++c)
      out.weights.push_back(count > 0 ? static_cast<float>(sums[imatrix::triangle(c) + c] / count) : 1.0f);
    out.counts.push_back(static_cast<std::int64_t>(count));
  }
  return out;
}

/// Adds the rules of an allocation behind those of the user; answers their text.
result<std::string> add_allocation(const gguf::model_view& model, const run_options& o,
                                   const statistics_of_run& with, const placement& place,
                                   type_options& types) {
  if (o.target_bpw <= 0 && o.target_size == 0) return std::string();
  auto options = read_allocation_options(o, types);
  if (!options) return options.error();
  const auto meta = metadata_of(model, o, *types.type, with.importance);
  options->output_bytes = [&](const model_plan& p) -> result<std::uint64_t> {
    const auto paths = place(p);
    return paths ? output_bytes(*paths, meta, p) : result<std::uint64_t>(paths.error());
  };
  thread_pool pool(text::thread_count(o.threads));
  auto rules = allocate(model, types, with.importance ? &*with.importance : nullptr,
                        with.moments ? &*with.moments : nullptr, *options, pool);
  if (!rules) return rules.error();
  const char* origin = o.target_size ? "--target-size" : "--target-bpw";
  if (auto parsed = parse_rules(*rules, origin, false, types.rules); !parsed) return parsed.error();
  return rules;
}

/// Adds the rules for tensors on lattices behind those of the user; answers their text.
result<std::string> add_lattices(const gguf::model_view& model, const run_options& o, type_options& types) {
  if (!o.lattice) return std::string();
  if (types.type->is_copy())
    return error{"--lattice has no effect with type " + std::string(types.type->name) +
                 "; type BF16 keeps the other tensors of a bf16 model as they are"};
  thread_pool pool(text::thread_count(o.threads));
  auto rules = lattice_rules(model, types, pool);
  if (!rules) return rules.error();
  if (auto parsed = parse_rules(*rules, "--lattice", false, types.rules); !parsed) return parsed.error();
  return rules;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Prints the plan as it is carried out.
class reporter {
 public:
  reporter(const run_options& o, const model_plan& p, const type_options& t, std::string allocated)
      : options_(o),
        allocated_(std::move(allocated)),
        plan_(p),
        types_(t),
        bar_("quantize", static_cast<std::int64_t>(p.bytes), !o.dry_run && ::isatty(STDERR_FILENO) != 0) {}

  void advance(std::size_t bytes) { bar_.update(done_ += static_cast<std::int64_t>(bytes)); }

  /// What is known before anything is written.
  void begin(const sequential_run* sequential) const {
    if (options_.quiet || options_.json) return;
    if (!options_.hessian.empty()) std::printf("%s", moments_table(plan_, options_.hessian).c_str());
    if (sequential) std::printf("sequential: %s\n", sequential->describe().c_str());
    std::fflush(stdout);
  }

  void tensor(std::size_t i, const std::optional<conversion_loss>& e, double seconds = 0) {
    const auto& s = plan_.steps[i];
    if (e)
      if (auto w = range_warning(s, e->range); !w.empty()) warnings_.push_back(std::move(w));
    if (options_.quiet) return;
    if (options_.json) {
      tensors_.push_back(step_json(s, types_.rules, e, !options_.hessian.empty()));
      if (e) tensors_.back()["seconds"] = seconds;
      return;
    }
    bar_.clear();
    std::printf("%s%s%s%s\n", step_head(s, i, plan_.steps.size()).c_str(), step_size(s).c_str(),
                e ? step_error(s, *e).c_str() : "", e ? (", " + text::human_time(seconds)).c_str() : "");
    std::fflush(stdout);
  }

  void finish(const std::vector<std::filesystem::path>& paths) {
    bar_.clear();
    for (const auto& w : warnings_) std::fprintf(stderr, "WARNING: %s\n", w.c_str());
    if (options_.quiet) return;
    const double seconds = seconds_since(start_);
    if (options_.json) return print_json(document(paths, seconds));
    std::printf("\n%s", totals(plan_, types_.rules, !options_.imatrix.empty()).c_str());
    if (!allocated_.empty())
      std::printf("--custom-q %s\n", text::printable(shell_quoted(allocated_)).c_str());
    for (const auto& p : paths) std::printf("%s %s\n", options_.dry_run ? "would write" : "wrote", p.c_str());
    std::printf("total time  = %s\n", text::human_time(seconds).c_str());
  }

 private:
  json document(const std::vector<std::filesystem::path>& paths, double seconds) {
    json files = json::array();
    for (const auto& p : paths) files.push_back(p.string());
    json out = {{"input", options_.in.string()},
                {"output", files},
                {"dry_run", options_.dry_run},
                {"type", plan_.type->name},
                {"file_type", plan_.type->id},
                {"imatrix", options_.imatrix.empty() ? json(nullptr) : json(options_.imatrix)}};
    out.update(totals_json(plan_, types_.rules));
    if (!allocated_.empty()) out["custom_q"] = allocated_;
    out["seconds"] = seconds;
    out["tensors"] = std::move(tensors_);
    return out;
  }

  const run_options& options_;
  std::string allocated_;  ///< rules of lattices and of an allocation
  const model_plan& plan_;
  const type_options& types_;
  progress bar_;
  std::int64_t done_ = 0;
  json tensors_ = json::array();
  std::vector<std::string> warnings_;  ///< weights beyond the range of their type
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

/// `scale`: what lies beside the tensor in the output, 1 unless its type has such a scale. `inputs`: of a sequential run, or
/// null.
result<std::optional<conversion_loss>> write_tensor(const gguf::model_view& model, const step& s,
                                                    const statistics_of_run& with, const model_plan& plan,
                                                    const gguf::tensor_scale& scale, executor_ref threads,
                                                    const sink& to, const paired_moments* inputs = nullptr) {
  using answer = std::optional<conversion_loss>;
  const auto rows = model.rows(*s.tensor);
  if (!rows) return rows.error();
  if (s.to.copy && !rows->made()) {
    auto w = to(rows->whole());
    return w ? result<answer>(answer{}) : w.error();
  }
  imatrix::importance importance;
  if (with.importance && s.importance.from != imatrix::source::none) {
    auto found = imatrix::resolve(*with.importance, model, *s.tensor, plan.shape);
    if (!found) return found.error();
    importance = std::move(*found);
  }
  if (inputs && !importance) importance = diagonal_of(inputs->inputs, *s.tensor);
  scale_pair scales{{}, scale};
  if (!s.to.copy) {
    auto from = gguf::read_scale(model, *s.tensor);
    if (!from) return from.error();
    scales.from = std::move(*from);
  }
  const auto* weights = importance ? &importance : nullptr;
  const auto convert_with_moments = [&]() -> result<conversion_loss> {
    if (inputs)
      return convert_output_aware(*s.tensor, *rows, s.to.type, weights, inputs->inputs, scales, threads, to,
                                  inputs);
    const auto moments = with.moments->read(s.moments.of);
    if (!moments) return moments.error();
    return convert_output_aware(*s.tensor, *rows, s.to.type, weights, *moments, scales, threads, to);
  };
  auto e = s.moments || inputs ? convert_with_moments()
                               : convert(*s.tensor, *rows, s.to.type, weights, scales, threads, to);
  if (!e) return error{model.path() + ": " + e.error().message};
  return s.to.copy && !rows->before() ? answer{} : answer{*e};
}

/// Measures the scale that lies beside a tensor and writes it.
result<gguf::tensor_scale> write_scale(const gguf::model_view& model, const gguf::tensor_info& t,
                                       executor_ref threads, const sink& to) {
  const auto rows = model.rows(t);
  if (!rows) return rows.error();
  const auto from = gguf::read_scale(model, t);
  if (!from) return from.error();
  auto scale = measure_scale(t, *rows, *from, nvfp4::gguf_id, threads);
  if (!scale) return error{model.path() + ": " + scale.error().message};
  if (auto w = to(std::as_bytes(std::span(scale->values()))); !w) return w.error();
  return scale;
}

/// Converts the steps of a plan, one at a time.
class step_runner {
 public:
  step_runner(const gguf::model_view& model, const model_plan& plan, const statistics_of_run& with,
              bool strict, executor_ref threads, reporter& report)
      : model_(model), plan_(plan), with_(with), strict_(strict), threads_(threads), report_(report) {}

  /// A scale comes before the tensor that it lies beside.
  result<void> run(std::size_t i, const paired_moments* inputs, const sink& out) {
    const auto& s = plan_.steps[i];
    const auto to = [&](std::span<const std::byte> bytes) {
      report_.advance(bytes.size());
      return out(bytes);
    };
    if (s.scale_of) {
      auto measured = write_scale(model_, *s.scale_of, threads_, to);
      if (!measured) return measured.error();
      scale_ = std::move(*measured);
      report_.tensor(i, std::nullopt);
      return {};
    }
    const auto start = std::chrono::steady_clock::now();
    const auto scale = std::exchange(scale_, {});
    const auto e = write_tensor(model_, s, with_, plan_, scale, threads_, to, inputs);
    if (!e) return e.error();
    if (strict_ && *e && (*e)->range.any())
      return error{model_.path() + ": " + range_warning(s, (*e)->range) + " (--strict)"};
    report_.tensor(i, *e, seconds_since(start));
    return {};
  }
  /// Of the next tensor.
  const gguf::tensor_scale& scale() const noexcept { return scale_; }

 private:
  const gguf::model_view& model_;
  const model_plan& plan_;
  const statistics_of_run& with_;
  bool strict_;
  executor_ref threads_;
  reporter& report_;
  gguf::tensor_scale scale_;
};

result<void> execute(const model_plan& plan, step_runner& steps, output& out) {
  for (std::size_t i = 0; i < plan.steps.size(); ++i)
    if (auto r = steps.run(
            i, nullptr, [&](std::span<const std::byte> bytes) { return out.append(plan.steps[i], bytes); });
        !r)
      return r;
  return out.finish();
}

/// The output is written last, beside the converted tensors: it must not fail then, after hours.
result<void> check_space(const std::filesystem::path& folder, const model_plan& plan) {
  std::error_code failed;
  const auto space = std::filesystem::space(folder.empty() ? "." : folder, failed);
  if (failed || space.available >= plan.bytes) return {};
  return error{(folder.empty() ? "." : folder.string()) + ": " + text::human_size(space.available) +
               " are free; the output takes " + text::human_size(plan.bytes) +
               " beside the converted tensors that wait there"};
}

result<void> execute_sequential(sequential_run& run, const model_plan& plan, step_runner& steps,
                                const std::filesystem::path& scratch, executor_ref threads, output& out) {
  auto store = step_store::in(scratch, plan);
  if (!store) return store.error();
  if (auto r = check_space(scratch, plan); !r) return r;
  const auto done =
      run.run(plan, scratch, threads, [&](std::size_t i, const paired_moments* inputs) -> result<converted> {
        const auto scale = steps.scale();
        auto r =
            steps.run(i, inputs, [&](std::span<const std::byte> bytes) { return store->append(i, bytes); });
        if (!r) return r.error();
        return converted{store->bytes(i), scale};
      });
  if (!done) return done;
  for (std::size_t i = 0; i < plan.steps.size(); ++i)
    if (auto r = out.append(plan.steps[i], store->bytes(i)); !r) return r;
  return out.finish();
}

}  // namespace

result<type_options> read_type_options(const run_options& o) {
  type_options t;
  t.type = find_file_type(o.type);
  if (!t.type) return error{"unknown type '" + o.type + "'; known: " + known_file_types()};
  if (auto chosen = choose_family(o.types, t); !chosen) return chosen.error();
  for (const auto& r : o.rules)
    if (auto parsed = parse_rules(r, "--custom-q", false, t.rules); !parsed) return parsed.error();
  for (const auto& path : o.rule_files) {
    const auto content = file::read_text(path);
    if (!content) return content.error();
    if (auto parsed = parse_rules(*content, path, true, t.rules); !parsed) return parsed.error();
  }
  const auto embedding = optional_type(o.token_embedding_type, "--token-embedding-type");
  if (!embedding) return embedding.error();
  const auto output = optional_type(o.output_type, "--output-tensor-type");
  if (!output) return output.error();
  t.token_embedding = *embedding;
  t.output = *output;
  t.pure = o.pure;
  t.leave_output = o.leave_output;
  t.allow_requantize = o.allow_requantize;
  return t;
}

result<std::optional<imatrix::store>> load_statistics(const run_options& o) {
  if (o.imatrix.empty()) return std::optional<imatrix::store>();
  auto loaded = imatrix::load(o.imatrix);
  if (!loaded) return loaded.error();
  return std::optional<imatrix::store>(std::move(*loaded));
}

file_plan inputs_of(const run_options& o) {
  file_plan files;
  files.input("IN", o.in).input("--imatrix", o.imatrix).input("--hessian", o.hessian);
  files.input("--sensitivity", o.sensitivity).input("--text", o.sequential.text);
  files.inputs("--custom-q-file", o.rule_files);
  if (!o.quiet) files.prints();
  return files;
}

requirement required_of(const run_options& o) {
  return o.required == "all"    ? requirement::all
         : o.required == "none" ? requirement::none
                                : requirement::lowbit;
}

result<void> run(const run_options& o) {
  const auto model = gguf::reader::open(o.in);
  if (!model) return model.error();
  const auto paths = shard_paths(o.out, o.keep_split ? model->shards() : 1);
  auto files = inputs_of(o);
  for (const auto& p : paths)
    if (!o.dry_run) files.output("OUT", p);
  if (auto ok = files.check(); !ok) return ok;
  const auto place = [&](const model_plan&) { return paths; };
  if (!o.sequential) return run(*model, o, place);
  auto sequential = sequential_run::open(o.in, o.sequential);
  if (!sequential) return sequential.error();
  return run(*model, o, place, &*sequential);
}

result<void> run(const gguf::model_view& model, const run_options& o, const placement& place,
                 sequential_run* sequential) {
  auto types = read_type_options(o);
  if (!types) return types.error();
  if (sequential)
    types->run_knows_inputs = [&](std::string_view tensor) { return sequential->meets(tensor); };
  if (!types->allow_requantize)
    if (auto found = find_released(model, *types); !found) return found;
  auto loaded = load_statistics(o);
  if (!loaded) return loaded.error();
  const auto statistics = std::move(*loaded);
  std::optional<imatrix::moments_file> moments;
  if (!o.hessian.empty()) {
    auto opened = imatrix::moments_file::open(o.hessian);
    if (!opened) return opened.error();
    moments.emplace(std::move(*opened));
  }
  const auto on_lattices = add_lattices(model, o, *types);
  if (!on_lattices) return on_lattices.error();
  auto allocated = add_allocation(model, o, {statistics, moments}, place, *types);
  if (!allocated) return allocated.error();
  if (!on_lattices->empty()) *allocated = *on_lattices + (allocated->empty() ? "" : ",") + *allocated;
  auto plan = make_plan(model, *types, statistics ? &*statistics : nullptr, required_of(o));
  if (!plan) return plan.error();
  if (sequential && std::ranges::none_of(plan->steps, wants_moments))
    return error{"--sequential has no effect with type " + std::string(types->type->name) +
                 ": no tensor's codes would be chosen"};
  if (moments)
    if (auto added = add_moments(model, *moments, *plan); !added) return added;
  const auto paths = place(*plan);
  if (!paths) return paths.error();
  reporter report(o, *plan, *types, *allocated);
  report.begin(sequential);
  if (o.dry_run) {
    for (std::size_t i = 0; i < plan->steps.size(); ++i) report.tensor(i, std::nullopt);
    report.finish(*paths);
    return {};
  }
  auto out = output::create(*paths, metadata_of(model, o, *types->type, statistics), *plan);
  if (!out) return out.error();
  thread_pool pool(text::thread_count(o.threads));
  const statistics_of_run with{statistics, moments};
  step_runner steps(model, *plan, with, o.strict, pool, report);
  auto done = sequential
                  ? execute_sequential(*sequential, *plan, steps, paths->front().parent_path(), pool, *out)
                  : execute(*plan, steps, *out);
  if (!done) return done;
  report.finish(*paths);
  return {};
}

}  // namespace quantal::plan
