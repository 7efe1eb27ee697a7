#include "allocate.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>
#include <optional>

#include "convert.hpp"
#include "json.hpp"
#include "output_gain.hpp"
#include "progress.hpp"
#include "quantal/lattice.hpp"
#include "quantal/quantize/error.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"
#include "weight_rows.hpp"

namespace quantal::plan {
namespace {

/// Error curves come from evenly spread rows of about this many weights.
constexpr std::int64_t sampled_elements = 1 << 18;

/// Rows of one tensor with their importance.
struct sample {
  std::int64_t cols = 0;
  std::vector<float> weights;
  std::vector<const float*> importance;  ///< per row, or null
};

result<sample> draw(const gguf::model_view& model, const gguf::tensor_info& t, const imatrix::importance& w) {
  auto reader = weight_rows::open(model, t);
  if (!reader) return reader.error();
  const std::int64_t rows = t.rows() * t.slices();
  const std::int64_t wanted = std::min(rows, std::max<std::int64_t>(sampled_elements / t.cols(), 32));
  sample s{t.cols(), std::vector<float>(static_cast<std::size_t>(wanted * t.cols())), {}};
  for (std::int64_t i = 0; i < wanted; ++i) {
    const std::int64_t r = i * rows / wanted;
    if (auto read = reader->read(r, s.weights.data() + i * t.cols()); !read) return read.error();
    s.importance.push_back(w ? w.row(r / t.rows(), r % t.rows(), t.rows()) : nullptr);
  }
  return s;
}

/// Weighted NMSE of the sample with a type.
double error_with(const sample& s, const format_info& type, executor_ref threads) {
  constexpr std::int64_t rows_per_item = 16;
  const auto rows = static_cast<std::int64_t>(s.importance.size());
  const auto items = static_cast<int>((rows + rows_per_item - 1) / rows_per_item);
  float unit = 1.0f;  // a scale beside the tensor; errors are relative
  if (has_tensor_scale(type.gguf_id)) {
    float largest = 0;
    for (const float v : s.weights) largest = std::max(largest, std::fabs(v));
    unit = tensor_scale_of(type.gguf_id, largest_of_groups(s.weights), largest);
  }
  std::vector<quantization_error> parts(static_cast<std::size_t>(items));
  threads.for_each(items, [&](int i, int) {
    std::vector<std::byte> bytes(static_cast<std::size_t>(type.row_bytes(s.cols)));
    std::vector<float> decoded(static_cast<std::size_t>(s.cols)), scaled(decoded.size());
    for (std::int64_t r = i * rows_per_item; r < std::min((i + 1) * rows_per_item, rows); ++r) {
      const float* x = s.weights.data() + r * s.cols;
      if (unit != 1.0f) {
        std::transform(x, x + s.cols, scaled.begin(), [&](float v) { return v / unit; });
        x = scaled.data();
      }
      const float* w = s.importance[static_cast<std::size_t>(r)];
      if (runtime::quantize_row(type.gguf_id, x, w, bytes.data(), s.cols) != status::ok ||
          runtime::dequantize_row(type.gguf_id, bytes.data(), decoded.data(), s.cols) != status::ok)
        return;
      parts[static_cast<std::size_t>(i)].add(x, decoded.data(), w, s.cols);
    }
  });
  quantization_error all;
  for (const auto& p : parts) all += p;
  return all.nmse_weighted();
}

/// Index of the first class that a name belongs to; their number if it is in none.
result<std::size_t> class_of(const std::string& name, const std::vector<sensitivity>& classes) {
  for (std::size_t c = 0; c < classes.size(); ++c) {
    const auto found = classes[c].tensors.found_in(name);
    if (!found) return error{"--sensitivity: " + found.error().message};
    if (*found) return c;
  }
  return classes.size();
}

/// KL divergence per unit of each tensor's error; what a class loses is shared by its tensors.
result<std::vector<double>> weights_of(const std::vector<const step*>& steps,
                                       const std::vector<sensitivity>& classes) {
  std::vector<double> out;
  if (classes.empty()) {
    for (const auto* s : steps) out.push_back(static_cast<double>(s->tensor->elements()));
    return out;
  }
  std::vector<std::size_t> members(classes.size());
  std::vector<std::size_t> of;
  for (const auto* s : steps) {
    const auto c = class_of(s->tensor->name, classes);
    if (!c) return c.error();
    of.push_back(*c);
    if (*c < classes.size()) ++members[*c];
  }
  double sum = 0, known = 0;
  for (std::size_t c = 0; c < classes.size(); ++c)
    if (members[c]) sum += classes[c].kld_per_nmse, known += static_cast<double>(members[c]);
  for (const auto c : of)  // tensors of no class: as an average one
    out.push_back(c < classes.size() ? classes[c].kld_per_nmse / static_cast<double>(members[c])
                  : known > 0        ? sum / known
                                     : 1);
  return out;
}

/// Choices that cost more and lose more than another are never taken.
void drop_dominated(std::vector<choice_of_type>& choices) {
  std::sort(choices.begin(), choices.end(), [](const auto& a, const auto& b) {
    return a.bytes != b.bytes ? a.bytes < b.bytes : a.loss < b.loss;
  });
  std::vector<choice_of_type> kept;
  for (const auto& c : choices)
    if (kept.empty() || c.loss < kept.back().loss) kept.push_back(c);
  choices = std::move(kept);
}

std::uint64_t total(const std::vector<std::vector<choice_of_type>>& tensors,
                    const std::vector<std::size_t>& taken) {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) bytes += tensors[i][taken[i]].bytes;
  return bytes;
}

std::vector<std::size_t> at_price(const std::vector<std::vector<choice_of_type>>& tensors, double price) {
  std::vector<std::size_t> out;
  for (const auto& choices : tensors) {
    const auto cost = [&](const choice_of_type& c) { return c.loss + price * static_cast<double>(c.bytes); };
    const auto best = std::min_element(choices.begin(), choices.end(),
                                       [&](const auto& a, const auto& b) { return cost(a) < cost(b); });
    out.push_back(static_cast<std::size_t>(best - choices.begin()));
  }
  return out;
}

/// Spends what the relaxation left over, always on the upgrade with the most gain per byte that still fits.
void spend_rest(const std::vector<std::vector<choice_of_type>>& tensors, std::uint64_t budget,
                std::vector<std::size_t>& taken) {
  std::uint64_t left = budget - total(tensors, taken);
  for (;;) {
    double best = 0;
    std::size_t tensor = 0, to = 0;
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      const auto& now = tensors[i][taken[i]];
      for (std::size_t k = 0; k < tensors[i].size(); ++k) {
        const auto& c = tensors[i][k];
        if (c.loss >= now.loss || c.bytes > now.bytes + left) continue;
        const double extra = c.bytes > now.bytes ? static_cast<double>(c.bytes - now.bytes) : 0.5;
        if ((now.loss - c.loss) / extra > best) best = (now.loss - c.loss) / extra, tensor = i, to = k;
      }
    }
    if (best <= 0) return;
    left = left + tensors[tensor][taken[tensor]].bytes - tensors[tensor][to].bytes;
    taken[tensor] = to;
  }
}

