// Types for a size: which tensor gets which type so that a model of a given size loses least.
//
// Every tensor has an error curve, its weighted NMSE with each candidate type, and a sensitivity, the KL
// divergence of the model per unit of that error (examples/study measures it). Or the divergences themselves are known, from a table of
// somebody's measurements: the curve then fills what the table lacks. Where codes are chosen by second
// moments, the curve is multiplied by what that leaves of the output error. Losses of tensors add up while they
// are small. Which types give the least sum within the bytes is a knapsack with one choice per tensor: solved
// exactly, byte for byte, unless the table would be too large; then for a price per byte every tensor picks
// on its own the type of least loss + price * bytes, the price is the one at which the sizes meet the target
// (Lagrangian relaxation), and what is left over goes to the best upgrades.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "measured_losses.hpp"
#include "pattern.hpp"
#include "plan.hpp"
#include "quantal/executor.hpp"

namespace quantal::plan {

/// KL divergence per unit of mean weighted NMSE of the tensors that a pattern matches.
struct sensitivity {
  pattern tensors;
  double kld_per_nmse = 1;
};

/// The classes of a study: {"classes": [{"tensors": REGEX, "kld_per_nmse": NUMBER}, ...]}. Errors name
/// `origin`.
result<std::vector<sensitivity>> parse_sensitivities(std::string_view json_text, const std::string& origin);

/// One way to store a tensor.
struct choice_of_type {
  const format_info* type;
  std::uint64_t bytes;
  double loss;
};

/// Index of the choice for every tensor, so that the bytes sum up to at most `budget` with the least loss, or
/// close to it where the exact table would be too large. Empty
/// if even the smallest choices exceed it. Every list holds at least one choice.
std::vector<std::size_t> solve(const std::vector<std::vector<choice_of_type>>& tensors, std::uint64_t budget);

struct allocation_options {
  double bpw = 0;           ///< of the whole model, tensors that are kept included
  std::uint64_t bytes = 0;  ///< not 0: of the output instead, its metadata and padding included
  /// Bytes of the output that a plan makes; with `bytes`.
  std::function<result<std::uint64_t>(const model_plan&)> output_bytes = {};
  std::vector<const format_info*> types;
  std::vector<sensitivity> sensitivities = {};  ///< empty: a tensor weighs by its share of the weights
  measured_losses measured =
      {};  ///< instead of sensitivities: losses of the model with one tensor in one type
};

/// The candidates if the user names none: types that every engine of the family reads.
std::vector<const format_info*> default_candidates();

/// Rules `^NAME$=TYPE,...` for --custom-q. Tensors that `fixed` rules or options decide keep their types and
/// count. `statistics` and `moments` are null without such files. Errors: a target that the smallest types exceed,
/// whatever reading a tensor can answer.
result<std::string> allocate(const gguf::model_view& model, type_options fixed,
                             const imatrix::store* statistics, const imatrix::moments_file* moments,
                             const allocation_options& options, executor_ref threads);

}  // namespace quantal::plan
