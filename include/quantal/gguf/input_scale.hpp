// The float32 that divides the inputs of a matrix before they are rounded to FP4, beside the matrix: "blk.0.ffn_up.input_scale" of
// "blk.0.ffn_up.weight", one value, or one per expert. Engines that multiply FP4 by FP4 read it; to all others it means nothing.
#pragma once

#include <string>
#include <string_view>

#include "quantal/gguf/model_view.hpp"

namespace quantal::gguf {

inline constexpr std::string_view input_scale_end = ".input_scale";

/// The matrix whose inputs this tensor may scale; null if there is none.
inline const tensor_info* input_scaled_tensor(const model_view& model, const tensor_info& t) {
  const std::string_view name = t.name;
  if (t.type != f32::gguf_id || !name.ends_with(input_scale_end)) return nullptr;
  const auto* weight =
      model.find(std::string(name.substr(0, name.size() - input_scale_end.size())) + ".weight");
  return weight && (t.elements() == 1 || t.elements() == weight->slices()) ? weight : nullptr;
}

}  // namespace quantal::gguf
