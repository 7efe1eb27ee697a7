#include "hf_convert.hpp"

#include <charconv>
#include <cstdio>
#include <limits>

#include "hf_model.hpp"
#include "importance.hpp"
#include "output.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

namespace fs = std::filesystem;

/// Removes a file at the end, whatever happens.
class temporary_file {
 public:
  explicit temporary_file(fs::path path) : path_(std::move(path)) {}
  temporary_file(const temporary_file&) = delete;
  temporary_file& operator=(const temporary_file&) = delete;
  ~temporary_file() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  const fs::path& path() const noexcept { return path_; }

 private:
  fs::path path_;
};

/// Fills files in order, none beyond the limit unless a single tensor is; answers their number.
int assign_shards(hf_model& model, const plan::model_plan& p, std::uint64_t limit) {
  int shard = 0;
  std::uint64_t used = 0;
  for (std::size_t i = 0; i < p.steps.size(); ++i) {
    const auto bytes =
        gguf::checked_round_up(p.steps[i].bytes, gguf::default_alignment).value_or(p.steps[i].bytes);
    if (limit && used && bytes > limit - std::min(limit, used)) ++shard, used = 0;
    used += bytes;
    model.place(i, shard);
  }
  return shard + 1;
}

result<void> check_paths(const std::vector<fs::path>& paths, const hf_model& model) {
  std::error_code ignored;
  for (const auto& p : paths) {
    if (fs::is_directory(p, ignored)) return error{p.string() + ": is a folder"};
    for (const auto& f : model.source().files())
      if (fs::equivalent(p, f.path(), ignored))
        return error{p.string() + ": is the input; writing over it is refused"};
  }
  return {};
}

/// The type and the options that only matter with one.
plan::run_options quantize_options(const convert_options& o) {
  auto q = o.quantize;
  if (q.type.empty()) q.type = "BF16";
  return q;
}

result<void> write(hf_model& model, const plan::run_options& q, std::uint64_t limit) {
  return plan::run(model, q, [&](const plan::model_plan& p) -> result<std::vector<fs::path>> {
    auto paths = plan::shard_paths(q.out, assign_shards(model, p, limit));
    if (auto ok = check_paths(paths, model); !ok) return ok.error();
    return paths;
  });
}

/// The file of importance that the text gives; collected on q8_0 weights, which need no importance
/// themselves.
result<fs::path> collect(hf_model& model, const convert_options& o) {
  const temporary_file small(o.quantize.out.string() + ".q8_0.tmp." + std::to_string(::getpid()) + ".gguf");
  plan::run_options q;
  q.in = o.quantize.in, q.out = small.path(), q.type = "Q8_0", q.threads = o.quantize.threads, q.quiet = true;
  if (auto done = write(model, q, 0); !done) return done.error();
  const fs::path out = o.quantize.out.string() + ".imatrix.gguf";
  if (auto done = collect_importance(
          {small.path(), o.imatrix_text, out, o.imatrix_context, o.imatrix_chunks, o.quantize.threads});
      !done)
    return done.error();
  return out;
}

result<mla::layout> layout_of(const convert_options& o) {
  const auto found = mla::find_layout(o.layout);
  if (!found) return error{"unknown layout '" + o.layout + "'; known: 3d, 2d, 2d+kv_b"};
  return *found;
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
  const auto* type = plan::find_file_type(q.type);
  if (!type) return error{"unknown type '" + q.type + "'; known: " + plan::known_file_types()};
  const auto to = layout_of(o);
  if (!to) return to.error();
  const bool exact = type->base == "f32" || type->base == "f16";
  auto model = hf_model::open(q.in, {*to, o.name, exact});
  if (!model) return model.error();
  if (!q.quiet)
    for (const auto& n : model->notices()) std::fprintf(stderr, "note: %s\n", text::printable(n).c_str());
  if (!o.imatrix_text.empty() && !q.dry_run) {
    const auto collected = collect(*model, o);
    if (!collected) return collected.error();
    q.imatrix = collected->string();
  }
  return write(*model, q, o.split_max_size);
}

}  // namespace quantal::hf
