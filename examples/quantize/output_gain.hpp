// What output-aware codes gain, told by some rows of a tensor: the error curves of an allocation ask it for
// many types.
#pragma once

#include <cstddef>
#include <vector>

#include "quantal/executor.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/imatrix/lookup.hpp"
#include "quantal/imatrix/moments.hpp"

namespace quantal::plan {

class output_gain {
 public:
  /// Takes rows of up to four slices that saw inputs, evenly spread. `importance`: null or of this tensor.
  /// Errors name the file and the tensor.
  static result<output_gain> sample(const gguf::model_view& model, const gguf::tensor_info& t,
                                    const imatrix::importance* importance, const imatrix::moments& m);

  /// Output error on held-out inputs of the codes that moments choose, over that of the plain codes; at most
  /// 1, and 1 where the type has no such codes or no inputs were held out.
  result<double> ratio(std::uint32_t type, executor_ref threads) const;

 private:
  gguf::tensor_info tensor_;  ///< of the sample
  std::vector<float> weights_;
  imatrix::importance importance_;
  imatrix::moments moments_;
};

}  // namespace quantal::plan
