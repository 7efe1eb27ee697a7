// What quantal-quantize tells: a line per tensor, totals, and the same as JSON.
#pragma once

#include <optional>
#include <string>

#include "convert.hpp"
#include "json.hpp"
#include "plan.hpp"
#include "quantal/quantize/error.hpp"

namespace quantal::plan {

/// "[   2/  31] NAME - [ 256, 8, 1, 1], type = bf16, ".
std::string step_head(const step& s, std::size_t index, std::size_t total);
/// "converting to q4_K .. size = 1.00 MiB -> 0.28 MiB, importance: own entry" or "size = 0.001 MiB".
std::string step_size(const step& s);
/// ", nmse 1.23e-03" weighted where there is importance, and what the scales cut or lost; empty for copies.
std::string step_error(const step& s, const conversion_loss& loss);
/// "tensor 'NAME': 12 of 256 weights (4.69 %) are too large for the scales of q4_0 and were cut"; what is true of
/// it. Empty if the type holds all weights.
std::string range_warning(const step& s, const range_loss& r);

/// What every tensor gets of a file of second moments, a line each.
std::string moments_table(const model_plan& p, const std::string& file);

/// Rules with hits, type histograms, sizes, fallbacks, missing importance.
std::string totals(const model_plan& p, const std::vector<rule>& rules, bool has_imatrix);

json moments_json(const moments_note& n, const std::string& tensor);
/// `with_moments`: second moments were given.
json step_json(const step& s, const std::vector<rule>& rules, const std::optional<conversion_loss>& loss,
               bool with_moments = false);
json totals_json(const model_plan& p, const std::vector<rule>& rules);

}  // namespace quantal::plan
