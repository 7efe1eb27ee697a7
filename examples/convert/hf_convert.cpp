#include "hf_convert.hpp"

#include <charconv>
#include <cstdio>
#include <limits>

#include "hf_model.hpp"
#include "importance.hpp"
#include "output.hpp"
#include "run.hpp"
#include "text.hpp"
#include "unnamed_file.hpp"

namespace quantal::hf {
namespace {

namespace fs = std::filesystem;

/// Fills files in order, none beyond the limit unless a single tensor is; answers their number.
int assign_shards(hf_model& model, const plan::model_plan& p, std::uint64_t limit) {
  int shard = 0;
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < p.steps.size(); ++i) {
    const auto bytes =
        gguf::checked_round_up(p.steps[i].bytes, gguf::default_alignment).value_or(p.steps[i].bytes);
    if (limit && used && bytes > limit - std::min(limit, used)) ++shard, used = 0;
    used += bytes;
    if (const auto* t = p.steps[i].scale_of ? nullptr : p.steps[i].tensor)
      model.place(static_cast<std::size_t>(t - model.tensors().data()), shard);
  }
  return shard + 1;
}

/// What --imatrix-text leaves beside the output.
fs::path imatrix_of(const fs::path& out) { return out.string() + ".imatrix.gguf"; }

/// Of `outputs`, as far as they are known.
result<void> check_files(const convert_options& o, const std::vector<fs::path>& outputs) {
  if (o.quantize.dry_run) return {};
  auto files = plan::inputs_of(o.quantize);
  files.input("--imatrix-text", o.imatrix_text);
  for (const auto& p : outputs) files.output("OUT", p);
  if (!o.imatrix_text.empty()) files.output("OUT.imatrix.gguf", imatrix_of(o.quantize.out));
  return files.check();
}

/// The type and the options that only matter with one.
plan::run_options quantize_options(const convert_options& o) {
  auto q = o.quantize;
  if (q.type.empty()) q.type = "BF16";
  return q;
}

result<void> write(hf_model& model, const plan::run_options& q, const convert_options& o) {
  return plan::run(model, q, [&](const plan::model_plan& p) -> result<std::vector<fs::path>> {
    auto paths = plan::shard_paths(q.out, assign_shards(model, p, o.split_max_size));
    if (auto ok = check_files(o, paths); !ok) return ok.error();
    return paths;
  });
}

/// The file of importance that the text gives; collected on q8_0 weights, which need no importance
/// themselves.
result<fs::path> collect(hf_model& model, const convert_options& o) {
  const auto small = unnamed_file::in(o.quantize.out.parent_path());
  if (!small) return small.error();
  plan::run_options q;
  q.in = o.quantize.in, q.out = small->path(), q.type = "Q8_0", q.threads = o.quantize.threads,
  q.quiet = true;
  const auto place = [&](const plan::model_plan& p) {
    assign_shards(model, p, 0);
    return std::vector<fs::path>{small->path()};
  };
  if (auto done = plan::run(model, q, place); !done) return done.error();
  const auto out = imatrix_of(o.quantize.out);
  if (auto done = collect_importance(
          {small->path(), o.imatrix_text, out, o.imatrix_context, o.imatrix_chunks, o.quantize.threads});
      !done)
    return done.error();
  return out;
}

bool is_automatic(const std::string& type) { return type == "auto"; }

result<mla::layout> layout_of(const convert_options& o) {
  const auto found = mla::find_layout(o.layout);
  if (!found) return error{"unknown layout '" + o.layout + "'; known: 3d, 2d, 2d+kv_b"};
  return *found;
}

/// Options that only models with latent attention have.
result<void> check_options(const hf_model& model, const convert_options& o, mla::layout to) {
  const auto name = model.meta().string("general.architecture");
  if (name && *name == "deepseek2") return {};
  const std::string which = model.path() + ": architecture " + text::in_quotes(name ? *name : "");
  if (to != mla::layout::heads) return error{which + ": --mla-layout is for models with latent attention"};
  if (!o.imatrix_text.empty())
    return error{which + ": --imatrix-text is for deepseek2, the only one that runs here; give --imatrix"};
  return {};
}

}  // namespace

result<std::uint64_t> parse_size(std::string_view s) {
  const error bad{text::in_quotes(s) + " is no size like 50G, 800M or 1000000"};
  std::uint64_t n = 0, unit = 1;
  const auto [end, failed] = std::from_chars(s.data(), s.data() + s.size(), n);
  const std::string_view suffix(end, static_cast<std::size_t>(s.data() + s.size() - end));
  if (suffix == "K") unit = 1'000;
  if (suffix == "M") unit = 1'000'000;
  if (suffix == "G") unit = 1'000'000'000;
  if (failed != std::errc{} || n == 0 || (unit == 1 && !suffix.empty()) ||
      n > std::numeric_limits<std::uint64_t>::max() / unit)
    return bad;
  return n * unit;
}

result<void> convert(const convert_options& o) {
  auto q = quantize_options(o);
  const bool natural = is_automatic(q.type);
  if (natural && q.lattice)
    return error{"--lattice has no effect with type auto, which keeps what is stored; give a type, BF16 say"};
  if (natural) q.type = "COPY";
  const auto* type = plan::find_file_type(q.type);
  if (!type) return error{"unknown type '" + q.type + "'; known: auto, " + plan::known_file_types()};
  const auto to = layout_of(o);
  if (!to) return to.error();
  if (auto ok = check_files(o, {q.out}); !ok) return ok;
  const bool exact = type->base == "f32" || type->base == "f16";
  auto model = hf_model::open(q.in, {*to, o.name,
                                     natural ? presentation::natural
                                     : exact ? presentation::f32
                                             : presentation::bf16});
  if (!model) return model.error();
  if (auto ok = check_options(*model, o, *to); !ok) return ok;
  if (!q.quiet)
    for (const auto& n : model->notices()) std::fprintf(stderr, "note: %s\n", text::printable(n).c_str());
  if (!o.imatrix_text.empty() && !q.dry_run) {
    const auto collected = collect(*model, o);
    if (!collected) return collected.error();
    q.imatrix = collected->string();
  }
  return write(*model, q, o);
}

}  // namespace quantal::hf
