// The whole plan of a quantization: types, importance and sizes of every tensor, before a byte is written.
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "importance.hpp"
#include "moments_plan.hpp"
#include "quantal/gguf/model_view.hpp"
#include "types.hpp"

namespace quantal::plan {

struct step {
  const gguf::tensor_info* tensor;  ///< of the model, which must outlive the plan
  target to;
  importance_note importance;
  std::uint64_t bytes;  ///< in the output
  /// Not null: this is no tensor of the model but the scale beside one of its tensors.
  const gguf::tensor_info* scale_of = nullptr;
  moments_note moments = {};  ///< of add_moments()

  /// The file of the output that it goes to.
  int shard() const noexcept { return (scale_of ? scale_of : tensor)->shard; }
};

struct model_plan {
  const file_type* type = nullptr;
  dialect family = dialect::llama_cpp;
  model_traits traits;
  imatrix::model_shape shape;
  std::vector<step> steps;  ///< one per tensor, in the order of the input; scales come before what they scale
  std::deque<gguf::tensor_info> scales;         ///< tensors that only the output has
  std::vector<std::string> missing_importance;  ///< quantized tensors that an imatrix has no data for
  std::vector<std::string> notes;               ///< what a user may not expect
  std::int64_t quantized = 0, fallbacks = 0;
  std::uint64_t source_bytes = 0, bytes = 0;
  std::int64_t elements = 0;
  std::map<std::string, std::int64_t> source_types, types;  ///< tensors per type name

  double bpw() const noexcept {
    return elements ? 8.0 * static_cast<double>(bytes) / static_cast<double>(elements) : 0;
  }
};

/// Whether the step's type is open: a matrix that may be quantized, of which no rule or option decides.
bool is_open(const step& s, const type_options& options);

/// Whether the step lacks importance that it may not go without.
bool lacks_importance(const step& s, const model_traits& traits, const type_options& options,
                      requirement needed);

/// What to do about tensors that lack importance.
enum class on_lack : std::uint8_t { fail, keep_going };

/// `statistics`: null without an imatrix. Errors name the tensors and what to do about them.
result<model_plan> make_plan(const gguf::model_view& model, type_options& options,
                             const imatrix::store* statistics, requirement needed,
                             on_lack then = on_lack::fail);

}  // namespace quantal::plan
