#include "lattices.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <span>

#include "convert.hpp"
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

/// Rows of one work item.
std::int64_t rows_at_once(const gguf::tensor_info& t) {
  return std::max<std::int64_t>(checked_at_once / t.cols(), 1);
}

std::size_t work_items(const gguf::tensor_info& t) {
  const std::int64_t rows = t.rows() * t.slices(), at_once = rows_at_once(t);
  return static_cast<std::size_t>((rows + at_once - 1) / at_once);
}

/// Calls use(worker, row number, row) for all rows.
template <class Use>
result<void> for_all_rows(const gguf::tensor_info& t, const weight_rows& reader, executor_ref threads,
                          const Use& use) {
  const std::int64_t cols = t.cols(), rows = t.rows() * t.slices(), at_once = rows_at_once(t);
  std::vector<weight_rows> readers(static_cast<std::size_t>(threads.workers()), reader);
  std::vector<std::vector<float>> x(readers.size(), std::vector<float>(static_cast<std::size_t>(cols)));
  std::vector<std::optional<error>> failed(work_items(t));
  threads.for_each(static_cast<int>(failed.size()), [&](int i, int worker) {
    const auto w = static_cast<std::size_t>(worker);
    for (std::int64_t r = i * at_once; r < std::min((i + 1) * at_once, rows); ++r) {
      if (auto read = readers[w].read(r, x[w].data()); !read) {
        failed[static_cast<std::size_t>(i)] = read.error();
        return;
      }
      use(w, r, x[w]);
    }
  });
  for (auto& e : failed)
    if (e) return std::move(*e);
  return {};
}

/// How all rows lie on a lattice that some of them have.
result<lattice_fit_count> fit_all(const gguf::tensor_info& t, const weight_rows& reader,
                                  const lattice_finding& f, executor_ref threads) {
  std::vector<lattice_fit_count> parts(static_cast<std::size_t>(threads.workers()));
  const auto done = for_all_rows(t, reader, threads, [&](std::size_t w, std::int64_t, auto& row) {
    parts[w].add(f.of, f.rounding, row.data(), t.cols());
  });
  if (!done) return done.error();
  lattice_fit_count sum;
  for (const auto& p : parts) sum += p;
  return sum;
}

/// What a type makes of rows.
struct trial {
  bool same_codes = true;
  quantization_error error;

  trial& operator+=(const trial& o) {
    same_codes = same_codes && o.same_codes;
    error += o.error;
    return *this;
  }
};

/// Codes are those of the source if every weight of a group on the lattice comes back but for the rounding that it was stored with and a
/// quarter of a step, which the rounding of scales stays below. Other groups are counted elsewhere.
bool has_same_codes(const lattice_finding& f, std::span<const float> row, std::span<const float> back) {
  const lattice_fitter fitter(f.of.levels, f.of.bits, f.rounding);
  const auto size = static_cast<std::size_t>(f.of.group);
  for (std::size_t first = 0; first < row.size(); first += size) {
    const auto g = fitter.fit(row.subspan(first, size));
    if (!g.fits) continue;
    for (std::size_t c = first; c < first + size; ++c)
      if (!(std::fabs(row[c] - back[c]) <=
            detail::half_place(row[c], f.rounding) + 0.25f * std::fabs(g.scale)))
        return false;
  }
  return true;
}

/// Tries a type on one row after the other.
class type_trial {
 public:
  type_trial(const format_info& type, const lattice_finding& f, std::int64_t cols)
      : type_(type),
        finding_(f),
        bytes_(static_cast<std::size_t>(type.row_bytes(cols))),
        x_(static_cast<std::size_t>(cols)),
        y_(x_.size()) {}

  /// `unit`: the scale beside the tensor.
  void add(std::span<const float> row, float unit, trial& made) {
    const auto cols = static_cast<std::int64_t>(row.size());
    std::transform(row.begin(), row.end(), x_.begin(), [&](float v) { return v / unit; });
    if (runtime::quantize_row(type_.gguf_id, x_.data(), nullptr, bytes_.data(), cols) != status::ok ||
        runtime::dequantize_row(type_.gguf_id, bytes_.data(), y_.data(), cols) != status::ok) {
      made.same_codes = false;
      return;
    }
    for (auto& v : y_) v *= unit;
    made.error.add(row.data(), y_.data(), nullptr, cols);
    made.same_codes = made.same_codes && has_same_codes(finding_, row, y_);
  }

 private:
  const format_info& type_;
  const lattice_finding& finding_;
  std::vector<std::byte> bytes_;
  std::vector<float> x_, y_;
};

trial try_some(const format_info& type, const std::vector<float>& rows, std::int64_t cols,
               const lattice_finding& f) {
  float unit = 1;
  if (has_tensor_scale(type.gguf_id)) {
    float most = 0;
    for (const float v : rows) most = std::max(most, std::fabs(v));
    unit = tensor_scale_of(type.gguf_id, largest_of_groups(rows), most);
  }
  type_trial t(type, f, cols);
  trial made;
  for (auto row = rows.begin(); row != rows.end(); row += cols)
    t.add({&*row, static_cast<std::size_t>(cols)}, unit, made);
  return made;
}

/// A tensor with what reads it.
struct tensor_in_model {
  const gguf::model_view& model;
  const gguf::tensor_info& tensor;
  const weight_rows& reader;
  executor_ref threads;
};

/// As a run quantizes the tensor.
result<trial> try_all(const format_info& type, const tensor_in_model& in, const lattice_finding& f) {
  const auto& t = in.tensor;
  gguf::tensor_scale scale;
  if (has_tensor_scale(type.gguf_id)) {
    const auto rows = in.model.rows(t);
    if (!rows) return rows.error();
    const auto from = gguf::read_scale(in.model, t);
    if (!from) return from.error();
    auto measured = measure_scale(t, *rows, *from, type.gguf_id, in.threads);
    if (!measured) return measured.error();
    scale = std::move(*measured);
  }
  std::vector<type_trial> trials(static_cast<std::size_t>(in.threads.workers()), {type, f, t.cols()});
  std::vector<trial> parts(work_items(t));
  const auto done = for_all_rows(t, in.reader, in.threads, [&](std::size_t w, std::int64_t r, auto& row) {
    trials[w].add(row, scale.of(r / t.rows()), parts[static_cast<std::size_t>(r / rows_at_once(t))]);
  });
  if (!done) return done.error();
  trial sum;
  for (const auto& p : parts) sum += p;  // in the order of the rows: the threads do not matter
  return sum;
}

/// Finds the smallest type that holds the lattice. Some rows tell at once which do not; of the others all rows decide.
result<void> choose_type(const std::vector<float>& some, const tensor_in_model& in, dialect family,
                         lattice_finding& f) {
  constexpr std::array names{"tq1_0", "tq2_0", "q2_0", "mxfp4", "q4_0", "iq4_nl",
                             "nvfp4", "q4_1",  "q5_0", "q5_1",  "q8_0"};
  const std::int64_t cols = in.tensor.cols();
  for (const char* name : names) {
    const auto* type = find_format(name);
    if (!type || !reads(family, *type) || cols % type->layout.elements != 0) continue;
    if (!try_some(*type, some, cols, f).same_codes && name != names.back()) continue;
    const auto t = try_all(*type, in, f);
    if (!t) return t.error();
    f.type = type, f.lossless = t->same_codes && f.all_fit(), f.nmse = t->error.nmse_plain();
    if (t->same_codes) break;
  }
  return {};
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
  if (auto ok = choose_type(*rows, {model, t, *reader, threads}, family, f); !ok) return ok.error();
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
