// One tensor from its type to another, in bounded memory, with the same bytes for any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "quantal/executor.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/imatrix/lookup.hpp"
#include "quantal/quantize/error.hpp"

namespace quantal::plan {

/// Takes the next bytes of the tensor.
using sink = std::function<result<void>(std::span<const std::byte>)>;

/// Output bytes that are in memory at once; a row never splits.
inline constexpr std::size_t default_window = std::size_t{8} << 20;

/// Converts the rows of tensor `t` to `type` and hands the bytes to `out` in order. `importance`: null or
/// from imatrix::resolve for this tensor. Returns the error of the result against the source. Errors name the
/// tensor, and row and column of a weight that is NaN or infinite. With the tensor's own type the rows pass
/// unchanged, and the error is that of the rows against what they were made from, if the source tells.
result<quantization_error> convert(const gguf::tensor_info& t, const gguf::row_source& source,
                                   std::uint32_t type, const imatrix::importance* importance,
                                   executor_ref threads, const sink& out,
                                   std::size_t window = default_window);

}  // namespace quantal::plan
