// quantal-inspect: what is in a GGUF file or an importance matrix.
#include <cstdio>

#include "cli.hpp"
#include "file_plan.hpp"
#include "hf_model.hpp"
#include "json.hpp"
#include "lattices.hpp"
#include "program.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/imatrix/io.hpp"
#include "text.hpp"

namespace quantal {
namespace {

constexpr std::size_t shown_elements = 6;

json to_json(const gguf::value& v, bool whole);

json array_to_json(const gguf::array& a, bool whole) {
  json out = json::array();
  std::visit(
      [&](const auto& xs) {
        const std::size_t n = whole ? xs.size() : std::min(xs.size(), shown_elements);
        for (std::size_t i = 0; i < n; ++i) {
          using T = typename std::decay_t<decltype(xs)>::value_type;
          if constexpr (std::is_floating_point_v<T>)
            out.push_back(json_number(xs[i]));
          else
            out.push_back(static_cast<T>(xs[i]));
        }
        if (n < xs.size()) out.push_back("... " + std::to_string(xs.size()) + " in all");
      },
      a);
  return out;
}

json to_json(const gguf::value& v, bool whole) {
  json out;
  std::visit(
      [&](const auto& x) {
        using T = std::decay_t<decltype(x)>;
        if constexpr (std::is_same_v<T, gguf::array>)
          out = array_to_json(x, whole);
        else if constexpr (std::is_floating_point_v<T>)
          out = json_number(x);
        else
          out = x;
      },
      v);
  return out;
}

std::string shape_of(const gguf::tensor_info& t) {
  std::string s = "[";
  for (int d = 0; d < std::max(1, t.n_dims); ++d)
    s += (d ? ", " : "") + std::to_string(t.ne[static_cast<std::size_t>(d)]);
  return s + "]";
}

struct totals {
  std::int64_t elements = 0;
  std::uint64_t bytes = 0;
  std::map<std::string, std::pair<std::int64_t, std::uint64_t>> by_type;  ///< tensors, bytes