double loss_of(const std::vector<std::vector<choice_of_type>>& tensors,
               const std::vector<std::size_t>& taken) {
  double sum = 0;
  for (std::size_t i = 0; i < tensors.size(); ++i) sum += tensors[i][taken[i]].loss;
  return sum;
}

/// What Lagrangian relaxation finds; empty if nothing fits.
std::vector<std::size_t> solve_relaxed(const std::vector<std::vector<choice_of_type>>& tensors,
                                       std::uint64_t budget) {
  double low = 0, high = 1e-12;
  std::vector<std::size_t> best = at_price(tensors, 0);
  if (total(tensors, best) <= budget) return best;
  while (total(tensors, at_price(tensors, high)) > budget) {
    low = high, high *= 4;
    if (!std::isfinite(high)) return {};
  }
  for (int i = 0; i < 100; ++i) {
    const double middle = 0.5 * (low + high);
    (total(tensors, at_price(tensors, middle)) > budget ? low : high) = middle;
  }
  best = at_price(tensors, high);
  spend_rest(tensors, budget, best);
  return best;
}

/// The knapsack over what choices cost beyond the smallest ones, in units of bytes.
class choice_table {
 public:
  choice_table(const std::vector<std::vector<choice_of_type>>& tensors, std::uint64_t budget)
      : tensors_(tensors) {
    std::uint64_t unit = 0;
    for (const auto& choices : tensors) {
      const auto least = std::min_element(choices.begin(), choices.end(), [](const auto& a, const auto& b) {
                           return a.bytes < b.bytes;
                         })->bytes;
      least_.push_back(least), budget -= least;
      for (const auto& c : choices)
        unit = std::gcd(unit, c.bytes - least), most_ = std::max(most_, choices.size());
    }
    constexpr std::uint64_t most_cells = std::uint64_t{1} << 26;
    const std::uint64_t most_units = most_cells / std::max<std::size_t>(tensors.size(), 1);
    unit_ = std::max({unit, budget / std::max<std::uint64_t>(most_units, 1) + 1, std::uint64_t{1}});
    if (unit > 0 && budget / unit <= most_units) unit_ = unit;
    units_ = static_cast<std::size_t>(budget / unit_);
  }

