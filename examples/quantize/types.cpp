#include "types.hpp"

#include <algorithm>
#include <array>

#include "fallback.hpp"
#include "quantal/quantize/quantize.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

std::string named(const gguf::tensor_info& t) { return "tensor '" + text::printable(t.name) + "'"; }

class chooser {
 public:
  chooser(type_options& options, const mix_context& context) : options_(options), context_(context) {}

  result<target> choose(const gguf::tensor_info& t) {
    if (options_.type->is_copy() || !is_quantized(t, options_.leave_output)) return target{t.type};
    auto wanted = wish(t);
    if (!wanted) return wanted;
    const format_info* f = find_format(wanted->type);
    if (auto fits = fit(t, *f, *wanted); !fits) return fits.error();
    if (wanted->type == t.type) return wanted->copy = true, wanted;
    if (auto readable = check_source(t); !readable) return readable.error();
    if (!can_quantize(wanted->type) || f->usage != role::weight)
      return error{named(t) + ": " + gguf::type_name(wanted->type) + " cannot be quantized to"};
    wanted->copy = false;
    return wanted;
  }

 private:
  /// The type before the shape is looked at: option, rule, mix, base; later ones give way.
  result<target> wish(const gguf::tensor_info& t) {
    target out;
    std::string_view name = options_.type->base;
    out.decided = reason::base;
    // The mix goes first for every tensor: it counts the ffn_down tensors that pass.
    if (const auto mixed = mix_type(*options_.type, t.name, t.cols(), context_); !options_.pure) {
      if (mixed != name) out.decided = reason::mix;
      name = mixed;
    }
    const format_info* chosen = find_format(name);
    const format_info* option = t.name == "output.weight"       ? options_.output
                                : t.name == "token_embd.weight" ? options_.token_embedding
                                                                : nullptr;
    if (option) {
      if (auto counted = count_matches(t.name); !counted) return counted.error();
    } else if (!options_.type->is_float()) {
      const auto rule = match_rules(options_.rules, t.name);
      if (!rule) return rule.error();
      out.rule = *rule;
    }
    if (out.rule >= 0)
      chosen = options_.rules[static_cast<std::size_t>(out.rule)].type, out.decided = reason::rule;
    if (option) chosen = option, out.decided = reason::option;
    if (!chosen)
      return error{named(t) + ": " + std::string(options_.type->name) + " wants " + std::string(name) +
                   ", a format that does not exist here; give it another type with a rule"};
    out.type = chosen->gguf_id;
    return out;
  }

  /// Rules that match a tensor which an option decides still count as matching.
  result<void> count_matches(const std::string& name) {
    for (auto& r : options_.rules) {
      const auto found = r.pattern.found_in(name);
      if (!found) return error{r.origin + ": " + found.error().message};
      r.matched += *found ? 1 : 0;
    }
    return {};
  }

  static result<void> fit(const gguf::tensor_info& t, const format_info& wanted, target& out) {
    if (t.cols() % wanted.layout.elements == 0) return {};
    const format_info* other = stand_in(wanted);
    if (!other || t.cols() % other->layout.elements != 0)
      return error{named(t) + ": " + std::to_string(t.cols()) + " columns fit neither " +
                   std::string(wanted.name) +
                   (other ? " nor its stand-in " + std::string(other->name) : " nor any stand-in") +
                   "; give it f16 or another type with a rule"};
    out.fallback_from = &wanted;
    out.type = other->gguf_id;
    return {};
  }

  result<void> check_source(const gguf::tensor_info& t) const {
    const format_info* f = find_format(t.type);
    if (!f || f->usage != role::weight)
      return error{named(t) + ": " + gguf::type_name(t.type) + " cannot be converted"};
    if (!f->is_float && !options_.allow_requantize)
      return error{named(t) + ": requantizing from type " + std::string(f->name) +
                   " is disabled (--allow-requantize)"};
    return {};
  }

  type_options& options_;
  mix_context context_;
};

}  // namespace

std::string_view to_string(reason r) {
  constexpr std::array<std::string_view, 5> names{"kept", "base", "mix", "rule", "option"};
  return names[static_cast<std::size_t>(r)];
}

bool is_quantized(const gguf::tensor_info& t, bool leave_output) {
  constexpr auto kept = std::to_array<std::string_view>(
      {"_norm.weight", "ffn_gate_inp.weight", "position_embd.weight", "token_types.weight", "ssm_conv1d",
       "ssm_x.weight", "ssm_dt.weight", "attn_rel_b.weight"});
  if (!t.name.ends_with("weight")) return false;
  if (t.ne[1] == 1 && t.ne[2] == 1 && t.ne[3] == 1) return false;
  if (leave_output && t.name == "output.weight") return false;
  if (gguf::find_plain_type(t.type)) return false;  // integers and f64 are never converted
  return std::none_of(kept.begin(), kept.end(),
                      [&](auto part) { return t.name.find(part) != std::string::npos; });
}

result<std::vector<target>> choose_types(const std::vector<gguf::tensor_info>& tensors, type_options& options,
                                         std::int64_t blocks, bool has_imatrix) {
  mix_context context{.blocks = blocks, .has_imatrix = has_imatrix};
  context.tied_embeddings =
      std::none_of(tensors.begin(), tensors.end(), [](auto& t) { return t.name == "output.weight"; });
  if (options.type->is_copy() || options.type->is_float())
    for (const auto& r : options.rules)
      return error{r.origin + ": rules have no effect with type " + std::string(options.type->name)};
  chooser c(options, context);
  std::vector<target> out;
  for (const auto& t : tensors) {
    auto chosen = c.choose(t);
    if (!chosen) return chosen.error();
    out.push_back(std::move(*chosen));
  }
  if (auto useful = check_rules(options.rules); !useful) return useful.error();
  return out;
}

}  // namespace quantal::plan
