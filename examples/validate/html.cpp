#include "html.hpp"

#include <algorithm>
#include <cmath>
#include <map>

#include "json.hpp"
#include "text.hpp"

namespace quantal::validate {
namespace {

constexpr double width = 640, height = 320, left = 70, right = 150, top = 15, bottom = 45;

constexpr std::string_view head =
    "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src "
    "'unsafe-inline'\">\n"
    "<title>quantal-validate</title>\n<style>\n"
    "body { font: 14px sans-serif; margin: 2em; }\ntable { border-collapse: collapse; margin: 1em 0; }\n"
    "th, td { padding: 2px 8px; border-bottom: 1px solid #ddd; text-align: right; }\n"
    "th:first-child, td:first-child { text-align: left; font-family: monospace; }\n"
    ".bad { color: #b00; }\nsvg text { font: 11px sans-serif; }\n</style>\n</head>\n<body>\n";

/// Text of an element or an attribute: names come from files.
std::string escaped(std::string_view s) {
  std::string out;
  for (const char c : text::printable(s)) {
    const auto byte = static_cast<unsigned char>(c);
    if (byte >= 128)
      out += '?';
    else if (std::string_view("&<>\"'").find(c) != std::string_view::npos)
      out += "&#" + std::to_string(byte) + ";";
    else
      out += c;
  }
  return out;
}

std::string cell(const std::string& s) { return "<td>" + s + "</td>"; }

std::string number(const metrics& m, const std::string& name) {
  const auto v = m.find(name);
  return v == m.end() ? "-" : text::format("%.4g", v->second);
}

std::string verdict_of(const findings& f) {
  std::string out = "<p>" + escaped(f.model) + " against " + escaped(f.reference) + "</p>\n<p" +
                    (f.failed() ? " class=\"bad\">FAILED: " : ">") +
                    std::to_string(f.count(verdict::passed)) + " checks passed, " +
                    std::to_string(f.count(verdict::failed)) + " failed, " +
                    std::to_string(f.count(verdict::not_measured)) + " not measured</p>\n";
  for (const auto& n : f.not_finite()) out += "<p class=\"bad\">" + escaped(n) + "</p>\n";
  for (const auto& c : f.checks)
    if (c.outcome == verdict::failed)
      out += "<p class=\"bad\">" + escaped(c.subject) + ": " + escaped(c.of->metric) +
             text::format(" is %.6g", c.value) + ", gate " + escaped(c.of->text) + "</p>\n";
  for (const auto& n : f.notes) out += "<p>" + escaped(n) + "</p>\n";
  return out;
}

std::string whole_table(const findings& f) {
  if (f.whole.empty()) return {};
  std::string names, values;
  for (const auto& [name, value] : f.whole)
    names += "<th>" + escaped(name) + "</th>", values += cell(text::format("%.6g", value));
  return "<h2>Model</h2>\n<table><tr>" + names + "</tr>\n<tr>" + values + "</tr></table>\n";
}

std::string size_table(const findings& f) {
  struct sum {
    std::int64_t tensors = 0;
    std::uint64_t bytes = 0, before = 0;
  };
  std::map<std::string, sum> types;
  for (const auto& t : f.tensors)
    for (auto* s : {&types[t.type], &types["\xff"]})
      ++s->tensors, s->bytes += t.bytes, s->before += t.reference_bytes;
  std::string out =
      "<h2>Sizes</h2>\n<table><tr><th>type</th><th>tensors</th><th>bytes</th><th>bytes of the "
      "reference</th></tr>\n";
  for (const auto& [type, s] : types)
    out += "<tr>" + cell(type == "\xff" ? "all" : escaped(type)) + cell(std::to_string(s.tensors)) +
           cell(std::to_string(s.bytes)) + cell(std::to_string(s.before)) + "</tr>\n";
  return out + "</table>\n";
}

std::string tensor_table(const findings& f) {
  std::string out = "<h2>Tensors</h2>\n<table><tr><th>tensor</th><th>type</th><th>bytes</th>";
  for (const auto& m : tensor_metrics()) out += "<th>" + m + "</th>";
  out += "</tr>\n";
  for (const auto& t : f.tensors) {
    out += "<tr>" + cell(escaped(t.name)) + cell(escaped(t.type)) + cell(std::to_string(t.bytes));
    for (const auto& m : tensor_metrics()) out += cell(number(t.values, m));
    out += "</tr>\n";
  }
  return out + "</table>\n";
}

/// A linear axis for bytes, a logarithmic one for divergences.
class chart {
 public:
  explicit chart(std::vector<reference_point> points) : points_(std::move(points)) {
    for (const auto& p : points_) {
      least_bytes_ = std::min(least_bytes_, p.bytes), most_bytes_ = std::max(most_bytes_, p.bytes);
      low_ = std::min(low_, std::log10(p.kld)), high_ = std::max(high_, std::log10(p.kld));
    }
    low_ = std::floor(low_), high_ = std::max(std::ceil(high_), low_ + 1);
    const double margin = std::max((most_bytes_ - least_bytes_) * 0.05, most_bytes_ * 0.01);
    least_bytes_ -= margin, most_bytes_ += margin;
  }