  /// Costs are rounded up to units, which are exact wherever the table has room.
  std::vector<std::size_t> solve() const {
    if (most_ > 255) return {};
    std::vector<double> best(units_ + 1, 0.0), next(best.size());
    std::vector<std::uint8_t> taken(tensors_.size() * best.size());
    for (std::size_t i = 0; i < tensors_.size(); ++i) {
      add_tensor(i, best, next, taken.data() + i * best.size());
      best.swap(next);
    }
    std::vector<std::size_t> out(tensors_.size());
    for (std::size_t i = tensors_.size(), left = units_; i-- > 0;) {
      out[i] = taken[i * best.size() + left];
      left -= cost(i, out[i]);
    }
    return out;
  }

 private:
  std::size_t cost(std::size_t tensor, std::size_t choice) const {
    return static_cast<std::size_t>((tensors_[tensor][choice].bytes - least_[tensor] + unit_ - 1) / unit_);
  }
  void add_tensor(std::size_t i, const std::vector<double>& best, std::vector<double>& next,
                  std::uint8_t* taken) const {
    std::fill(next.begin(), next.end(), std::numeric_limits<double>::infinity());
    for (std::size_t k = 0; k < tensors_[i].size(); ++k) {
      const std::size_t extra = cost(i, k);
      const double loss = tensors_[i][k].loss;
      for (std::size_t s = extra; s < best.size(); ++s)
        if (best[s - extra] + loss < next[s])
          next[s] = best[s - extra] + loss, taken[s] = static_cast<std::uint8_t>(k);
    }
  }

  const std::vector<std::vector<choice_of_type>>& tensors_;
  std::vector<std::uint64_t> least_;
  std::size_t most_ = 0;
  std::uint64_t unit_ = 1;
  std::size_t units_ = 0;
};

/// The tensors that the allocation decides, and the bytes of all others.
struct open_tensors {
  std::vector<const step*> steps;
  std::uint64_t spent = 0, budget = 0, alignment = 1;

  std::uint64_t padded(std::uint64_t bytes) const { return (bytes + alignment - 1) / alignment * alignment; }
};

result<open_tensors> find_open(const gguf::model_view& model, const type_options& fixed,
                               const allocation_options& options, const model_plan& plan) {
  open_tensors out;
  if (options.bytes) {
    const auto alignment = model.meta().integer("general.alignment");
    out.alignment = alignment && *alignment > 0 ? static_cast<std::uint64_t>(*alignment) : 32;
    const auto all = options.output_bytes(plan);
    if (!all) return all.error();
    out.spent = *all;
  } else {
    out.spent = plan.bytes;
  }
  for (const auto& s : plan.steps) {
    if (!is_open(s, fixed)) continue;
    out.steps.push_back(&s);
    out.spent -= out.padded(s.bytes);
  }
  out.budget = options.bytes
                   ? options.bytes
                   : static_cast<std::uint64_t>(options.bpw / 8 * static_cast<double>(plan.elements));
  return out;
}

/// Losses of one tensor with every candidate.
class error_curve {
 public:
  error_curve(const gguf::model_view& model, const step& s, executor_ref threads)
      : model_(model), step_(s), threads_(threads) {}

  result<void> prepare(const imatrix::store* statistics, const imatrix::model_shape& shape,
                       const imatrix::moments_file* moments) {
    const auto& t = *step_.tensor;
    if (statistics && step_.importance.from != imatrix::source::none) {
      auto found = imatrix::resolve(*statistics, model_, t, shape);
      if (!found) return found.error();
      importance_ = std::move(*found);
    }
    auto drawn = draw(model_, t, importance_);
    if (!drawn) return drawn.error();
    sample_ = std::move(*drawn);
    if (!moments) return {};
    const auto note = find_moments(*moments, t, shape);
    if (!note) return note.error();
    if (!*note) return {};
    const auto m = moments->read(note->of);
    if (!m) return m.error();
    auto gain = output_gain::sample(model_, t, importance_ ? &importance_ : nullptr, *m);
    if (!gain) return gain.error();
    gain_.emplace(std::move(*gain));
    return {};
  }

