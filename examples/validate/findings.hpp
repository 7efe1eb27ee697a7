// What quantal-validate found, for terminals, scripts, CI servers and pull requests.
#pragma once

#include <string>
#include <vector>

#include "gates.hpp"
#include "measure.hpp"

namespace quantal::validate {

struct findings {
  std::string model, reference;
  std::vector<tensor_report> tensors;
  metrics whole;                   ///< of the model; empty: not measured
  std::vector<std::string> notes;  ///< what was left out and why
  std::vector<gate> gates;
  std::vector<check> checks;  ///< point into `gates`

  std::size_t count(verdict v) const;
  /// "TENSOR: METRIC is nan", for every tensor with such a metric: a failure with or without gates.
  std::vector<std::string> not_finite() const;
  bool failed() const { return count(verdict::failed) > 0 || !not_finite().empty(); }
};

std::string as_table(const findings& f);
std::string as_json(const findings& f);
/// One test case per gate and tensor.
std::string as_junit(const findings& f);
/// For a pull-request comment: the verdict, failures, the worst tensors, totals by type.
std::string as_markdown(const findings& f);

}  // namespace quantal::validate
