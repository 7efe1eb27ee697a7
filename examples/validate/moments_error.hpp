// The output error of a tensor by second moments: of the product that its weights make with the inputs that
// were collected.
#pragma once

#include <optional>

#include "quantal/executor.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/imatrix/moments.hpp"

namespace quantal::validate {

/// Sum over rows of e H e / sum of w H w: e the error of a row, w the row of the reference, H the moments of
/// the inputs that quantal-quantize did not see (held out), or of all where none were held out. Nothing if the
/// file has no moments for the tensor. Errors name the file, the tensor and the cause. Both tensors can be
/// decoded and are of one shape.
result<std::optional<double>> moments_error(const gguf::reader& model, const gguf::tensor_info& t,
                                            const gguf::reader& reference, const gguf::tensor_info& source,
                                            const imatrix::moments_file& file, executor_ref threads);

}  // namespace quantal::validate
