#include "findings.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "json.hpp"
#include "text.hpp"

namespace quantal::validate {
namespace {

constexpr std::array<const char*, 6> columns{"nmse",      "wnmse",       "cosine",
                                             "max_error", "output_nmse", "hessian_nmse"};

std::string shown(const metrics& m, const char* name) {
  const auto v = m.find(name);
  if (v == m.end()) return "-";
  return text::format(std::string_view(name) == "cosine" ? "%.6f" : "%.4g", v->second);
}

std::string padded(const std::string& s, std::size_t width) {
  return s.size() < width ? std::string(width - s.size(), ' ') + s : s;
}

std::string value_of(const check& c) {
  return c.outcome == verdict::not_measured ? "not measured" : text::format("%.6g", c.value);
}

const char* name_of(verdict v) {
  constexpr std::array<const char*, 3> names{"pass", "FAIL", "not measured"};
  return names[static_cast<std::size_t>(v)];
}

/// Text for XML attributes and content: names come from files.
std::string xml(std::string_view s) {
  std::string out;
  for (const char c : text::printable(s)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += static_cast<unsigned char>(c) < 128 ? c : '?';
    }
  }
  return out;
}

/// Text for a Markdown table cell.
std::string cell(std::string_view s) {
  std::string out = "`";
  for (const char c : text::printable(s))
    out += c == '`' ? std::string("'") : c == '|' ? std::string("\\|") : std::string(1, c);
  return out + "`";
}

std::string verdict_line(const findings& f) {
  const auto broken = f.not_finite().size();
  if (f.gates.empty())
    return broken ? "FAILED: " + std::to_string(broken) + " tensors are not finite, no gates" : "no gates";
  std::string out = f.failed() ? "FAILED: " : "passed: ";
  if (broken) out += std::to_string(broken) + " tensors are not finite, ";
  out += std::to_string(f.count(verdict::passed)) + " checks passed, " +
         std::to_string(f.count(verdict::failed)) + " failed";
  if (const auto n = f.count(verdict::not_measured)) out += ", " + std::to_string(n) + " not measured";
  return out;
}

double value_or_none(const metrics& m, const char* name) {
  const auto v = m.find(name);
  return v == m.end() ? -1 : v->second;
}

/// NaN has no place in an order: it counts as the largest.
double error_to_sort(const tensor_report& t) {
  const double v = value_or_none(t.values, "nmse");
  return std::isnan(v) ? std::numeric_limits<double>::infinity() : v;
}

}  // namespace

std::size_t findings::count(verdict v) const {
  return static_cast<std::size_t>(
      std::count_if(checks.begin(), checks.end(), [&](const check& c) { return c.outcome == v; }));
}

std::vector<std::string> findings::not_finite() const {
  std::vector<std::string> out;
  for (const auto& t : tensors) {
    const auto bad = std::find_if(t.values.begin(), t.values.end(),
                                  [](const auto& m) { return !std::isfinite(m.second); });
    if (bad != t.values.end())
      out.push_back(text::printable(t.name) + ": " + bad->first + text::format(" is %g", bad->second));
  }
  return out;
}

std::string as_table(const findings& f) {
  std::size_t width = 6;
  for (const auto& t : f.tensors) width = std::max(width, t.name.size());
  std::string out = padded("tensor", width) + padded("type", 9);
  for (const auto* c : columns) out += padded(c, 13);
  out += "  importance\n";
  for (const auto& t : f.tensors) {
    out += padded(text::printable(t.name), width) + padded(t.type, 9);
    for (const auto* c : columns) out += padded(shown(t.values, c), 13);
    out += "  " + (t.importance.empty() ? "-" : t.importance) + "\n";
  }
  if (!f.whole.empty()) out += "\n";
  for (const auto& [name, value] : f.whole) out += "model " + name + text::format(" = %.6g\n", value);
  for (const auto& n : f.notes) out += "note: " + text::printable(n) + "\n";
  for (const auto& n : f.not_finite()) out += "FAIL: " + n + "\n";
  for (const auto& c : f.checks)
    if (c.outcome == verdict::failed)
      out += std::string(name_of(c.outcome)) + ": " + text::printable(c.subject) + ": " + c.of->metric +
             " is " + value_of(c) + " (gate '" + text::printable(c.of->text) + "')\n";
  return out + "\n" + verdict_line(f) + "\n";
}

