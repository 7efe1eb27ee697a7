#include "summary.hpp"

#include "text.hpp"

namespace quantal::plan {
namespace {

double mib(std::uint64_t bytes) { return static_cast<double>(bytes) / (1024.0 * 1024.0); }

std::string histogram(const char* title, const std::map<std::string, std::int64_t>& types) {
  std::string out = title;
  for (const auto& [name, n] : types)
    out += "- type " + std::string(name.size() < 7 ? 7 - name.size() : 0, ' ') + name +
           text::format(": %4lld tensors\n", static_cast<long long>(n));
  return out;
}

std::string output_error(const output_loss& o) {
  if (!o.measured) return ", output-aware codes (no inputs held out to check them)";
  return text::format(", output nmse %.3e -> %.3e", o.plain / o.signal, o.chosen / o.signal) +
         (o.followed ? text::format(", followed %.2f", *o.followed) : "") +
         (o.accepted ? "" : " (not accepted: plain codes)");
}

std::string name_column(const std::string& tensor) {
  std::string name = text::printable(tensor);
  if (name.size() < 36) name.insert(0, 36 - name.size(), ' ');
  return name;
}

}  // namespace

std::string step_head(const step& s, std::size_t index, std::size_t total) {
  const auto& t = *s.tensor;
  return text::format("[%4zu/%4zu] ", index + 1, total) + name_column(t.name) +
         text::format(" - [%5lld, %5lld, %5lld, %5lld], type = ", static_cast<long long>(t.ne[0]),
                      static_cast<long long>(t.ne[1]), static_cast<long long>(t.ne[2]),
                      static_cast<long long>(t.ne[3])) +
         text::format("%6s, ", gguf::type_name(t.type).c_str());
}

std::string step_size(const step& s) {
  if (s.to.copy) return text::format("size = %.3f MiB", mib(s.bytes));
  std::string out = text::format("converting to %s .. size = %.2f MiB -> %.2f MiB",
                                 gguf::type_name(s.to.type).c_str(), mib(s.tensor->nbytes), mib(s.bytes));
  if (s.to.fallback_from) out += ", instead of " + std::string(s.to.fallback_from->name);
  if (s.importance.from == imatrix::source::none) return out;
  out += ", importance: " + std::string(to_string(s.importance.from));
  if (s.importance.detail != s.tensor->name) out += " " + text::printable(s.importance.detail);
  return out;
}

std::string step_error(const step& s, const conversion_loss& loss) {
  if (loss.error.plain == 0 && !loss.range.any()) return ", exact";
  std::string out =
      text::format(s.importance.from == imatrix::source::none ? ", nmse %.3e" : ", weighted nmse %.3e",
                   loss.error.nmse_weighted());
  if (loss.range.cut) out += text::format(", %lld cut", static_cast<long long>(loss.range.cut));
  if (loss.range.lost) out += text::format(", %lld lost", static_cast<long long>(loss.range.lost));
  if (loss.output) out += output_error(*loss.output);
  return out;
}

std::string range_warning(const step& s, const range_loss& r) {
  const std::string type = gguf::type_name(s.to.type);
  std::string out;
  const auto add = [&](std::int64_t n, const std::string& what) {
    if (n == 0) return;
    out += out.empty() ? "tensor '" + text::printable(s.tensor->name) + "': " : "; ";
    out += text::format("%lld of %lld weights (%.3g %%) are ", static_cast<long long>(n),
                        static_cast<long long>(r.weights),
                        100.0 * static_cast<double>(n) / static_cast<double>(r.weights)) +
           what;
  };
  add(r.cut, "too large for the scales of " + type + " and were cut");
  add(r.lost, "too small for the scales of " + type + " and became zero");
  return out;
}

std::string moments_table(const model_plan& p, const std::string& file) {
  std::string lines;
  for (const auto& s : p.steps) {
    if (!s.moments && s.moments.why.empty()) continue;
    lines += name_column(s.tensor->name) + " - " + describe(s.moments, s.tensor->name);
    if (!s.moments)
      lines += s.importance.from == imatrix::source::none
                   ? ": plain codes"
                   : ": importance, " + std::string(to_string(s.importance.from));
    lines += "\n";
  }
  if (lines.empty()) lines = "no tensor of this plan has codes that they could choose\n";
  return "second moments of " + text::printable(file) + ":\n" + lines + "\n";
}

std::string totals(const model_plan& p, const std::vector<rule>& rules, bool has_imatrix) {
  std::string out;
  for (const auto& r : rules)
    out += "rule '" + text::printable(r.pattern.text()) + "' -> " + std::string(r.type->name) +
           text::format(": %lld tensors\n", static_cast<long long>(r.hits));
  out += histogram("source types:\n", p.source_types) + histogram("target types:\n", p.types);
  if (has_imatrix)
    for (const auto& name : p.missing_importance)
      out += "====== did not find weights for " + text::printable(name) + "\n";
  if (p.fallbacks > 0)
    out += text::format("WARNING: %lld of %lld tensor(s) required fallback quantization\n",
                        static_cast<long long>(p.fallbacks), static_cast<long long>(p.quantized));
  for (const auto& note : p.notes) out += "note: " + note + "\n";
  const double source_bpw =
      p.elements ? 8.0 * static_cast<double>(p.source_bytes) / static_cast<double>(p.elements) : 0.0;
  out += text::format("model size  = %8.2f MiB (%.2f BPW)\n", mib(p.source_bytes), source_bpw);
  out += text::format("quant size  = %8.2f MiB (%.2f BPW)\n", mib(p.bytes), p.bpw());
  return out;
}

json moments_json(const moments_note& n, const std::string& tensor) {
  if (!n) return {{"source", "none"}, {"detail", n.why}};
  return {{"source", n.of == tensor ? "own" : "same input"},
          {"detail", n.of},
          {"slices", n.slices},
          {"pooled", n.pooled},
          {"unseen", n.unseen},
          {"inputs", n.inputs},
          {"least_inputs", n.least},
          {"most_inputs", n.most},
          {"held_out", n.held_out}};
}

json step_json(const step& s, const std::vector<rule>& rules, const std::optional<conversion_loss>& loss,
               bool with_moments) {
  const auto& t = *s.tensor;
  json out = {{"name", t.name},
              {"shape", t.ne},
              {"source_type", gguf::type_name(t.type)},
              {"type", gguf::type_name(s.to.type)},
              {"copied", s.to.copy},
              {"decided_by", to_string(s.to.decided)},
              {"source_bytes", t.nbytes},
              {"bytes", s.bytes}};
  if (s.to.rule >= 0) out["rule"] = rules[static_cast<std::size_t>(s.to.rule)].pattern.text();
  if (s.to.fallback_from) out["fallback_from"] = s.to.fallback_from->name;
  if (s.to.copy) {
    if (loss) out["nmse"] = json_number(loss->error.nmse_plain());
    return out;
  }
  out["importance"] = {{"source", imatrix::to_string(s.importance.from)},
                       {"detail", s.importance.detail},
                       {"vectors", s.importance.vectors},
                       {"unseen", s.importance.unseen}};
  if (with_moments && (s.moments || !s.moments.why.empty())) out["moments"] = moments_json(s.moments, t.name);
  if (!loss) return out;
  if (const auto& o = loss->output) {
    out["output"] = {{"measured", o->measured},
                     {"plain_nmse", json_number(o->plain / o->signal)},
                     {"chosen_nmse", json_number(o->chosen / o->signal)},
                     {"accepted", o->accepted}};
    if (o->followed) out["output"]["followed"] = *o->followed;
  }
  out["nmse_weighted"] = json_number(loss->error.nmse_weighted());
  out["nmse"] = json_number(loss->error.nmse_plain());
  out["cut"] = loss->range.cut, out["lost"] = loss->range.lost;
  return out;
}

json totals_json(const model_plan& p, const std::vector<rule>& rules) {
  json listed = json::array();
  for (const auto& r : rules)
    listed.push_back({{"pattern", r.pattern.text()},
                      {"type", r.type->name},
                      {"origin", r.origin},
                      {"matched", r.matched},
                      {"hits", r.hits}});
  return {{"rules", listed},
          {"source_types", p.source_types},
          {"notes", p.notes},
          {"types", p.types},
          {"quantized", p.quantized},
          {"fallbacks", p.fallbacks},
          {"missing_importance", p.missing_importance},
          {"elements", p.elements},
          {"source_bytes", p.source_bytes},
          {"bytes", p.bytes},
          {"bpw", p.bpw()}};
}

}  // namespace quantal::plan
