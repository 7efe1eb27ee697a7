#include "moments_plan.hpp"

#include <algorithm>
#include <numeric>

#include "output_aware.hpp"
#include "plan.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

/// One matrix for all rows, one per slice, or one per head where the heads lie one behind the other.
bool fits(const imatrix::moments_counts& c, const gguf::tensor_info& t, const imatrix::model_shape& shape) {
  const auto slices = static_cast<std::int64_t>(c.used.size());
  if (c.cols != t.cols()) return false;
  if (slices == 1 || slices == t.slices()) return true;
  const bool heads =
      t.name.find(".attn_k_b.") != std::string::npos || t.name.find(".attn_v_b.") != std::string::npos;
  return heads && t.slices() == 1 && (shape.heads == 0 || slices == shape.heads) && t.rows() % slices == 0;
}

error misfit(const imatrix::moments_file& file, const imatrix::moments_counts& c,
             const gguf::tensor_info& t) {
  return {file.path() + ": moments of " + std::to_string(c.used.size()) + " x " + std::to_string(c.cols) +
          " columns do not fit tensor '" + text::printable(t.name) + "' [" + std::to_string(t.cols()) + ", " +
          std::to_string(t.rows()) + ", " + std::to_string(t.slices()) + "]"};
}

moments_note note_of(std::string name, const imatrix::moments_counts& c, const gguf::tensor_info& t) {
  moments_note n;
  n.slices = static_cast<std::int64_t>(c.used.size());
  n.unseen = std::count(c.used.begin(), c.used.end(), 0.0);
  if (n.unseen == n.slices) {
    n.why = "no input seen";
    return n;
  }
  n.of = std::move(name);
  n.pooled = n.slices == 1 && t.slices() > 1;
  n.inputs = std::accumulate(c.used.begin(), c.used.end(), 0.0);
  n.held_out = std::accumulate(c.held_out.begin(), c.held_out.end(), 0.0);
  const auto [least, most] = std::minmax_element(c.used.begin(), c.used.end());
  n.least = *least, n.most = *most;
  return n;
}

std::string count(double inputs) { return text::format("%.0f", inputs); }

/// Whether the tensor may have codes that moments choose, and if not why.
bool takes_moments(const step& s, std::string& why) {
  if (s.to.copy || s.to.type == s.tensor->type || find_format(s.to.type)->is_float) return false;
  if (!has_output_aware_codes(s.to.type)) why = gguf::type_name(s.to.type) + " has no output-aware codes yet";
  return true;
}

}  // namespace

bool wants_moments(const step& s) {
  std::string why;
  return takes_moments(s, why) && why.empty();
}

result<moments_note> find_moments(const imatrix::moments_file& file, const gguf::tensor_info& t,
                                  const imatrix::model_shape& shape) {
  auto names = imatrix::detail::same_input(t.name);
  names.insert(names.begin(), t.name);
  for (const auto& name : names) {
    const auto* own = file.own_name(name);
    if (!own) continue;
    const auto counts = file.counts(*own);
    if (!counts) return counts.error();
    if (fits(*counts, t, shape)) return note_of(*own, *counts, t);
    if (name == t.name) return misfit(file, *counts, t);
  }
  moments_note none;
  none.why = "no second moments";
  return none;
}

std::string describe(const moments_note& n, const std::string& tensor) {
  if (!n) return n.why;
  std::string out = n.of == tensor ? "own" : "those of " + text::printable(n.of);
  if (n.pooled) out += ", pooled";
  if (n.slices > 1)
    out += ", " + std::to_string(n.slices) + " slices of";
  else
    out += ",";
  out += " " + (n.least == n.most ? count(n.most) : count(n.least) + " to " + count(n.most)) + " inputs";
  if (n.unseen) out += " (" + std::to_string(n.unseen) + " without any: plain codes)";
  return out + (n.held_out > 0 ? ", " + count(n.held_out) : std::string(", none")) + " held out";
}

result<void> add_moments(const gguf::model_view& model, const imatrix::moments_file& file, model_plan& p) {
  bool any = false, wanted = false;
  for (auto& s : p.steps) {
    std::string why;
    if (!takes_moments(s, why)) continue;
    auto note = find_moments(file, *s.tensor, p.shape);
    if (!note) return note.error();
    wanted = true, any = any || *note;
    if (!why.empty()) *note = {}, note->why = why;
    s.moments = std::move(*note);
  }
  if (wanted && !any)
    return error{file.path() + ": holds second moments of no tensor of " + model.path() +
                 "; they belong to another model"};
  return {};
}

}  // namespace quantal::plan
