// Quantized tensors that are no copy of better ones: the checkpoint was released so. They may be quantized from without
// --allow-requantize.
#pragma once

#include <string>
#include <unordered_set>

#include "quantal/gguf/model_view.hpp"

namespace quantal::plan {

/// Adds the names of the quantized tensors if all of them are the source of truth (quantize.md section 1): mxfp4 and nvfp4, and q4_0 and
/// q8_0 with scales that no quantizer would have chosen. None of a file that a quantizer marked (quantize.*).
result<void> find_released(const gguf::model_view& model, std::unordered_set<std::string>& names);

}  // namespace quantal::plan
