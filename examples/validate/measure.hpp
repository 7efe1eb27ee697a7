// Tensors of a model against those of its reference: streamed, in bounded memory, any architecture.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "gates.hpp"
#include "quantal/executor.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/imatrix/model.hpp"
#include "quantal/imatrix/moments.hpp"

namespace quantal::validate {

struct tensor_report {
  std::string name, type, reference_type;
  std::uint64_t bytes = 0, reference_bytes = 0;
  std::string importance;  ///< where the statistics come from; empty: none
  metrics values;
};

struct pairing {
  std::vector<std::pair<const gguf::tensor_info*, const gguf::tensor_info*>> both;  ///< model, reference
  std::vector<std::string> only_in_model, only_in_reference;
};

/// By name. Errors: shapes that differ.
result<pairing> pair_tensors(const gguf::reader& model, const gguf::reader& reference);

/// Measures one pair. Without statistics for the tensor, wnmse is absent and output_nmse uses activations of
/// equal variance; without second moments, hessian_nmse is absent. Errors: types that cannot be decoded,
/// references that are not finite, data that does not fit.
result<tensor_report> measure(const gguf::reader& model, const gguf::tensor_info& t,
                              const gguf::reader& reference, const gguf::tensor_info& source,
                              const imatrix::store* statistics, const imatrix::moments_file* moments,
                              executor_ref threads);

}  // namespace quantal::validate
