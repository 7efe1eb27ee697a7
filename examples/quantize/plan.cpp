#include "plan.hpp"

#include <algorithm>

#include "convert.hpp"
#include "fallback.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

std::string listed(const std::vector<std::string>& names) {
  constexpr std::size_t shown = 8;
  std::string out;
  for (std::size_t i = 0; i < std::min(names.size(), shown); ++i)
    out += (i ? ", " : "") + text::printable(names[i]);
  if (names.size() > shown) out += " and " + std::to_string(names.size() - shown) + " more";
  return out;
}

void count(model_plan& p, const step& s) {
  const auto& t = *s.tensor;
  ++p.source_types[gguf::type_name(t.type)];
  ++p.types[gguf::type_name(s.to.type)];
  p.source_bytes += t.nbytes;
  p.bytes += s.bytes;
  p.elements += t.elements();
  p.quantized += s.to.copy ? 0 : 1;
  p.fallbacks += s.to.fallback_from ? 1 : 0;
}

bool run_knows_inputs(const type_options& options, const std::string& tensor) {
  return options.run_knows_inputs && options.run_knows_inputs(tensor);
}

/// Looks importance up. A tensor that lacks what its type needs goes to `required`, or, where no pass can collect it, gets a
/// type that needs none.
result<void> add_importance(const gguf::model_view& model, const type_options& options,
                            const imatrix::store* statistics, requirement needed, step& s, model_plan& p,
                            std::vector<std::string>& required) {
  const format_info* f = find_format(s.to.type);
  if (s.to.copy || !f || f->is_float) return {};
  const auto& t = *s.tensor;
  if (statistics) {
    auto note = find_importance(model, t, *statistics, p.shape);
    if (!note) return note.error();
    s.importance = std::move(*note);
  }
  if (s.importance.from != imatrix::source::none || run_knows_inputs(options, t.name)) return {};
  const auto exempt = exemption_of(t.name, p.traits);
  const bool collapses = needs_importance(*f, *options.type, options.family);
  if ((statistics || options.run_knows_inputs) && exempt == exemption::unreached) {
    if (!collapses || needed == requirement::none) return {};
    s.to.decided = reason::no_data;
    if (!s.to.fallback_from) s.to.fallback_from = f;
    s.to.type = fitting(safe_format(), t.cols(), options.family).gguf_id;
    return {};
  }
  if (exempt == exemption::lookup || exempt == exemption::output) return {};
  if (statistics) p.missing_importance.push_back(t.name);
  if (lacks_importance(s, p.traits, options, needed))
    required.push_back(t.name + " (" + std::string(f->name) + ")");
  return {};
}

std::string counted(std::int64_t n, const char* what) {
  return std::to_string(n) + " " + what + (n == 1 ? "" : "s");
}

/// Quantized tensors that are quantized from because they are the source of truth.
void note_released(const type_options& options, model_plan& p) {
  if (options.allow_requantize) return;
  std::map<std::pair<std::string, bool>, std::int64_t> taken;
  for (const auto& s : p.steps)
    if (!s.to.copy && s.to.type != s.tensor->type && !find_format(s.tensor->type)->is_float)
      ++taken[{gguf::type_name(s.tensor->type), options.copies.contains(s.tensor->name)}];
  for (const auto& [which, n] : taken)
    p.notes.push_back(
        counted(n, "tensor") + " of " + which.first + " are quantized from: " +
        (which.second
             ? "the checkpoint has them in bf16, of which these are copies with an error of their own"
             : "the checkpoint was released so, as far as their scales tell"));
}

void add_notes(const type_options& options, model_plan& p) {
  note_released(options, p);
  const auto& a = p.traits.architecture;
  if (!options.type->is_float() && !options.type->is_copy() && !is_known_architecture(a))
    p.notes.push_back("architecture '" + text::printable(a) + "' was not compared with " +
                      std::string(program_name(options.family)) + "; its general rules choose the types");
  const auto safe = std::count_if(p.steps.begin(), p.steps.end(),
                                  [](const step& s) { return s.to.decided == reason::no_data; });
  if (safe > 0)
    p.notes.push_back("no pass runs the blocks of " + counted(safe, "tensor") +
                      ", so that no importance is collected: " + std::string(safe_format().name) +
                      " instead of types that need it");
  for (const auto& r : options.rules) {
    const std::string which = "rule '" + text::printable(r.pattern.text()) + "' ";
    if (r.reaches_kept())
      p.notes.push_back(which + "changes " + counted(r.hits, "tensor") + " that otherwise stay as they are");
    else if (r.kept > 0)
      p.notes.push_back(which + "also matches " + counted(r.kept, "tensor") +
                        " that stay as they are; a rule that matches only such tensors changes them");
  }
}

