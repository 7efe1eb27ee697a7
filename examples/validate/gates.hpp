// Accuracy gates: `REGEX: METRIC<=VALUE`, on the command line or in a JSON or YAML file.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "pattern.hpp"
#include "quantal/result.hpp"

namespace quantal::validate {

/// Values by metric name; a metric that could not be measured is absent.
using metrics = std::map<std::string, double, std::less<>>;

/// Metrics of a tensor, and of the model as a whole (subject "model").
std::vector<std::string> tensor_metrics();
std::vector<std::string> model_metrics();

enum class comparison : std::uint8_t { less, less_equal, greater, greater_equal };

struct gate {
  std::string text;            ///< as given, for reports
  std::optional<pattern> who;  ///< searched in tensor names; none: the model
  std::string metric;
  comparison how = comparison::less_equal;
  double bound = 0;

  /// NaN and infinity never hold.
  bool holds(double value) const noexcept;
};

/// "REGEX: METRIC<=VALUE" with <=, <, >= or >; model metrics take no regex or the word "model". Errors name
/// `origin`.
result<gate> parse_gate(std::string_view text, const std::string& origin);

enum class gate_syntax : std::uint8_t { json, yaml };
/// YAML for .yaml and .yml.
gate_syntax gate_syntax_of(const std::filesystem::path& path);

/// The gates of a document: {"gates": ["REGEX: METRIC<=VALUE", {"tensors": REGEX, "metric": NAME, "max":
/// VALUE},
/// {"metric": NAME, "min": VALUE}, ...]}, or the same in YAML, where strings need no quotes. Errors name
/// `origin` and the entry.
result<std::vector<gate>> parse_gate_file(std::string_view text, gate_syntax syntax,
                                          const std::string& origin);

enum class verdict : std::uint8_t { passed, failed, not_measured };

/// One gate on one subject.
struct check {
  const gate* of;
  std::string subject;
  verdict outcome;
  double value = 0;  ///< unless not_measured
};

/// A tensor or the model, with what was measured of it.
struct subject {
  std::string name;
  bool is_model = false;
  metrics values;
};

/// Every gate on everything it concerns. An error if a gate concerns nothing, or nothing it concerns was
/// measured.
result<std::vector<check>> evaluate(const std::vector<gate>& gates, const std::vector<subject>& subjects);

}  // namespace quantal::validate