  bool has_importance() const { return static_cast<bool>(importance_); }
  result<double> loss(const format_info& f) const {
    if (f.gguf_id == step_.tensor->type) return 0.0;
    const auto ratio = gain_ ? gain_->ratio(f.gguf_id, threads_) : result<double>(1.0);
    if (!ratio) return error{model_.path() + ": " + ratio.error().message};
    return *ratio * error_with(sample_, f, threads_);
  }

 private:
  const gguf::model_view& model_;
  const step& step_;
  executor_ref threads_;
  imatrix::importance importance_;
  sample sample_;
  std::optional<output_gain> gain_;
};

/// Divergence per unit of error of each tensor of which a table has losses above zero, -1 of the others.
class measured_weight {
 public:
  explicit measured_weight(const measured_losses& table) : table_(table) {}

  /// Compares the measurements of a tensor with its errors.
  result<void> add(const gguf::tensor_info& t, const error_curve& curve) {
    double loss = 0, nmse = 0;
    for (const auto& [type, measured] : table_.of(t.name)) {
      const auto& f = *find_format(type);
      if (!runtime::can_quantize(type) || t.cols() % f.layout.elements != 0) continue;
      const auto e = curve.loss(f);
      if (!e) return e.error();
      loss += measured, nmse += *e;
    }
    matched_ = matched_ || nmse > 0;
    const bool tells = nmse > 0 && loss > 0;  // no loss at all is noise: errors are never free
    of_.push_back(tells ? loss / nmse : -1);
    if (tells) sum_ += of_.back(), ++known_;
    return {};
  }
  /// Whether the table has measurements of any of the tensors.
  bool matched() const noexcept { return matched_; }
  /// Whether any of them tells what an error costs.
  bool any() const noexcept { return known_ > 0; }
  /// Of the i-th tensor that was added; an average one if its measurements tell nothing.
  double operator[](std::size_t i) const { return of_[i] >= 0 ? of_[i] : sum_ / static_cast<double>(known_); }

 private:
  const measured_losses& table_;
  std::vector<double> of_;
  double sum_ = 0;
  std::int64_t known_ = 0;
  bool matched_ = false;
};

/// What every open tensor loses with every candidate that fits it.
result<std::vector<std::vector<choice_of_type>>> all_losses(
    const gguf::model_view& model, const type_options& fixed, const imatrix::store* statistics,
    const imatrix::moments_file* moments, const allocation_options& options, const open_tensors& open,
    const imatrix::model_shape& shape, executor_ref threads) {
  const auto weights = weights_of(open.steps, options.sensitivities);
  if (!weights) return weights.error();
  measured_weight measured(options.measured);
  std::vector<std::vector<choice_of_type>> out;
  progress bar("error curves", static_cast<std::int64_t>(open.steps.size()));
  for (std::size_t i = 0; i < open.steps.size(); ++i) {
    const auto& t = *open.steps[i]->tensor;
    error_curve curve(model, *open.steps[i], threads);
    if (auto ready = curve.prepare(statistics, shape, moments); !ready) return ready.error();
    auto& mine = out.emplace_back();
    for (const auto* f : options.types) {
      if (t.cols() % f->layout.elements != 0 ||
          (needs_importance(*f, *fixed.type, fixed.family) && !curve.has_importance() &&
           !(fixed.run_knows_inputs && fixed.run_knows_inputs(t.name))))
        continue;
      const auto loss = curve.loss(*f);
      if (!loss) return loss.error();
      mine.push_back({f, open.padded(*gguf::tensor_bytes(f->gguf_id, t.ne)), *loss});
    }
    if (mine.empty())
      return error{model.path() + ": tensor '" + text::printable(t.name) + "': no candidate type fits its " +
                   std::to_string(t.cols()) + " columns; add some with --target-types"};
    if (auto compared = measured.add(t, curve); !compared) return compared.error();
    bar.update(static_cast<std::int64_t>(i + 1), t.name);
  }
  if (!options.measured.empty() && !measured.matched())
    return error{"--sensitivity: no tensor of " + model.path() + " whose type is open was measured"};
  for (std::size_t i = 0; i < out.size(); ++i)
    for (auto& c : out[i]) {
      const auto known = options.measured.of(open.steps[i]->tensor->name, c.type->gguf_id);
      c.loss = known ? *known : c.loss * (measured.any() ? measured[i] : (*weights)[i]);
    }
  return out;
}

}  // namespace