/// The tensors whose scale the plan makes anew or folds into the weights.
bool scale_is_replaced(const gguf::model_view& model, const gguf::tensor_info& t,
                       const std::vector<target>& targets) {
  const auto* weight = gguf::scaled_tensor(model, t);
  return weight && !targets[static_cast<std::size_t>(weight - model.tensors().data())].copy;
}

/// The scale that a tensor gets beside it.
void add_scale(model_plan& p, const gguf::tensor_info& t) {
  gguf::tensor_info s;
  s.name = gguf::scale_name(t.name), s.type = f32::gguf_id, s.n_dims = 1;
  s.ne[0] = scale_count(t);
  s.nbytes = static_cast<std::uint64_t>(s.ne[0]) * sizeof(float);
  p.scales.push_back(std::move(s));
  const auto& made = p.scales.back();
  step out{&made, {}, {}, made.nbytes, &t};
  out.to.type = f32::gguf_id, out.to.copy = true;
  ++p.types[gguf::type_name(made.type)];
  p.bytes += made.nbytes;
  p.steps.push_back(std::move(out));
}

}  // namespace

bool lacks_importance(const step& s, const model_traits& traits, const type_options& options,
                      requirement needed) {
  const auto* f = find_format(s.to.type);
  if (s.to.copy || s.scale_of || !f || f->is_float || s.importance.from != imatrix::source::none ||
      s.to.decided == reason::no_data || run_knows_inputs(options, s.tensor->name))
    return false;
  const auto exempt = exemption_of(s.tensor->name, traits);
  return exempt != exemption::lookup && exempt != exemption::output &&
         (needed == requirement::all ||
          (needed == requirement::lowbit && needs_importance(*f, *options.type, options.family)));
}

bool is_open(const step& s, const type_options& options) {
  return !s.scale_of && is_quantized(*s.tensor, options.family) &&
         !(options.leave_output && s.tensor->name == "output.weight") && s.to.decided != reason::rule &&
         s.to.decided != reason::option && may_be_source(*s.tensor, options) && s.tensor->elements() > 0;
}

result<model_plan> make_plan(const gguf::model_view& model, type_options& options,
                             const imatrix::store* statistics, requirement needed, on_lack then) {
  model_plan p;
  p.type = options.type;
  p.family = options.family;
  p.traits = traits_of(model.meta(), model.tensors());
  p.shape = imatrix::shape_of(model.meta());
  auto targets = choose_types(model.tensors(), options, p.traits, statistics || options.run_knows_inputs);
  if (!targets) return error{model.path() + ": " + targets.error().message};
  std::vector<std::string> required;
  for (std::size_t i = 0; i < targets->size(); ++i) {
    const auto& t = model.tensors()[i];
    if (scale_is_replaced(model, t, *targets)) continue;
    step s{&t, (*targets)[i], {}, 0};
    if (auto added = add_importance(model, options, statistics, needed, s, p, required); !added)
      return added.error();
    if (!s.to.copy && has_tensor_scale(s.to.type)) add_scale(p, t);
    const auto bytes = gguf::tensor_bytes(s.to.type, t.ne);
    if (!bytes)
      return error{model.path() + ": tensor '" + text::printable(t.name) +
                   "': " + gguf::type_name(s.to.type) + " cannot be copied"};
    s.bytes = *bytes;
    count(p, s);
    p.steps.push_back(std::move(s));
  }
  if (!required.empty() && then == on_lack::fail)
    return error{model.path() + ": " + std::to_string(required.size()) +
                 " tensor(s) need importance data that " +
                 (statistics ? "the imatrix does not have: " : "only an imatrix has: ") + listed(required) +
                 "; give --imatrix, another type, or --require-imatrix none"};
  add_notes(options, p);
  return p;
}

}  // namespace quantal::plan
