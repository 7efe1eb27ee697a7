#include "explain.hpp"

#include <cstdio>

#include "json.hpp"
#include "quantal/gguf/reader.hpp"
#include "recipe.hpp"
#include "summary.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

/// "by rule 'ffn_down' (recipe.txt:3)", "by the mix of Q4_K_M", "kept".
std::string decided_by(const step& s, const type_options& types, bool has_type) {
  if (s.to.decided == reason::kept) return "kept";
  std::string out;
  if (s.to.rule >= 0) {
    const auto& r = types.rules[static_cast<std::size_t>(s.to.rule)];
    out = "by rule '" + text::printable(r.pattern.text()) + "' (" + text::printable(r.origin) + ")";
  } else if (!has_type) {
    return "by no rule: TYPE decides";
  } else if (s.to.decided == reason::option) {
    out = "by an option";
  } else {
    out = (s.to.decided == reason::mix ? "by the mix of " : "base type of ") + std::string(types.type->name);
  }
  if (s.to.fallback_from) out += ", instead of " + std::string(s.to.fallback_from->name);
  return out;
}

void print_text(const model_plan& plan, const type_options& types, bool has_type) {
  for (const auto& s : plan.steps) {
    const bool open = !has_type && s.to.rule < 0 && s.to.decided != reason::kept;
    std::printf("%-40s %-8s -> %-8s %s\n", text::printable(s.tensor->name).c_str(),
                gguf::type_name(s.tensor->type).c_str(), open ? "?" : gguf::type_name(s.to.type).c_str(),
                decided_by(s, types, has_type).c_str());
  }
  for (const auto& n : plan.notes) std::printf("note: %s\n", text::printable(n).c_str());
  for (const auto& r : write_recipes(types.rules)) {
    std::printf("\n%s:\n%s\n", r.program.c_str(), text::printable(r.arguments).c_str());
    for (const auto& c : r.caveats) std::printf("# %s %s\n", r.program.c_str(), c.c_str());
  }
}

void print_as_json(const model_plan& plan, const type_options& types, bool has_type) {
  json tensors = json::array(), recipes = json::array();
  for (const auto& s : plan.steps) {
    tensors.push_back(step_json(s, types.rules, std::nullopt));
    tensors.back()["explanation"] = decided_by(s, types, has_type);
  }
  for (const auto& r : write_recipes(types.rules))
    recipes.push_back({{"program", r.program}, {"arguments", r.arguments}, {"caveats", r.caveats}});
  print_json({{"tensors", tensors}, {"notes", plan.notes}, {"recipes", recipes}});
}

}  // namespace

result<void> explain(const run_options& given) {
  auto o = given;
  const bool has_type = !o.type.empty();
  if (!has_type) o.type = "BF16";
  o.allow_requantize = true;  // nothing is quantized
  if (o.types == "auto") o.types = "all";
  auto types = read_type_options(o);
  if (!types) return types.error();
  if (types->rules.empty()) return error{"--explain: the recipe holds no rule"};
  const auto model = gguf::reader::open(o.in);
  if (!model) return model.error();
  const auto plan = make_plan(*model, *types, nullptr, requirement::none);
  if (!plan) return plan.error();
  if (o.json)
    print_as_json(*plan, *types, has_type);
  else
    print_text(*plan, *types, has_type);
  return {};
}

}  // namespace quantal::plan
