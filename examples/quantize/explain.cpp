#include "explain.hpp"

#include <cstdio>
#include <utility>

#include "json.hpp"
#include "quantal/gguf/reader.hpp"
#include "recipe.hpp"
#include "released.hpp"
#include "summary.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

/// Options that choose types by what is in the weights: rules alone are explained.
result<void> check_options(const run_options& o) {
  const std::pair<const char*, bool> others[] = {{"--lattice", o.lattice},
                                                 {"--target-bpw", o.target_bpw > 0},
                                                 {"--target-size", o.target_size > 0},
                                                 {"--target-types", !o.target_types.empty()},
                                                 {"--sensitivity", !o.sensitivity.empty()}};
  for (const auto& [name, given] : others)
    if (given)
      return error{"--explain: " + std::string(name) +
                   " chooses types by the weights; --dry-run shows what it chooses"};
  return {};
}

/// Whether the type is left open because TYPE would decide.
bool is_undecided(const step& s, bool has_type) {
  return !has_type && s.to.rule < 0 && s.to.decided != reason::kept;
}

/// Whether a run refuses the tensor without --allow-requantize.
bool needs_requantize(const step& s, const type_options& types) {
  return !s.to.copy && !may_be_source(*s.tensor, types);
}

/// What the recipe was applied to.
struct explanation {
  const model_plan& plan;
  const type_options& types;
  requirement needed;
  bool has_type;

  bool is_open(const step& s) const { return is_undecided(s, has_type); }
  bool needs_requantizing(const step& s) const { return !is_open(s) && needs_requantize(s, types); }
  bool needs_imatrix(const step& s) const {
    return !is_open(s) && lacks_importance(s, plan.traits, types, needed);
  }
};

/// "by rule 'ffn_down' (recipe.txt:3)", "by the mix of Q4_K_M", "kept".
std::string decided_by(const step& s, const explanation& e) {
  const auto& types = e.types;
  if (s.to.decided == reason::kept) return "kept";
  std::string out;
  if (s.to.rule >= 0) {
    const auto& r = types.rules[static_cast<std::size_t>(s.to.rule)];
    out = "by rule '" + text::printable(r.pattern.text()) + "' (" + text::printable(r.origin) + ")";
  } else if (!e.has_type) {
    return "by no rule: TYPE decides";
  } else if (s.to.decided == reason::option) {
    out = "by an option";
  } else {
    out = (s.to.decided == reason::mix ? "by the mix of " : "base type of ") + std::string(types.type->name);
  }
  if (s.to.fallback_from) out += ", instead of " + std::string(s.to.fallback_from->name);
  if (e.needs_requantizing(s)) out += ", needs --allow-requantize";
  if (e.needs_imatrix(s)) out += ", needs --imatrix";
  return out;
}

void print_text(const explanation& e) {
  for (const auto& s : e.plan.steps) {
    std::printf("%-40s %-8s -> %-8s %s\n", text::printable(s.tensor->name).c_str(),
                gguf::type_name(s.tensor->type).c_str(),
                e.is_open(s) ? "?" : gguf::type_name(s.to.type).c_str(), decided_by(s, e).c_str());
  }
  for (const auto& n : e.plan.notes) std::printf("note: %s\n", text::printable(n).c_str());
  for (const auto& r : write_recipes(e.types.rules)) {
    std::printf("\n%s:\n%s\n", r.program.c_str(), text::printable(r.arguments).c_str());
    for (const auto& c : r.caveats) std::printf("# %s %s\n", r.program.c_str(), c.c_str());
  }
}

void print_as_json(const explanation& e) {
  json tensors = json::array(), recipes = json::array();
  for (const auto& s : e.plan.steps) {
    tensors.push_back(step_json(s, e.types.rules, std::nullopt));
    tensors.back()["explanation"] = decided_by(s, e);
    tensors.back()["needs_allow_requantize"] = e.needs_requantizing(s);
    tensors.back()["needs_imatrix"] = e.needs_imatrix(s);
  }
  for (const auto& r : write_recipes(e.types.rules))
    recipes.push_back({{"program", r.program}, {"arguments", r.arguments}, {"caveats", r.caveats}});
  print_json({{"tensors", tensors}, {"notes", e.plan.notes}, {"recipes", recipes}});
}

}  // namespace

result<void> explain(const run_options& given) {
  if (auto fine = check_options(given); !fine) return fine;
  auto o = given;
  const bool has_type = !o.type.empty();
  if (!has_type) o.type = "BF16";
  o.allow_requantize = true;  // every tensor is told; those that a run refuses are marked
  if (o.types == "auto") o.types = "all";
  auto types = read_type_options(o);
  if (!types) return types.error();
  if (types->rules.empty()) return error{"--explain: the recipe holds no rule"};
  const auto model = gguf::reader::open(o.in);
  if (!model) return model.error();
  const auto statistics = load_statistics(o);
  if (!statistics) return statistics.error();
  const auto needed = required_of(o);
  const auto plan =
      make_plan(*model, *types, *statistics ? &**statistics : nullptr, needed, on_lack::keep_going);
  if (!plan) return plan.error();
  types->allow_requantize = given.allow_requantize;
  if (!given.allow_requantize)
    if (auto found = find_released(*model, *types); !found) return found;
  const explanation e{*plan, *types, needed, has_type};
  o.json ? print_as_json(e) : print_text(e);
  return {};
}

}  // namespace quantal::plan
