// quantal-validate behind its command line.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "findings.hpp"

namespace quantal::validate {

struct run_options {
  std::filesystem::path model, reference;
  std::string imatrix, hessian, text;
  std::string points;  ///< file of models to compare with in the HTML report, or empty
  std::vector<std::string> gates, gate_files;
  std::vector<std::string> outputs;  ///< FORMAT or FORMAT=FILE
  std::int64_t context = 512, chunks = 0;
  std::string act = "exact";  ///< activations of the model in the model metrics: exact or q8
  int threads = 0;
  bool allow_missing = false;  ///< compare the common tensors of models with different tensors
};

/// Measures and evaluates. An error means that the verdict is unknown; tensors of the model that are not finite are
/// findings.
result<findings> validate(const run_options& options);

/// Writes every output asked for; the default is a table on standard output.
result<void> write_outputs(const findings& f, const std::vector<std::string>& outputs);

}  // namespace quantal::validate
