// Which type every tensor of a model gets, decided before anything is converted (quantize.md sections 2 to
// 5).
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "mixes.hpp"
#include "quantal/gguf/tensor_info.hpp"
#include "rules.hpp"

namespace quantal::plan {

struct type_options {
  const file_type* type = nullptr;
  std::vector<rule> rules;
  const format_info* token_embedding = nullptr;  ///< wins over rules and mix
  const format_info* output = nullptr;
  bool pure = false;          ///< base type instead of the mix; rules still count
  bool leave_output = false;  ///< output.weight stays as it is
  bool allow_requantize = false;
};

/// What decided a tensor's type.
enum class reason : std::uint8_t { kept, base, mix, rule, option };
std::string_view to_string(reason);

struct target {
  std::uint32_t type = 0;
  bool copy = true;  ///< bytes stay as they are
  reason decided = reason::kept;
  int rule = -1;                               ///< index into the rules, if one decided
  const format_info* fallback_from = nullptr;  ///< the type that did not fit the columns
};

/// Whether a tensor is a weight that quantizing touches: a matrix named *weight that is no norm, router,
/// position table and the like.
bool is_quantized(const gguf::tensor_info& tensor, bool leave_output);

/// One target per tensor, in order. Counts rule hits in options.rules. Errors: a source type that may not or
/// cannot be read, a format that does not exist or cannot be quantized to, columns that no format divides,
/// useless rules.
result<std::vector<target>> choose_types(const std::vector<gguf::tensor_info>& tensors, type_options& options,
                                         std::int64_t blocks, bool has_imatrix);

}  // namespace quantal::plan