  /// The first point is the model.
  std::string svg() const {
    std::string out = text::format("<svg width=\"%g\" height=\"%g\" role=\"img\">\n", width, height);
    for (double e = low_; e <= high_; ++e)
      out += text::format(
          "<line x1=\"%g\" y1=\"%.1f\" x2=\"%g\" y2=\"%.1f\" stroke=\"#ddd\"/><text x=\"%g\" y=\"%.1f\" "
          "text-anchor=\"end\">%g</text>\n",
          left, y(e), width - right, y(e), left - 6, y(e) + 4, std::pow(10.0, e));
    for (int i = 0; i <= 4; ++i) {
      const double bytes = least_bytes_ + (most_bytes_ - least_bytes_) * i / 4;
      out += text::format("<text x=\"%.1f\" y=\"%g\" text-anchor=\"middle\">%.2f MiB</text>\n", x(bytes),
                          height - bottom + 18, bytes / 1048576);
    }
    for (const auto& p : points_) out += point(p, &p == points_.data());
    return out + text::format("<text x=\"%g\" y=\"%g\">mean KL divergence against bytes</text>\n</svg>\n",
                              left, height - 8);
  }

 private:
  double x(double bytes) const {
    return left + (width - left - right) * (bytes - least_bytes_) / (most_bytes_ - least_bytes_);
  }
  double y(double exponent) const {
    return height - bottom - (height - top - bottom) * (exponent - low_) / (high_ - low_);
  }
  std::string point(const reference_point& p, bool model) const {
    const double px = x(p.bytes), py = y(std::log10(p.kld));
    return text::format("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%d\" fill=\"%s\"/><text x=\"%.1f\" y=\"%.1f\">",
                        px, py, model ? 5 : 3, model ? "#b00" : "#36c", px + 7, py + 4) +
           escaped(p.name) + "</text>\n";
  }

  std::vector<reference_point> points_;
  double least_bytes_ = INFINITY, most_bytes_ = -INFINITY, low_ = INFINITY, high_ = -INFINITY;
};

std::string divergence_chart(const findings& f) {
  const auto kld = f.whole.find("kld");
  if (kld == f.whole.end() || !(kld->second > 0)) return {};
  std::vector<reference_point> all{{"this model", static_cast<double>(f.bytes), kld->second}};
  all.insert(all.end(), f.points.begin(), f.points.end());
  return "<h2>Divergence</h2>\n" + chart(std::move(all)).svg();
}

}  // namespace

result<std::vector<reference_point>> parse_points(std::string_view json_text, const std::string& origin) {
  const auto document = parse_json(json_text, origin);
  if (!document) return document.error();
  if (!document->is_array()) return error{origin + ": expected a list of points"};
  std::vector<reference_point> out;
  const auto positive = [](const json& p, const char* key) {
    return p.contains(key) && p[key].is_number() && p[key].get<double>() > 0;
  };
  for (const auto& p : *document) {
    const char* name = p.is_object() && p.contains("mix") ? "mix" : "name";
    if (!p.is_object() || !p.contains(name) || !p[name].is_string() || !positive(p, "bytes") ||
        !positive(p, "kld"))
      return error{origin + ": point " + std::to_string(out.size() + 1) +
                   ": expected {\"name\": NAME, \"bytes\": NUMBER > 0, \"kld\": NUMBER > 0}"};
    out.push_back({p[name].get<std::string>(), p["bytes"].get<double>(), p["kld"].get<double>()});
  }
  return out;
}

std::string as_html(const findings& f) {
  return std::string(head) + "<h1>quantal-validate</h1>\n" + verdict_of(f) + whole_table(f) +
         divergence_chart(f) + size_table(f) + tensor_table(f) + "</body>\n</html>\n";
}

}  // namespace quantal::validate
