#include "measured_losses.hpp"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <vector>

#include "rules.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

/// Fields of a line; those in quotes may hold commas, and two quotes stand for one.
result<std::vector<std::string>> split(std::string_view line) {
  std::vector<std::string> out;
  for (std::size_t at = 0; at <= line.size(); ++at) {
    while (at < line.size() && (line[at] == ' ' || line[at] == '\t')) ++at;
    std::string field;
    if (at < line.size() && line[at] == '"') {
      for (++at; at < line.size() && (line[at] != '"' || line.substr(at, 2) == "\"\""); ++at)
        field += line[at], at += line[at] == '"';
      if (at == line.size()) return error{"a quote is not closed"};
      const auto end = std::min(line.find(',', at), line.size());
      if (!text::trim(line.substr(at + 1, end - at - 1)).empty()) return error{"text behind a closing quote"};
      at = end;
    } else {
      const auto end = std::min(line.find(',', at), line.size());
      field = text::trim(line.substr(at, end - at));
      at = end;
    }
    out.push_back(std::move(field));
  }
  return out;
}

bool is_one_of(const std::string& field, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), text::lower(field)) != names.end();
}

/// A loss, or nothing if it was not measured.
result<std::optional<double>> parse_value(const std::string& field) {
  if (is_one_of(field, {"", "-", "?", "nan", "n/a", "na", "null", "none", "404", "404%"}))
    return std::optional<double>();
  const bool percent = field.ends_with('%');
  const auto number = text::trim(std::string_view(field).substr(0, field.size() - (percent ? 1 : 0)));
  const auto digits = number.starts_with('+') ? number.substr(1) : number;
  double v = 0;
  const auto [end, failed] = std::from_chars(digits.data(), digits.data() + digits.size(), v);
  if (failed != std::errc{} || end != digits.data() + digits.size() || !std::isfinite(v))
    return error{text::in_quotes(field) + " is no number; what was not measured is empty, -, nan or n/a"};
  return std::optional<double>(std::max(percent ? v / 100 : v, 0.0));
}

/// Which column is what. Tables of a line per type have no value column but one per tensor.
struct columns {
  std::optional<std::size_t> tensor, type, value;
  std::vector<std::string> header;

  bool wide() const { return !tensor; }
};

result<columns> read_header(std::vector<std::string> header) {
  columns c;
  for (std::size_t i = 0; i < header.size(); ++i) {
    auto* place = is_one_of(header[i], {"tensor", "name", "tensor_name"})                     ? &c.tensor
                  : is_one_of(header[i], {"type", "qtype", "quant"})                          ? &c.type
                  : is_one_of(header[i], {"value", "kld", "kl", "kl_divergence", "mean_kld"}) ? &c.value
                                                                                              : nullptr;
    if (!place) continue;
    if (*place) return error{"two columns " + text::in_quotes(header[i])};
    *place = i;
  }
  c.header = std::move(header);
  const bool tall = c.tensor && c.type && c.value, wide = !c.tensor && !c.value && c.type == std::size_t{0};
  if (!tall && !(wide && c.header.size() > 1))
    return error{
        "expected a header with the columns tensor, type and value, or type and one column per tensor"};
  return c;
}

}  // namespace

std::optional<double> measured_losses::of(const std::string& tensor, std::uint32_t type) const {
  const auto& all = of(tensor);
  const auto it = all.find(type);
  return it == all.end() ? std::optional<double>() : it->second;
}

const std::map<std::uint32_t, double>& measured_losses::of(const std::string& tensor) const {
  static const std::map<std::uint32_t, double> none;
  const auto it = losses_.find(tensor);
  return it == losses_.end() ? none : it->second;
}

result<measured_losses> parse_measured_losses(std::string_view csv, const std::string& origin) {
  measured_losses out;
  std::optional<columns> c;
  std::map<std::string, std::map<std::uint32_t, std::int64_t>> seen;  // lines, for messages
  const auto add = [&](const std::string& tensor, const std::string& type, const std::string& value,
                       std::int64_t number) -> result<void> {
    if (tensor.empty()) return error{"the tensor has no name"};
    const auto f = parse_type(type);
    if (!f) return f.error();
    const auto loss = parse_value(value);
    if (!loss) return error{"tensor " + text::in_quotes(tensor) + ", " + type + ": " + loss.error().message};
    const auto [it, first] = seen[tensor].emplace((*f)->gguf_id, number);
    if (!first)
      return error{"tensor " + text::in_quotes(tensor) + ", " + type + ": line " +
                   std::to_string(it->second) + " has it, too"};
    if (*loss) out.losses_[tensor][(*f)->gguf_id] = **loss;
    return {};
  };
  const auto take = [&](std::string_view line, std::int64_t number) -> result<void> {
    auto fields = split(line);
    if (!fields) return fields.error();
    if (!c) {
      auto header = read_header(std::move(*fields));
      if (!header) return header.error();
      c = std::move(*header);
      return {};
    }
    if (fields->size() != c->header.size())
      return error{std::to_string(fields->size()) + " fields where the header has " +
                   std::to_string(c->header.size())};
    if (!c->wide()) return add((*fields)[*c->tensor], (*fields)[*c->type], (*fields)[*c->value], number);
    for (std::size_t i = 1; i < fields->size(); ++i)
      if (auto ok = add(c->header[i], fields->front(), (*fields)[i], number); !ok) return ok;
    return {};
  };
  const auto read = for_each_line(csv, [&](std::string_view line, std::int64_t number) -> result<void> {
    const auto trimmed = text::trim(line);
    if (trimmed.empty() || trimmed.front() == '#') return {};
    if (auto ok = take(trimmed, number); !ok)
      return error{origin + ":" + std::to_string(number) + ": " + ok.error().message};
    return {};
  });
  if (!read) return read.error();
  if (out.empty()) return error{origin + ": holds no measurement"};
  return out;
}

}  // namespace quantal::plan