  explicit totals(const gguf::reader& r) {
    for (const auto& t : r.tensors()) {
      elements += t.elements();
      bytes += t.nbytes;
      auto& [n, b] = by_type[gguf::type_name(t.type)];
      ++n, b += t.nbytes;
    }
  }
  double bpw() const {
    return elements ? 8.0 * static_cast<double>(bytes) / static_cast<double>(elements) : 0;
  }
};

/// ", times 0.125" of a tensor with a scale beside it.
std::string scale_of(const gguf::reader& r, const gguf::tensor_info& t) {
  const auto s = gguf::read_scale(r, t);
  if (!s || s->is_one()) return {};
  if (s->values().size() > 1) return ", times one of " + std::to_string(s->values().size()) + " scales";
  return text::format(", times %.9g", static_cast<double>(s->of(0)));
}

void print_model_json(const gguf::reader& r) {
  const totals all(r);
  json meta = json::object(), tensors = json::array(), types = json::object();
  for (const auto& [k, v] : r.meta().items()) meta[k] = to_json(v, false);
  for (const auto& t : r.tensors()) {
    tensors.push_back(
        {{"name", t.name},
         {"type", gguf::type_name(t.type)},
         {"shape", std::vector<std::int64_t>(t.ne.begin(), t.ne.begin() + std::max(1, t.n_dims))},
         {"bytes", t.nbytes},
         {"shard", t.shard}});
    if (const auto s = gguf::read_scale(r, t); s && !s->is_one()) tensors.back()["scale"] = s->values();
  }
  for (const auto& [name, n] : all.by_type) types[name] = {{"tensors", n.first}, {"bytes", n.second}};
  print_json({{"file", r.path()},
              {"shards", r.shards()},
              {"elements", all.elements},
              {"bytes", all.bytes},
              {"bpw", all.bpw()},
              {"types", types},
              {"metadata", meta},
              {"tensors", tensors}});
}

void print_model(const gguf::reader& r) {
  std::printf("%s: %zu keys, %zu tensors in %d shard(s)\n\n", r.path().c_str(), r.meta().size(),
              r.tensors().size(), r.shards());
  for (const auto& [k, v] : r.meta().items())
    std::printf("%-48s %s\n", text::printable(k).c_str(),
                to_json(v, false).dump(-1, ' ', true, json::error_handler_t::replace).substr(0, 160).c_str());
  std::printf("\n");
  for (const auto& t : r.tensors())
    std::printf("%-40s %-10s %-24s %14llu bytes%s\n", text::printable(t.name).c_str(),
                gguf::type_name(t.type).c_str(), shape_of(t).c_str(),
                static_cast<unsigned long long>(t.nbytes), scale_of(r, t).c_str());
  const totals all(r);
  std::printf("\n");
  for (const auto& [name, n] : all.by_type)
    std::printf("- type %8s: %4lld tensors, %s\n", name.c_str(), static_cast<long long>(n.first),
                text::human_size(n.second).c_str());
  std::printf("%lld elements, %s, %.4f bpw\n", static_cast<long long>(all.elements),
              text::human_size(all.bytes).c_str(), all.bpw());
}

void print_imatrix(const std::string& path, const imatrix::store& s, bool as_json) {
  if (as_json) {
    json entries = json::array();
    for (const auto& [name, e] : s.entries) {
      const auto [low, high] = std::minmax_element(e.counts.begin(), e.counts.end());
      entries.push_back({{"name", name},
                         {"columns", e.cols},
                         {"slices", e.slices},
                         {"least_rows", *low},
                         {"most_rows", *high}});
    }
    return print_json({{"file", path},
                       {"kind", "imatrix"},
                       {"chunk_size", s.chunk_size},
                       {"chunks", s.chunk_count()},
                       {"approximate_counts", s.approximate_counts},
                       {"datasets", s.datasets},
                       {"entries", entries}});
  }
  std::printf("%s: importance matrix, %zu entries, %lld chunks of %lld tokens%s\n", path.c_str(),
              s.entries.size(), static_cast<long long>(s.chunk_count()), static_cast<long long>(s.chunk_size),
              s.approximate_counts ? ", approximate counts" : "");
  for (const auto& d : s.datasets) std::printf("dataset: %s\n", text::printable(d).c_str());
  for (const auto& [name, e] : s.entries) {
    const auto [low, high] = std::minmax_element(e.counts.begin(), e.counts.end());
    std::printf("%-40s %6lld columns x %4lld  rows %lld..%lld\n", text::printable(name).c_str(),
                static_cast<long long>(e.cols), static_cast<long long>(e.slices),
                static_cast<long long>(*low), static_cast<long long>(*high));
  }
}

json lattice_json(const plan::lattice_finding& f) {
  if (!f) return nullptr;
  json out = {{"levels", to_string(f.of)},
              {"bits", f.of.bits},
              {"group", f.of.group},
              {"low", f.fit.low},
              {"high", f.fit.high},
              {"groups", f.fit.groups},
              {"fitting", f.fit.fitting},
              {"scales", plan::scales_of(f)},
              {"type", nullptr},
              {"lossless", f.lossless},
              {"nmse", json_number(f.nmse)}};
  if (f.type) out["type"] = f.type->name;
  return out;
}

/// One line per matrix, as each is read.
result<void> print_lattices(const gguf::model_view& model, bool as_json, int threads) {
  thread_pool pool(threads);
  json tensors = json::array();
  for (const auto& t : model.tensors()) {
    if (!plan::may_have_lattice(t)) continue;
    const auto f = plan::examine(model, t, plan::dialect::llama_cpp, pool);
    if (!f) return f.error();
    if (as_json) {
      tensors.push_back({{"name", t.name}, {"type", gguf::type_name(t.type)}, {"lattice", lattice_json(*f)}});
      continue;
    }
    std::printf("%-40s %-6s %-24s %s\n", text::printable(t.name).c_str(), gguf::type_name(t.type).c_str(),
                shape_of(t).c_str(), plan::describe(*f, t).c_str());
    std::fflush(stdout);
  }
  if (as_json) print_json({{"file", model.path()}, {"tensors", tensors}});
  return {};
}

/// Of a GGUF model or a checkpoint's directory.
result<void> show_lattices(const std::string& path, bool as_json, int threads) {
  if (std::filesystem::is_directory(path)) {
    const auto model = hf::hf_model::open(path, {mla::layout::heads, {}, hf::presentation::f32});
    return model ? print_lattices(*model, as_json, threads) : model.error();
  }
  const auto model = gguf::reader::open(path);
  return model ? print_lattices(*model, as_json, threads) : model.error();
}

/// Importance matrices are GGUF files that say so, or legacy files without the magic.
bool is_imatrix(const std::string& path, const result<gguf::reader>& r) {
  if (r) {
    const auto type = r->meta().string("general.type");
    return type && *type == "imatrix";
  }
  return path.ends_with(".dat");
}

int run(int argc, char** argv) {
  std::string path;
  bool as_json = false, lattices = false;
  int threads = 0;
  cli::parser p(
      "quantal-inspect",
      "Shows metadata, tensors, types and sizes of a GGUF file, or the entries of an importance matrix.");
  p.positional("FILE", "GGUF model (first shard), or importance matrix (.gguf, .dat)", path).required();
  p.flag({"--lattice"},
         "what lattice the weights of each matrix lie on (int2 to int8, FP4, iq4_nl's table), and the type "
         "that holds "
         "it; FILE may be a checkpoint's directory, too",
         lattices);
  p.flag({"--json"}, "print JSON", as_json);
  p.option({"-t", "--threads"}, "N", "threads of --lattice, 0 = all", threads, {0, 1024});
  if (const auto code = p.run(argc, argv)) return *code;
  const auto fail = [](const std::string& m) {
    std::fprintf(stderr, "quantal-inspect: %s\n", m.c_str());
    return cli::exit_failure;
  };
  if (auto ok = file_plan().input("FILE", path).check(); !ok) return fail(ok.error().message);
  if (lattices) {
    const auto shown = show_lattices(path, as_json, text::thread_count(threads));
    return shown ? cli::exit_ok : fail(shown.error().message);
  }
  const auto r = gguf::reader::open(path);
  if (is_imatrix(path, r)) {
    const auto s = imatrix::load(path);
    if (!s) return fail(s.error().message);
    print_imatrix(path, *s, as_json);
    return cli::exit_ok;
  }
  if (!r) return fail(r.error().message);
  if (as_json)
    print_model_json(*r);
  else
    print_model(*r);
  return cli::exit_ok;
}

}  // namespace
}  // namespace quantal

int main(int argc, char** argv) { return quantal::run_program("quantal-inspect", argc, argv, quantal::run); }
