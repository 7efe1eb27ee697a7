// Does an importance matrix serve a model? Per tensor: where its importance comes from, and which experts it saw.
#pragma once

#include <string>
#include <vector>

#include "importance.hpp"
#include "quantal/gguf/reader.hpp"

namespace quantal::mla {

struct coverage_row {
  std::string name;
  imatrix::source from = imatrix::source::none;
  std::string detail;
  std::int64_t experts = 0, unseen = 0;          ///< expert tensors only
  std::int64_t least = 0, median = 0, most = 0;  ///< rows seen
  bool optional = false;  ///< a gap here does not count (output, blocks that no pass runs)
  bool gap() const noexcept { return from == imatrix::source::none && !optional; }
};

/// One row per tensor whose importance quantal-quantize looks up and may need, in file order; errors name entries that do not fit the model.
result<std::vector<coverage_row>> check_coverage(const imatrix::store& s, const gguf::reader& model);

}  // namespace quantal::mla
