#include "allocate.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "convert.hpp"
#include "json.hpp"
#include "progress.hpp"
#include "quantal/dequantize.hpp"
#include "quantal/quantize/error.hpp"
#include "quantal/quantize/quantize.hpp"
#include "text.hpp"

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
  const auto source = model.rows(t);
  if (!source) return source.error();
  const auto scale = gguf::read_scale(model, t);
  if (!scale) return scale.error();
  const std::int64_t rows = t.rows() * t.slices();
  const std::int64_t wanted = std::min(rows, std::max<std::int64_t>(sampled_elements / t.cols(), 32));
  sample s{t.cols(), std::vector<float>(static_cast<std::size_t>(wanted * t.cols())), {}};
  std::vector<std::byte> scratch(static_cast<std::size_t>(find_format(t.type)->row_bytes(t.cols())));
  for (std::int64_t i = 0; i < wanted; ++i) {
    const std::int64_t r = i * rows / wanted;
    float* x = s.weights.data() + i * t.cols();
    if (const auto failed = dequantize_row(t.type, source->row(r, scratch.data()), x, t.cols());
        failed != status::ok)
      return error{model.path() + ": tensor '" + text::printable(t.name) +
                   "': " + std::string(to_string(failed))};
    if (!std::all_of(x, x + t.cols(), [](float v) { return std::isfinite(v); }))
      return error{model.path() + ": tensor '" + text::printable(t.name) + "', row " + std::to_string(r) +
                   " is not finite"};
    scale->apply(r / t.rows(), x, t.cols());
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
    unit = tensor_scale_for(type.gguf_id, largest);
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
      if (quantize_row(type.gguf_id, x, w, bytes.data(), s.cols) != status::ok ||
          dequantize_row(type.gguf_id, bytes.data(), decoded.data(), s.cols) != status::ok)
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

std::string escaped(const std::string& name) {
  std::string out;
  for (const char c : name) {
    if (std::string_view(".^$|()[]{}*+?\\").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
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

std::vector<const format_info*> default_candidates() {
  std::vector<const format_info*> out;
  for (const char* name : {"iq2_xxs", "iq2_xs", "iq2_s", "q2_K", "iq3_xxs", "iq3_s", "q3_K", "iq4_xs",
                           "iq4_nl", "q4_K", "q5_0", "q5_1", "q5_K", "q6_K", "q8_0", "bf16"})
    if (const auto* f = find_format(name); f && can_quantize(f->gguf_id)) out.push_back(f);
  return out;
}

result<std::string> allocate(const gguf::model_view& model, type_options fixed,
                             const imatrix::store* statistics, const allocation_options& options,
                             executor_ref threads) {
  const auto plan = make_plan(model, fixed, statistics, requirement::none);
  if (!plan) return plan.error();
  std::vector<const step*> open;
  std::uint64_t spent = 0;
  for (const auto& s : plan->steps) {
    const auto* f = find_format(s.tensor->type);
    const bool free = is_quantized(*s.tensor, fixed.family) &&
                      !(fixed.leave_output && s.tensor->name == "output.weight") &&
                      s.to.decided != reason::rule && s.to.decided != reason::option && f &&
                      (f->is_float || fixed.allow_requantize);
    if (free && s.tensor->elements() > 0)
      open.push_back(&s);
    else
      spent += s.bytes;
  }
  if (open.empty()) return error{model.path() + ": --target-bpw: rules and options decide every tensor"};
  const auto weights = weights_of(open, options.sensitivities);
  if (!weights) return weights.error();
  const auto budget = static_cast<std::uint64_t>(options.bpw / 8 * static_cast<double>(plan->elements));

  std::vector<std::vector<choice_of_type>> choices;
  progress bar("error curves", static_cast<std::int64_t>(open.size()));
  std::uint64_t least = spent;
  for (std::size_t i = 0; i < open.size(); ++i) {
    const auto& t = *open[i]->tensor;
    imatrix::importance w;
    if (statistics && open[i]->importance.from != imatrix::source::none) {
      auto found = imatrix::resolve(*statistics, model, t, plan->shape);
      if (!found) return found.error();
      w = std::move(*found);
    }
    const auto s = draw(model, t, w);
    if (!s) return s.error();
    std::vector<choice_of_type> mine;
    for (const auto* f : options.types) {
      if (t.cols() % f->layout.elements != 0 || (needs_importance(*f, *fixed.type, fixed.family) && !w))
        continue;
      const double loss = f->gguf_id == t.type ? 0 : (*weights)[i] * error_with(*s, *f, threads);
      mine.push_back({f, *gguf::tensor_bytes(f->gguf_id, t.ne), loss});
    }
    if (mine.empty())
      return error{model.path() + ": tensor '" + text::printable(t.name) + "': no candidate type fits its " +
                   std::to_string(t.cols()) + " columns; add some with --target-types"};
    drop_dominated(mine);
    least += mine.front().bytes;
    choices.push_back(std::move(mine));
    bar.update(static_cast<std::int64_t>(i + 1), t.name);
  }
  const auto taken = budget > spent ? solve(choices, budget - spent) : std::vector<std::size_t>{};
  if (taken.empty())
    return error{model.path() +
                 text::format(": --target-bpw %g cannot be reached: the smallest types give %.3f",
                              options.bpw,
                              8 * static_cast<double>(least) / static_cast<double>(plan->elements))};
  std::string rules;
  for (std::size_t i = 0; i < open.size(); ++i)
    rules += (i ? ",^" : "^") + escaped(open[i]->tensor->name) +
             "$=" + std::string(choices[i][taken[i]].type->name);
  return rules;
}

}  // namespace quantal::plan
