#include "gates.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "json.hpp"
#include "text.hpp"
#include "yaml.hpp"

namespace quantal::validate {
namespace {

bool is_one_of(const std::vector<std::string>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string joined(const std::vector<std::string>& names) {
  std::string out;
  for (const auto& n : names) out += (out.empty() ? "" : ", ") + n;
  return out;
}

struct relation {
  std::string_view sign;
  comparison how;
};
/// Longer signs first: "<" would match "<=".
constexpr std::array<relation, 4> relations{{{"<=", comparison::less_equal},
                                             {">=", comparison::greater_equal},
                                             {"<", comparison::less},
                                             {">", comparison::greater}}};

/// Fills in who is meant and checks that the metric fits.
result<gate> finish(gate g, const std::string& who, const std::string& where) {
  const bool of_model = is_one_of(model_metrics(), g.metric);
  if (!of_model && !is_one_of(tensor_metrics(), g.metric))
    return error{where + "unknown metric '" + text::printable(g.metric) +
                 "'; known: " + joined(tensor_metrics()) + ", " + joined(model_metrics())};
  if (of_model && !who.empty() && who != "model")
    return error{where + g.metric + " is a metric of the model: write 'model: ' or nothing in front of it"};
  if (of_model) return g;
  if (who.empty()) return error{where + "expected 'REGEX: METRIC<=VALUE'"};
  auto compiled = pattern::compile(who);
  if (!compiled) return error{where + compiled.error().message};
  g.who = std::move(*compiled);
  return g;
}

result<gate> gate_of_object(const json& o, const std::string& where) {
  gate g;
  const auto text_of = [&](const char* key) {
    return o.contains(key) && o[key].is_string() ? o[key].get<std::string>() : std::string();
  };
  for (const auto& [key, value] : o.items())
    if (key != "tensors" && key != "metric" && key != "max" && key != "min")
      return error{where + "unknown key '" + text::printable(key) + "'; known: tensors, metric, max, min"};
  if (o.contains("max") == o.contains("min")) return error{where + "expected one of \"max\" and \"min\""};
  const json& bound = o.contains("max") ? o["max"] : o["min"];
  if (!bound.is_number() || !std::isfinite(bound.get<double>()))
    return error{where + "the bound is not a number"};
  g.metric = text_of("metric");
  g.how = o.contains("max") ? comparison::less_equal : comparison::greater_equal;
  g.bound = bound.get<double>();
  const auto who = text_of("tensors");
  g.text = (who.empty() ? "model" : who) + ": " + g.metric + (o.contains("max") ? "<=" : ">=") +
           text::format("%g", g.bound);
  return finish(std::move(g), who, where);
}

result<bool> concerns(const gate& g, const subject& s) {
  if (!g.who) return s.is_model;
  return s.is_model ? result<bool>(false) : g.who->found_in(s.name);
}

/// What YAML makes of a gate without quotes, "REGEX: METRIC<=VALUE".
bool is_pair(const json& item) {
  return item.is_object() && item.size() == 1 && item.begin()->is_string() &&
         item.begin().key() != "metric" && item.begin().key() != "tensors";
}

}  // namespace

std::vector<std::string> tensor_metrics() {
  return {"nmse", "wnmse", "cosine", "max_error", "output_nmse", "hessian_nmse"};
}
std::vector<std::string> model_metrics() { return {"ppl", "ppl_ratio", "kld", "kld_99", "same_top"}; }

bool gate::holds(double value) const noexcept {
  if (!std::isfinite(value)) return false;
  switch (how) {
    case comparison::less:
      return value < bound;
    case comparison::less_equal:
      return value <= bound;
    case comparison::greater:
      return value > bound;
    case comparison::greater_equal:
      return value >= bound;
  }
  return false;
}

result<gate> parse_gate(std::string_view given, const std::string& origin) {
  const std::string where = origin + ": gate '" + text::printable(given.substr(0, 200)) + "': ";
  const auto colon = given.rfind(':');  // a regular expression may hold others
  const auto who = colon == std::string_view::npos ? std::string_view{} : text::trim(given.substr(0, colon));
  const auto condition = text::trim(colon == std::string_view::npos ? given : given.substr(colon + 1));
  gate g;
  g.text = text::trim(given);
  for (const auto& r : relations) {
    const auto at = condition.find(r.sign);
    if (at == std::string_view::npos) continue;
    const auto number = text::trim(condition.substr(at + r.sign.size()));
    const auto [end, failure] = std::from_chars(number.data(), number.data() + number.size(), g.bound);
    if (failure != std::errc{} || end != number.data() + number.size() || !std::isfinite(g.bound))
      return error{where + "'" + text::printable(number) + "' is not a number"};
    g.metric = text::trim(condition.substr(0, at));
    g.how = r.how;
    return finish(std::move(g), std::string(who), where);
  }
  return error{where + "expected 'REGEX: METRIC<=VALUE' (or <, >=, >)"};
}

result<std::vector<gate>> parse_gate_file(std::string_view content, gate_syntax syntax,
                                          const std::string& origin) {
  const auto read = syntax == gate_syntax::yaml ? parse_yaml(content, origin) : parse_json(content, origin);
  if (!read) return read.error();
  const json& document = *read;
  if (!document.is_object() || !document.contains("gates") || !document["gates"].is_array())
    return error{origin + ": expected a list called \"gates\""};
  std::vector<gate> out;
  for (const auto& item : document["gates"]) {
    const std::string where = origin + ": gate " + std::to_string(out.size() + 1);
    auto g = item.is_string() ? parse_gate(item.get<std::string>(), where)
             : is_pair(item) ? parse_gate(item.begin().key() + ": " + item.begin()->get<std::string>(), where)
             : item.is_object() ? gate_of_object(item, where + ": ")
                                : result<gate>(error{where + ": neither a string nor an object"});
    if (!g) return g.error();
    out.push_back(std::move(*g));
  }
  if (out.empty()) return error{origin + ": holds no gates"};
  return out;
}

gate_syntax gate_syntax_of(const std::filesystem::path& path) {
  const auto ending = path.extension();
  return ending == ".yaml" || ending == ".yml" ? gate_syntax::yaml : gate_syntax::json;
}

result<std::vector<check>> evaluate(const std::vector<gate>& gates, const std::vector<subject>& subjects) {
  std::vector<check> out;
  for (const auto& g : gates) {
    std::size_t measured = 0, concerned = 0;
    for (const auto& s : subjects) {
      const auto meant = concerns(g, s);
      if (!meant) return error{"gate '" + text::printable(g.text) + "': " + meant.error().message};
      if (!*meant) continue;
      ++concerned;
      const auto v = s.values.find(g.metric);
      if (v == s.values.end()) {
        out.push_back({&g, s.name, verdict::not_measured});
        continue;
      }
      ++measured;
      out.push_back({&g, s.name, g.holds(v->second) ? verdict::passed : verdict::failed, v->second});
    }
    if (concerned == 0) return error{"gate '" + text::printable(g.text) + "' matches no tensor"};
    if (measured == 0)
      return error{"gate '" + text::printable(g.text) + "': " + g.metric +
                   " was measured of nothing it matches" +
                   (g.who ? " (wnmse and output_nmse need --imatrix)" : " (model metrics need --text)")};
  }
  return out;
}

}  // namespace quantal::validate
