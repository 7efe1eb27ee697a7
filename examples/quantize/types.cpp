#include "types.hpp"

#include <algorithm>
#include <array>
#include <numeric>
#include <tuple>
#include <utility>

#include "fallback.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

std::string named(const gguf::tensor_info& t) { return "tensor '" + text::printable(t.name) + "'"; }

class chooser {
 public:
  chooser(type_options& options, const model_traits& model, bool has_imatrix,
          const std::vector<gguf::tensor_info>& tensors, rule_matches matches)
      : options_(options),
        model_(model),
        mix_(*options.type, options.family, model, has_imatrix, tensors),
        matches_(std::move(matches)) {}

  result<target> choose(const gguf::tensor_info& t, std::size_t index) {
    if (options_.type->is_copy() || (options_.leave_output && t.name == "output.weight"))
      return target{t.type};
    const int rule = exact_option(t) ? -1 : matches_.decide(index);
    if (rule < 0 && !is_quantized(t, options_.family)) return target{t.type};
    auto wanted = wish(t, rule);
    if (!wanted) return wanted;
    const format_info* f = find_format(wanted->type);
    const format_info& fit = fitting(*f, t.cols(), options_.family);
    if (&fit != f) wanted->fallback_from = f, wanted->type = fit.gguf_id;
    if (wanted->type == t.type) return wanted->copy = true, wanted;
    if (auto readable = check_source(t); !readable) return readable.error();
    if (!runtime::can_quantize(wanted->type) || fit.usage != role::weight)
      return error{named(t) + ": " + gguf::type_name(wanted->type) + " cannot be quantized to"};
    wanted->copy = false;
    return wanted;
  }

 private:
  /// The option that wins over rules, or null.
  const format_info* exact_option(const gguf::tensor_info& t) const {
    if (t.name == "output.weight") return options_.output;
    return t.name == "token_embd.weight" ? class_option(t) : nullptr;
  }

  /// The option for a tensor's class: embeddings without an output of their own take the output's, too.
  const format_info* class_option(const gguf::tensor_info& t) const {
    const auto kind = class_of(t.name, options_.family, model_);
    if (t.name == "output.weight" || (kind != tensor_class::output && kind != tensor_class::token_embd))
      return nullptr;
    if (options_.token_embedding) return options_.token_embedding;
    return kind == tensor_class::output ? options_.output : nullptr;
  }

  /// The type before the shape is looked at.
  result<target> wish(const gguf::tensor_info& t, int rule) {
    target out;
    const format_info* option = exact_option(t);
    if (!option && rule < 0) option = class_option(t);
    const format_info* chosen = option;
    std::string_view name = options_.type->base;
    out.decided = option ? reason::option : reason::base;
    if (!option && rule >= 0) {
      chosen = options_.rules[static_cast<std::size_t>(rule)].type;
      out.decided = reason::rule, out.rule = rule;
    } else if (!option) {
      if (!options_.pure) name = mix_.choose(t);
      if (name != options_.type->base) out.decided = reason::mix;
      chosen = find_format(name);
    }
    if (!chosen)
      return error{named(t) + ": " + std::string(options_.type->name) + " wants " + std::string(name) +
                   ", a format that does not exist here; give it another type with a rule"};
    out.type = chosen->gguf_id;
    return out;
  }

  result<void> check_source(const gguf::tensor_info& t) const {
    const format_info* f = find_format(t.type);
    if (!f || f->usage != role::weight)
      return error{named(t) + ": " + gguf::type_name(t.type) + " cannot be converted"};
    if (!may_be_source(t, options_))
      return error{named(t) + ": requantizing from type " + std::string(f->name) +
                   " is disabled (--allow-requantize)"};
    return {};
  }

  type_options& options_;
  const model_traits& model_;
  mixer mix_;
  rule_matches matches_;
};

/// Formats that only the other program reads need the user's word.
result<void> check_formats(const type_options& o) {
  const auto check = [&](const format_info* f, const std::string& where) -> result<void> {
    if (!f || o.any_format || reads(o.family, *f)) return {};
    return error{where + ": " + std::string(program_name(o.family)) + " does not read " +
                 std::string(f->name) + "; " +
                 (o.family == dialect::llama_cpp && o.type->known_to != owner::llama_cpp
                      ? "--types ik or --types all allows it"
                      : "--types all allows it")};
  };
  for (const auto& r : o.rules)
    if (auto fine = check(r.type, r.origin + ": rule '" + text::printable(r.pattern.text()) + "'"); !fine)
      return fine;
  if (auto fine = check(o.token_embedding, "--token-embedding-type"); !fine) return fine;
  return check(o.output, "--output-tensor-type");
}

/// The order in which tensors pass the mix: indices into `tensors`.
std::vector<std::size_t> passing_order(const std::vector<gguf::tensor_info>& tensors, dialect family) {
  std::vector<std::size_t> order(tensors.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (family == dialect::ik) return order;
  const auto key = [&](std::size_t i) {
    return std::tuple(block_index(tensors[i].name).value_or(-1), std::string_view(tensors[i].name));
  };
  std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return key(a) < key(b); });
  return order;
}

}  // namespace

bool may_be_source(const gguf::tensor_info& t, const type_options& options) {
  const auto* f = find_format(t.type);
  return f && (f->is_float || options.allow_requantize || options.released.contains(t.name));
}

std::string_view to_string(reason r) {
  constexpr std::array<std::string_view, 6> names{"kept", "base", "mix", "rule", "option", "no data"};
  return names[static_cast<std::size_t>(r)];
}

result<std::vector<target>> choose_types(const std::vector<gguf::tensor_info>& tensors, type_options& options,
                                         const model_traits& model, bool has_imatrix) {
  if (options.type->is_copy())
    for (const auto& r : options.rules)
      return error{r.origin + ": rules have no effect with type " + std::string(options.type->name)};
  if (auto fine = check_formats(options); !fine) return fine.error();
  auto matches = rule_matches::find(options.rules, tensors,
                                    [&](const auto& t) { return is_quantized(t, options.family); });
  if (!matches) return matches.error();
  chooser c(options, model, has_imatrix, tensors, std::move(*matches));
  std::vector<target> out(tensors.size());
  for (const auto i : passing_order(tensors, options.family)) {
    auto chosen = c.choose(tensors[i], i);
    if (!chosen) return chosen.error();
    out[i] = std::move(*chosen);
  }
  if (auto useful = check_rules(options.rules); !useful) return useful.error();
  return out;
}

}  // namespace quantal::plan
