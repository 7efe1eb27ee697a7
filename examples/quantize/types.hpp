// Which type every tensor of a model gets, decided before anything is converted (quantize.md sections 2 to 5).
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_set>
#include <vector>

#include "kept.hpp"
#include "mixes.hpp"
#include "quantal/gguf/tensor_info.hpp"
#include "rules.hpp"

namespace quantal::plan {

struct type_options {
  const file_type* type = nullptr;
  dialect family = dialect::llama_cpp;  ///< whose mixes and stand-ins, and whose formats unless any_format
  bool any_format = false;              ///< rules and options may name every format
  std::vector<rule> rules;
  const format_info* token_embedding = nullptr;  ///< wins over rules and mix
  const format_info* output = nullptr;           ///< also of a token_embd that serves as output
  bool pure = false;                             ///< base type instead of the mix; rules still count
  bool leave_output = false;                     ///< output.weight stays as it is
  bool allow_requantize = false;
  std::unordered_set<std::string>
      released;  ///< quantized tensors that are a source without that (released.hpp)
  /// Tensors whose inputs a run of the model tells the quantizer, as an importance matrix would; empty: none.
  std::function<bool(std::string_view)> run_knows_inputs;
  std::unordered_set<std::string> copies;  ///< of these, the q8_0 tensors beside released ones
};

/// Whether a tensor of this type may be quantized from.
bool may_be_source(const gguf::tensor_info& t, const type_options& options);

/// What decided a tensor's type.
enum class reason : std::uint8_t { kept, base, mix, rule, option, no_data };
std::string_view to_string(reason);

struct target {
  std::uint32_t type = 0;
  bool copy = true;  ///< bytes stay as they are
  reason decided = reason::kept;
  int rule = -1;                               ///< index into the rules, if one decided
  const format_info* fallback_from = nullptr;  ///< the type that did not fit the columns, or that lacks data
};

/// One target per tensor, in order. Rules that count tensors see them as llama.cpp does: by block and name (ik_llama.cpp: in
/// the order of the file). Counts rule hits in options.rules. Errors: a source type that may not or cannot be read, a format
/// that does not exist, cannot be quantized to or is not one of the family's, useless rules.
result<std::vector<target>> choose_types(const std::vector<gguf::tensor_info>& tensors, type_options& options,
                                         const model_traits& model, bool has_imatrix);

}  // namespace quantal::plan
