// What lattices the tensors of a model lie on, and which types hold them: quantal-inspect --lattice shows it,
// quantal-quantize --lattice goes by it.
#pragma once

#include <string>
#include <vector>

#include "plan.hpp"
#include "quantal/executor.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/lattice.hpp"

namespace quantal::plan {

struct lattice_finding {
  lattice of;
  float rounding = 0;     ///< of the weights as they are stored, see stored_rounding()
  lattice_fit_count fit;  ///< of all rows
  const format_info* type =
      nullptr;  ///< the smallest that gives the codes back; q8_0 if none of those that were tried does
  bool lossless =
      false;        ///< `type` does, but for the rounding of its scales, and every group of every row fits
  double nmse = 0;  ///< of `type`, over all rows

  explicit operator bool() const noexcept { return static_cast<bool>(of); }
  bool all_fit() const noexcept { return fit.fitting == fit.groups; }
};

/// Whether a tensor can be looked at: a matrix of weights.
bool may_have_lattice(const gguf::tensor_info& t);

/// Reads some rows of the tensor, which are kept in memory, then all of them, and where they lie on a lattice once or twice for
/// each type that may hold it. Types are those that programs of `family` read.
/// Errors name the file, the tensor and the row.
result<lattice_finding> examine(const gguf::model_view& model, const gguf::tensor_info& t, dialect family,
                                executor_ref threads);

/// The numbers that its scales are, as far as the weights tell: "powers of two", "f16", "f32"; "any" with offsets.
std::string_view scales_of(const lattice_finding& f);

/// "int4, groups of 32, codes -7..7, all groups fit, scales: f16; q4_0 holds it, nmse 1.5e-06".
std::string describe(const lattice_finding& f, const gguf::tensor_info& t);

/// Rules (rule_for) for the tensors that no rule or option decides and that lie on a lattice: the type that holds it, where that
/// is smaller than the tensor's. Empty if there are none.
result<std::string> lattice_rules(const gguf::model_view& model, type_options fixed, executor_ref threads);

}  // namespace quantal::plan
