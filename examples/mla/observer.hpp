// What the collector sees of a run: the float32 input of every weight product, under the weight's name in the file.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "quantal/result.hpp"

namespace quantal::mla {

/// Input of a dense product, or of one product per head: row (token, slice) is at
/// data + token * token_stride + slice * slice_stride.
struct matrix_input {
  std::string_view name;
  const float* data;
  std::int64_t cols, tokens, token_stride;
  std::int64_t slices = 1, slice_stride = 0;
};

/// Input of an expert product: slot j of token t went to expert ids[t * used + j], with the row at
/// data + t * token_stride + j * slot_stride.
struct expert_input {
  std::string_view name;
  const float* data;
  std::int64_t cols, tokens, token_stride, slot_stride;
  const std::int32_t* ids;
  std::int64_t used, experts;
};

class observer {
 public:
  virtual ~observer() = default;
  /// The next inputs are those of the text's tokens from this one on.
  virtual void start_at(std::int64_t token) { static_cast<void>(token); }
  virtual result<void> on_mul_mat(const matrix_input&) = 0;
  virtual result<void> on_mul_mat_id(const expert_input&) = 0;
  /// True: expert inputs are reported for every expert, whatever the router chose; outputs stay routed.
  virtual bool wants_all_experts() const { return false; }
  /// The same for some experts: [tokens, any] of the batch that runs. Empty: those that the router chose.
  virtual std::span<const std::int32_t> other_experts() const { return {}; }
  /// True: nothing else of this half of a block is wanted. It may end, and its output is not made.
  virtual bool done() const { return false; }
};

}  // namespace quantal::mla
