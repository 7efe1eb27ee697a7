// One tensor from its type to another, in bounded memory, with the same bytes for any number of threads.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>

#include "quantal/executor.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/imatrix/lookup.hpp"
#include "quantal/quantize/error.hpp"
#include "quantal/quantize/range.hpp"

namespace quantal::plan {

/// Takes the next bytes of the tensor.
using sink = std::function<result<void>(std::span<const std::byte>)>;

/// Output bytes that are in memory at once; a row never splits.
inline constexpr std::size_t default_window = std::size_t{8} << 20;

/// Squared outputs of a tensor, mean over the inputs that were held out, summed over rows.
struct output_loss {
  double signal = 0;      ///< of the weights
  double plain = 0;       ///< of the error of the plain codes
  double chosen = 0;      ///< of the codes that were chosen for the outputs
  bool measured = false;  ///< there were such inputs
  bool accepted = false;  ///< the chosen codes are those of the result
  /// Of codes that aim at the outputs of a reference (reference_target.hpp): how far the weights to come near went toward
  /// what the inputs that choose would have, mean over slices.
  std::optional<double> followed = {};
};

/// What a conversion did to the weights of a tensor.
struct conversion_loss {
  quantization_error error;
  range_loss range;
  std::optional<output_loss> output = {};  ///< of a conversion with second moments
};

/// Scales that lie beside a tensor: of the source, and of the result.
struct scale_pair {
  gguf::tensor_scale from, to;
};

/// The scale that a tensor gets beside it in a type that needs one (nvfp4), as of tensor_scale_of(). Of tensors of experts
/// one for each.
result<gguf::tensor_scale> measure_scale(const gguf::tensor_info& t, const gguf::row_source& source,
                                         const gguf::tensor_scale& from, std::uint32_t type,
                                         executor_ref threads);

/// True if tensors of this type have their scale beside them.
constexpr bool has_tensor_scale(std::uint32_t type) noexcept { return type == nvfp4::gguf_id; }
/// Scales of a tensor in such a type.
std::int64_t scale_count(const gguf::tensor_info& t) noexcept;

/// Converts the rows of tensor `t` to `type` and hands the bytes to `out` in order. `importance`: null or
/// from imatrix::resolve for this tensor. Returns what the result lost against the source. Errors name the
/// tensor, and row and column of a weight that is NaN or infinite. With the tensor's own type the rows pass
/// unchanged, and the error is that of the rows against what they were made from, if the source tells.
result<conversion_loss> convert(const gguf::tensor_info& t, const gguf::row_source& source,
                                std::uint32_t type, const imatrix::importance* importance,
                                const scale_pair& scales, executor_ref threads, const sink& out,
                                std::size_t window = default_window);

}  // namespace quantal::plan
