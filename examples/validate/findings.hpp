// What quantal-validate found, for terminals, scripts, CI servers and pull requests.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "gates.hpp"
#include "measure.hpp"

namespace quantal::validate {

/// A model to compare with: its file's bytes and its mean KL divergence.
struct reference_point {
  std::string name;
  double bytes = 0, kld = 0;
};

struct findings {
  std::string model, reference;
  std::vector<tensor_report> tensors;
  metrics whole;                   ///< of the model; empty: not measured
  std::vector<std::string> notes;  ///< what was left out and why
  std::vector<gate> gates;
  std::vector<check> checks;  ///< point into `gates`
  std::uint64_t bytes = 0;    ///< of the model's files
  std::vector<reference_point> points = {};

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
