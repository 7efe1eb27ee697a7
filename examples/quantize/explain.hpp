// quantal-quantize --explain: what a recipe gives every tensor of a model, and the recipe for other programs.
#pragma once

#include "run.hpp"

namespace quantal::plan {

/// Prints it, as JSON if asked. The rules are those of the options; without a type, tensors that no rule names are said to depend on
/// it. Nothing is written. Errors name the recipe's file, the line and the cause, and rules that decide nothing.
result<void> explain(const run_options& options);

}  // namespace quantal::plan