result<std::vector<sensitivity>> parse_sensitivities(std::string_view content, const std::string& origin) {
  const auto read = parse_json(content, origin);
  if (!read) return read.error();
  const json& document = *read;
  if (!document.is_object() || !document.contains("classes") || !document["classes"].is_array())
    return error{origin + ": expected JSON with {\"classes\": [...]}, as examples/study writes"};
  std::vector<sensitivity> out;
  for (const auto& c : document["classes"]) {
    const std::string where = origin + ": class " + std::to_string(out.size() + 1) + ": ";
    if (!c.is_object() || !c.contains("tensors") || !c["tensors"].is_string() ||
        !c.contains("kld_per_nmse") || !c["kld_per_nmse"].is_number() ||
        !(c["kld_per_nmse"].get<double>() >= 0))
      return error{where + "expected {\"tensors\": REGEX, \"kld_per_nmse\": NUMBER >= 0}"};
    auto tensors = pattern::compile(c["tensors"].get_ref<const std::string&>());
    if (!tensors) return error{where + tensors.error().message};
    out.push_back({std::move(*tensors), c["kld_per_nmse"].get<double>()});
  }
  if (out.empty()) return error{origin + ": holds no classes"};
  return out;
}

std::vector<std::size_t> solve(const std::vector<std::vector<choice_of_type>>& tensors,
                               std::uint64_t budget) {
  auto best = solve_relaxed(tensors, budget);
  if (best.empty() || total(tensors, best) > budget) return best;
  auto exact = choice_table(tensors, budget).solve();
  if (exact.empty()) return best;
  spend_rest(tensors, budget, exact);  // where units are rounded up
  return loss_of(tensors, exact) <= loss_of(tensors, best) ? exact : best;
}

std::vector<const format_info*> default_candidates() {
  std::vector<const format_info*> out;
  for (const char* name : {"iq2_xxs", "iq2_xs", "iq2_s", "q2_K", "iq3_xxs", "iq3_s", "q3_K", "iq4_xs",
                           "iq4_nl", "q4_K", "q5_0", "q5_1", "q5_K", "q6_K", "q8_0", "bf16"})
    if (const auto* f = find_format(name); f && runtime::can_quantize(f->gguf_id)) out.push_back(f);
  return out;
}

result<std::string> allocate(const gguf::model_view& model, type_options fixed,
                             const imatrix::store* statistics, const imatrix::moments_file* moments,
                             const allocation_options& options, executor_ref threads) {
  const char* option = options.bytes ? "--target-size" : "--target-bpw";
  const auto plan = make_plan(model, fixed, statistics, requirement::none);
  if (!plan) return plan.error();
  const auto open = find_open(model, fixed, options, *plan);
  if (!open) return open.error();
  if (open->steps.empty())
    return error{model.path() + ": " + option + ": rules and options decide every tensor"};
  auto losses = all_losses(model, fixed, statistics, moments, options, *open, plan->shape, threads);
  if (!losses) return losses.error();
  auto& choices = *losses;
  std::uint64_t least = open->spent;
  for (auto& c : choices) {
    drop_dominated(c);
    least += c.front().bytes;
  }
  const auto taken =
      open->budget > open->spent ? solve(choices, open->budget - open->spent) : std::vector<std::size_t>{};
  if (taken.empty() && options.bytes)
    return error{model.path() + ": --target-size " + std::to_string(options.bytes) +
                 " cannot be reached: the smallest types give " + std::to_string(least)};
  if (taken.empty())
    return error{model.path() +
                 text::format(": --target-bpw %g cannot be reached: the smallest types give %.3f",
                              options.bpw,
                              8 * static_cast<double>(least) / static_cast<double>(plan->elements))};
  std::string rules;
  for (std::size_t i = 0; i < open->steps.size(); ++i)
    rules += (i ? "," : "") + rule_for(open->steps[i]->tensor->name, *choices[i][taken[i]].type);
  return rules;
}

}  // namespace quantal::plan
