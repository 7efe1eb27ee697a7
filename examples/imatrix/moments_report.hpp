// What a file of second moments holds and whether it serves a model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "json.hpp"
#include "moments_plan.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/imatrix/moments.hpp"

namespace quantal::mla {

/// Of the inputs of one tensor; shares and ranks are means over the slices that saw inputs.
struct moments_statistics {
  std::string name;
  std::int64_t cols = 0, slices = 0, unseen = 0;
  double inputs = 0, least = 0, most = 0;  ///< in all, for the slices that saw least and most
  double held_out = 0;
  double kept = 0;          ///< share of the entries off the diagonal that quantal-quantize keeps
  double off_diagonal = 0;  ///< share of the squared entries that lies off the diagonal
  double effective_rank =
      0;                  ///< trace^2 / sum of squares: cols if the inputs are white, 1 if they are parallel
  double mean_share = 0;  ///< share of the trace that the mean of the inputs explains
};

moments_statistics statistics_of(const std::string& name, const imatrix::moments& m);

/// A table or JSON of every tensor that has moments of its own. Reads one tensor at a time.
result<std::vector<moments_statistics>> all_statistics(const imatrix::moments_file& file);
void print_statistics(const std::vector<moments_statistics>& rows);
json statistics_json(const std::vector<moments_statistics>& rows);

struct moments_row {
  std::string name;
  plan::moments_note note;
  bool optional = false;  ///< none is no gap (output, blocks that no pass runs)
  bool gap() const noexcept { return !note && !optional; }
};

/// One row per tensor that quantal-quantize may look moments up for, in file order; errors name moments that do not fit the model.
result<std::vector<moments_row>> check_moments(const imatrix::moments_file& file, const gguf::reader& model);
/// Prints the table; true if no tensor lacks moments.
bool print_check(const std::vector<moments_row>& rows);
json check_json(const std::vector<moments_row>& rows);

}  // namespace quantal::mla
