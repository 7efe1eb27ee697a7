#include "plan.hpp"

#include <algorithm>
#include <array>

#include "text.hpp"

namespace quantal::plan {
namespace {

std::int64_t integer_or_zero(const gguf::metadata& meta, const std::string& key) {
  const auto v = meta.integers(key);
  return v && !v->empty() ? std::max<std::int64_t>(v->front(), 0) : 0;
}

std::string architecture(const gguf::metadata& meta) {
  const auto a = meta.string("general.architecture");
  return a ? *a : std::string();
}

/// From the metadata, or from the names of models that lack the key.
std::int64_t block_count(const gguf::model_view& model) {
  const auto n = integer_or_zero(model.meta(), architecture(model.meta()) + ".block_count");
  if (n > 0) return n;
  std::int64_t last = -1;
  for (const auto& t : model.tensors()) last = std::max(last, block_index(t.name).value_or(-1));
  return last + 1;
}

/// Types whose quality collapses without importance.
bool is_low_bit(const format_info& f, const file_type& type) {
  constexpr auto names =
      std::to_array<std::string_view>({"iq2_xxs", "iq2_xs", "iq2_s", "iq1_s", "iq1_m", "iq1_kt", "iq2_kt"});
  return std::find(names.begin(), names.end(), f.name) != names.end() ||
         (f.name == "q2_K" && type.name == "Q2_K_S");
}

bool is_exempt(const std::string& name) { return name == "token_embd.weight" || name == "output.weight"; }

/// Finds importance for one tensor; data that does not fit is an error except for token_embd, which needs
/// none.
result<importance_note> find_importance(const gguf::model_view& model, const gguf::tensor_info& t,
                                        const imatrix::store& s, const imatrix::model_shape& shape) {
  auto found = imatrix::resolve(s, model, t, shape);
  if (!found && t.name == "token_embd.weight") return importance_note{};
  if (!found) return found.error();
  return importance_note{found->from, found->detail, found->vectors, found->unseen()};
}

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

}  // namespace

result<model_plan> make_plan(const gguf::model_view& model, type_options& options,
                             const imatrix::store* statistics, requirement needed) {
  model_plan p;
  p.type = options.type;
  p.shape = imatrix::shape_of(model.meta());
  auto targets = choose_types(model.tensors(), options, block_count(model), statistics != nullptr);
  if (!targets) return error{model.path() + ": " + targets.error().message};
  std::vector<std::string> required;
  for (std::size_t i = 0; i < targets->size(); ++i) {
    const auto& t = model.tensors()[i];
    step s{&t, (*targets)[i], {}, 0};
    const auto bytes = gguf::tensor_bytes(s.to.type, t.ne);
    if (!bytes)
      return error{model.path() + ": tensor '" + text::printable(t.name) +
                   "': " + gguf::type_name(s.to.type) + " cannot be copied"};
    s.bytes = *bytes;
    const format_info* f = find_format(s.to.type);
    if (!s.to.copy && f && !f->is_float) {
      if (statistics) {
        auto note = find_importance(model, t, *statistics, p.shape);
        if (!note) return note.error();
        s.importance = std::move(*note);
      }
      if (s.importance.from == imatrix::source::none && !is_exempt(t.name)) {
        if (statistics) p.missing_importance.push_back(t.name);
        if (needed == requirement::all || (needed == requirement::lowbit && is_low_bit(*f, *options.type)))
          required.push_back(t.name + " (" + std::string(f->name) + ")");
      }
    }
    count(p, s);
    p.steps.push_back(std::move(s));
  }
  if (!required.empty())
    return error{model.path() + ": " + std::to_string(required.size()) +
                 " tensor(s) need importance data that " +
                 (statistics ? "the imatrix does not have: " : "only an imatrix has: ") + listed(required) +
                 "; give --imatrix, another type, or --require-imatrix none"};
  return p;
}

}  // namespace quantal::plan