std::string as_json(const findings& f) {
  const auto values = [](const metrics& m) {
    json o = json::object();
    for (const auto& [name, v] : m) o[name] = json_number(v);
    return o;
  };
  json tensors = json::array(), checks = json::array();
  for (const auto& t : f.tensors) {
    json o = {{"name", t.name}, {"type", t.type}, {"reference_type", t.reference_type}, {"bytes", t.bytes}};
    if (!t.importance.empty()) o["importance"] = t.importance;
    o.update(values(t.values));
    tensors.push_back(std::move(o));
  }
  for (const auto& c : f.checks) {
    json o = {{"gate", c.of->text},
              {"subject", c.subject},
              {"metric", c.of->metric},
              {"result", name_of(c.outcome)}};
    if (c.outcome != verdict::not_measured) o["value"] = json_number(c.value);
    checks.push_back(std::move(o));
  }
  const json document = {{"model", f.model},
                         {"reference", f.reference},
                         {"passed", !f.failed()},
                         {"not_finite", f.not_finite()},
                         {"model_metrics", values(f.whole)},
                         {"notes", f.notes},
                         {"checks", checks},
                         {"tensors", tensors}};
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

std::string as_junit(const findings& f) {
  const auto number = [](std::size_t n) { return std::to_string(n); };
  const auto broken = f.not_finite();
  std::string out = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"" +
                    xml(f.model) + "\" tests=\"" + number(f.checks.size() + broken.size()) +
                    "\" failures=\"" + number(f.count(verdict::failed) + broken.size()) +
                    "\" errors=\"0\" skipped=\"" + number(f.count(verdict::not_measured)) + "\">\n";
  for (const auto& c : f.checks) {
    out += "<testcase classname=\"" + xml(c.of->text) + "\" name=\"" + xml(c.subject) + "\"";
    if (c.outcome == verdict::passed) out += "/>\n";
    if (c.outcome == verdict::not_measured) out += "><skipped message=\"not measured\"/></testcase>\n";
    if (c.outcome == verdict::failed)
      out += "><failure message=\"" + xml(c.of->metric + " is " + value_of(c) + ", gate " + c.of->text) +
             "\"/></testcase>\n";
  }
  for (const auto& n : broken)
    out += "<testcase classname=\"finite\" name=\"" + xml(n.substr(0, n.rfind(": "))) +
           "\"><failure message=\"" + xml(n) + "\"/></testcase>\n";
  return out + "</testsuite>\n</testsuites>\n";
}

std::string as_markdown(const findings& f) {
  std::string out = "### quantal-validate: " + verdict_line(f) + "\n\n" + cell(f.model) + " against " +
                    cell(f.reference) + "\n\n";
  if (!f.whole.empty()) {
    std::string head = "|", rule = "|", row = "|";
    for (const auto& [name, value] : f.whole)
      head += " " + name + " |", rule += "--:|", row += text::format(" %.5g |", value);
    out += head + "\n" + rule + "\n" + row + "\n\n";
  }
  if (f.count(verdict::failed)) {
    out += "| failed gate | subject | value |\n|---|---|--:|\n";
    for (const auto& c : f.checks)
      if (c.outcome == verdict::failed)
        out += "| " + cell(c.of->text) + " | " + cell(c.subject) + " | " + value_of(c) + " |\n";
    out += "\n";
  }
  for (const auto& n : f.not_finite()) out += "FAIL: " + cell(n) + "\n\n";
  std::vector<const tensor_report*> worst;
  for (const auto& t : f.tensors)
    if (value_or_none(t.values, "nmse") != 0) worst.push_back(&t);
  std::stable_sort(worst.begin(), worst.end(),
                   [](const auto* a, const auto* b) { return error_to_sort(*a) > error_to_sort(*b); });
  constexpr std::size_t most = 10;
  if (!worst.empty()) {
    out += "<details><summary>Tensors with the largest error</summary>\n\n| tensor | type |";
    for (const auto* c : columns) out += " " + std::string(c) + " |";
    out += "\n|---|---|--:|--:|--:|--:|--:|--:|\n";
    for (std::size_t i = 0; i < std::min(most, worst.size()); ++i) {
      out += "| " + cell(worst[i]->name) + " | " + worst[i]->type + " |";
      for (const auto* c : columns) out += " " + shown(worst[i]->values, c) + " |";
      out += "\n";
    }
    out += "\n</details>\n";
  }
  for (const auto& n : f.notes) out += "\n" + cell(n) + "\n";
  return out;
}

}  // namespace quantal::validate
