// Where matrix products run besides the processor.
#pragma once

#include <optional>

#include "quantal/kernel/args.hpp"
#include "weights.hpp"

namespace quantal::mla {

/// Products that a device takes over; all pointers are to host memory. nullopt: the caller has to do this
/// one.
class products {
 public:
  virtual ~products() = default;
  /// The weights of `a` are a slice of `m`.
  virtual std::optional<result<void>> mul_mat(const matrix& m, const mul_mat_args& a) = 0;
  virtual std::optional<result<void>> mul_mat_id(const matrix& m, const mul_mat_id_args& a) = 0;
};

/// The matrices of the last `layers` blocks of a model of `blocks`, and of the output if there are more
/// `layers` than blocks, on CUDA device 0 (activations rounded to bf16). Weights are copied at their first
/// use. Errors: built without CUDA, no device.
result<std::unique_ptr<products>> cuda_products(std::int64_t layers, std::int64_t blocks);

}  // namespace quantal::mla
