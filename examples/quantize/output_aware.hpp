// A tensor's codes chosen by what they do to outputs, where second moments of its inputs are known.
#pragma once

#include "convert.hpp"
#include "paired_moments.hpp"

namespace quantal::plan {

/// True if tensors of this type can have such codes.
bool has_output_aware_codes(std::uint32_t type) noexcept;

/// Share of a moment off the diagonal that is kept, with so many inputs.
double kept_share(double inputs, std::int64_t cols) noexcept;

/// As convert(), to a type that has such codes. The plain codes are made too, and the tensor keeps them
/// unless the others do better on the inputs that were held out. In memory: the tensor's bytes twice, one
/// slice's weights, and its moments three times. `pairs`: null, or what `moments` is part of; then the outputs to come near are
/// those that the reference's inputs have, and slices' weights are in memory three times.
result<conversion_loss> convert_output_aware(const gguf::tensor_info& t, const gguf::row_source& source,
                                             std::uint32_t type, const imatrix::importance* importance,
                                             const imatrix::moments& moments, const scale_pair& scales,
                                             executor_ref threads, const sink& out,
                                             const paired_moments* pairs = nullptr);

}  // namespace quantal::plan
