// Quantized tensors that are no copy of better ones: the checkpoint was released so. They may be quantized from without
// --allow-requantize.
#pragma once

#include "quantal/gguf/model_view.hpp"
#include "types.hpp"

namespace quantal::plan {

/// Fills `released` and `copies`: the names of the quantized tensors if all of them are the source of truth (quantize.md section 1): mxfp4 and nvfp4, and q4_0 and
/// q8_0 with scales that no quantizer would have chosen. Of gpt-oss any q8_0 tensor beside FP4 experts, too. None of a file that a
/// quantizer marked (quantize.*).
result<void> find_released(const gguf::model_view& model, type_options& options);

}  // namespace quantal::plan
