// Which second moments every tensor gets, known before a byte is written. quantal-quantize plans with it and
// quantal-imatrix --check reports it, so that both say the same.
#pragma once

#include <cstdint>
#include <string>

#include "quantal/gguf/model_view.hpp"
#include "quantal/imatrix/lookup.hpp"
#include "quantal/imatrix/moments.hpp"

namespace quantal::plan {

/// Where the second moments of a tensor come from; the sums are read when they are needed.
struct moments_note {
  std::string of;           ///< tensor under whose name the file has them; empty: there are none
  std::string why;          ///< why there are none
  std::int64_t slices = 0;  ///< matrices
  std::int64_t unseen = 0;  ///< of them without an input
  bool pooled = false;      ///< all experts or heads of the tensor share one matrix
  double inputs = 0, least = 0,
         most = 0;      ///< that were collected: in all, for the slices that saw least and most
  double held_out = 0;  ///< inputs that were kept apart

  explicit operator bool() const noexcept { return !of.empty(); }
};

/// Second moments for a tensor: its own or those of a tensor with the same inputs. Errors name the file, the tensor and what does
/// not fit.
result<moments_note> find_moments(const imatrix::moments_file& file, const gguf::tensor_info& t,
                                  const imatrix::model_shape& shape);

/// "own, 8 slices of 120 to 7000 inputs (1 without), 900 held out"; why there are none.
std::string describe(const moments_note& n, const std::string& tensor);

struct step;
/// True if moments can choose the codes of the tensor.
bool wants_moments(const step& s);

struct model_plan;
/// Notes what every tensor with output-aware codes gets. An error also if the file has nothing for any tensor
/// of the model: it belongs to another one.
result<void> add_moments(const gguf::model_view& model, const imatrix::moments_file& file, model_plan& p);

}  // namespace quantal::plan
