#include "lattices.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include "kept.hpp"
#include "progress.hpp"
#include "quantal/quantize/error.hpp"
#include "quantal/runtime/ops.hpp"
#include "weight_rows.hpp"

namespace quantal::plan {
namespace {

/// Rows that are looked at closely, and about how many weights at most.
constexpr std::int64_t looked_at_rows = 48, looked_at_weights = 1 << 18;
/// Weights that one work item checks.
constexpr std::int64_t checked_at_once = 1 << 16;

/// Some rows of a tensor, evenly spread, the first and the last among them.
result<std::vector<float>> some_rows(const gguf::tensor_info& t, weight_rows& reader) {
  const std::int64_t cols = t.cols(), rows = t.rows() * t.slices();
  const std::int64_t wanted =
      std::min({rows, looked_at_rows, std::max<std::int64_t>(looked_at_weights / cols, 8)});
  std::vector<float> out(static_cast<std::size_t>(wanted * cols));
  for (std::int64_t i = 0; i < wanted; ++i)
    if (auto read =
            reader.read(i * (rows - 1) / std::max<std::int64_t>(wanted - 1, 1), out.data() + i * cols);
        !read)
      return read.error();
  return out;
}

/// How all rows lie on a lattice that some of them have.
result<lattice_fit_count> fit_all(const gguf::tensor_info& t, const weight_rows& reader,
                                  const lattice_finding& f, executor_ref threads) {
  const std::int64_t cols = t.cols(), rows = t.rows() * t.slices();
  const std::int64_t at_once = std::max<std::int64_t>(checked_at_once / cols, 1);
  std::vector<weight_rows> readers(static_cast<std::size_t>(threads.workers()), reader);
  std::vector<std::vector<float>> x(readers.size(), std::vector<float>(static_cast<std::size_t>(cols)));
  std::vector<lattice_fit_count> parts(readers.size());
  std::vector<std::optional<error>> failed(static_cast<std::size_t>((rows + at_once - 1) / at_once));
  threads.for_each(static_cast<int>(failed.size()), [&](int i, int worker) {
    const auto w = static_cast<std::size_t>(worker);
    for (std::int64_t r = i * at_once; r < std::min((i + 1) * at_once, rows); ++r) {
      if (auto read = readers[w].read(r, x[w].data()); !read) {
        failed[static_cast<std::size_t>(i)] = read.error();
        return;
      }
      parts[w].add(f.of, f.rounding, x[w].data(), cols);
    }
  });
  for (auto& e : failed)
    if (e) return std::move(*e);
  lattice_fit_count sum;
  for (const auto& p : parts) sum += p;
  return sum;
}

/// What a type makes of some rows.
struct trial {
  bool same_codes = true;
  quantization_error error;
};

/// Codes are those of the source if every group lies on the lattice and every weight comes back but for the rounding that it was stored
/// with and a quarter of a step, which the rounding of scales stays below.
bool has_same_codes(const lattice_finding& f, std::span<const float> row, std::span<const float> back) {
  const lattice_fitter fitter(f.of.levels, f.of.bits, f.rounding);
  const auto size = static_cast<std::size_t>(f.of.group);
  for (std::size_t first = 0; first < row.size(); first += size) {
    const auto g = fitter.fit(row.subspan(first, size));
    if (!g.fits) return false;
    for (std::size_t c = first; c < first + size; ++c)
      if (!(std::fabs(row[c] - back[c]) <=
            detail::half_place(row[c], f.rounding) + 0.25f * std::fabs(g.scale)))
        return false;
  }
  return true;
}

trial try_type(const format_info& type, const std::vector<float>& rows, std::int64_t cols,
               const lattice_finding& f) {
  float unit = 1;
  if (type.gguf_id == nvfp4::gguf_id) {
    float most = 0;
    for (const float v : rows) most = std::max(most, std::fabs(v));
    unit = tensor_scale_of(type.gguf_id, largest_of_groups(rows), most);
  }
  std::vector<std::byte> bytes(static_cast<std::size_t>(type.row_bytes(cols)));
  std::vector<float> x(static_cast<std::size_t>(cols)), y(x.size());
  trial out;
  for (auto row = rows.begin(); row != rows.end(); row += cols) {
    std::transform(row, row + cols, x.begin(), [&](float v) { return v / unit; });
    if (runtime::quantize_row(type.gguf_id, x.data(), nullptr, bytes.data(), cols) != status::ok ||
        runtime::dequantize_row(type.gguf_id, bytes.data(), y.data(), cols) != status::ok)
      return {false, {}};
    for (auto& v : y) v *= unit;
    out.error.add(&*row, y.data(), nullptr, cols);
    out.same_codes = out.same_codes && has_same_codes(f, {&*row, x.size()}, y);
  }
  return out;
}

/// Finds the smallest type that holds the lattice of these rows; it is lossless if all other rows lie on it, too.
void choose_type(const std::vector<float>& rows, std::int64_t cols, dialect family, lattice_finding& f) {
  constexpr std::array names{"tq1_0", "tq2_0", "q2_0", "mxfp4", "q4_0", "iq4_nl",
                             "nvfp4", "q4_1",  "q5_0", "q5_1",  "q8_0"};
  for (const char* name : names) {
    const auto* type = find_format(name);
    if (!type || !reads(family, *type) || cols % type->layout.elements != 0) continue;
    const auto t = try_type(*type, rows, cols, f);
    f.type = type, f.lossless = t.same_codes && f.all_fit(), f.nmse = t.error.nmse_plain();
    if (t.same_codes) return;
  }
}

std::string levels_of(const lattice_finding& f, const gguf::tensor_info& t) {
  std::string out = to_string(f.of);
  out += f.of.group == t.cols() ? ", rows" : ", groups of " + std::to_string(f.of.group);
  if (f.of.levels == level_set::e2m1 || f.of.levels == level_set::iq4_nl) return out;
  return out + ", codes " + std::to_string(f.fit.low) + ".." + std::to_string(f.fit.high);
}

}  // namespace

bool may_have_lattice(const gguf::tensor_info& t) {
  return is_convertible(t) && t.elements() > 0 && (t.rows() > 1 || t.slices() > 1) &&
         !t.name.ends_with(".scale");
}

result<lattice_finding> examine(const gguf::model_view& model, const gguf::tensor_info& t, dialect family,
                                executor_ref threads) {
  lattice_finding f;
  auto reader = weight_rows::open(model, t);
  if (!reader) return reader.error();
  const auto rows = some_rows(t, *reader);
  if (!rows) return rows.error();
  f.rounding = stored_rounding(*rows);
  f.of = find_lattice(*rows, t.cols());
  if (!f) return f;
  auto fit = fit_all(t, *reader, f, threads);
  if (!fit) return fit.error();
  f.fit = *fit;
  choose_type(*rows, t.cols(), family, f);
  return f;
}

result<std::string> lattice_rules(const gguf::model_view& model, type_options fixed, executor_ref threads) {
  const auto plan = make_plan(model, fixed, nullptr, requirement::none);
  if (!plan) return plan.error();
  progress bar("lattices", static_cast<std::int64_t>(plan->steps.size()));
  std::string rules;
  for (std::size_t i = 0; i < plan->steps.size(); ++i) {
    const auto& s = plan->steps[i];
    bar.update(static_cast<std::int64_t>(i + 1), s.tensor->name);
    if (!is_open(s, fixed) || !may_have_lattice(*s.tensor)) continue;
    const auto f = examine(model, *s.tensor, fixed.family, threads);
    if (!f) return f.error();
    if (!f->lossless ||
        f->type->row_bytes(s.tensor->cols()) >= find_format(s.tensor->type)->row_bytes(s.tensor->cols()))
      continue;
    rules += (rules.empty() ? "" : ",") + rule_for(s.tensor->name, *f->type);
  }
  return rules;
}

std::string_view scales_of(const lattice_finding& f) {
  if (f.of.levels == level_set::offset_integers) return "any";
  if (f.fit.power_of_two == f.fit.fitting) return "powers of two";
  return f.fit.half == f.fit.fitting ? "f16" : "f32";
}

std::string describe(const lattice_finding& f, const gguf::tensor_info& t) {
  if (!f) return "no lattice";
  std::string out = levels_of(f, t);
  out += f.all_fit() ? ", all groups fit"
                     : text::format(", %.2f %% of groups fit", 100 * static_cast<double>(f.fit.fitting) /
                                                                   static_cast<double>(f.fit.groups));
  if (f.of.levels != level_set::offset_integers) out += ", scales: " + std::string(scales_of(f));
  if (!f.type) return out + "; no type has such columns";
  return out + "; " + std::string(f.type->name) + (f.lossless ? " holds it" : " comes near") +
         (f.nmse == 0 ? ", exact" : text::format(", nmse %.1e", f.nmse));
}

}  // namespace quantal::plan
