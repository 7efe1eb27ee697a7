// Products of a model's matrices with rows of activations: where they run, how they are checked, and that a row's
// result does not depend on the other rows of its batch.
#pragma once

#include <span>
#include <vector>

#include "model.hpp"
#include "products.hpp"
#include "quantal/executor.hpp"

namespace quantal::mla {

/// Rows of a batch that are consecutive tokens of one sequence. Its earlier tokens are the rows before `first` in the
/// cache.
struct segment {
  std::int64_t first, n, position;
};

using buffer = std::vector<float>;

inline float* grow(buffer& b, std::int64_t n) {
  if (b.size() < static_cast<std::size_t>(n)) b.resize(static_cast<std::size_t>(n));
  return b.data();
}

/// By the bits: no compiler setting makes this constant.
bool all_finite(const float* v, std::int64_t n);

class multiplier {
 public:
  /// `device` is asked first for every product; null: the processor does all.
  multiplier(const model& m, const runtime::dispatcher& arch, executor_ref executor, activation policy,
             products* device);

  /// The batch whose rows the next products have.
  void set_batch(std::span<const segment> parts) { parts_ = parts, failed_row_ = -1; }

  /// out[t][rows] = matrix slice x input. Row 0 is row `first_row` of the batch; errors carry the weight's name and
  /// the token.
  result<void> multiply(const matrix& m, std::int64_t slice, const float* x, std::int64_t n,
                        std::int64_t x_stride, float* out, std::int64_t out_stride, std::int64_t first_row);
  /// out[t][slot][rows] for the experts ids[t][slot].
  result<void> multiply_experts(const matrix& m, const float* x, std::int64_t n, std::int64_t token_stride,
                                std::int64_t slot_stride, const std::int32_t* ids, std::int64_t used,
                                float* out);
  /// Kernels add up differently where a matrix meets few columns. Appends tokens to ids[tokens][used] until every
  /// expert that is used has enough; answers their number.
  std::int64_t pad_experts(std::vector<std::int32_t>& ids, std::int64_t used, std::int64_t experts) const;
  /// At most so many.
  std::int64_t most_padding(std::int64_t used, std::int64_t experts) const {
    return used > 0 ? experts * enough_columns_ / used + 1 : 0;
  }

  result<void> check(const matrix& m, status s) const;
  error at_file(const std::string& what) const { return {path_ + ": " + what}; }
  /// The row that the last error is about; -1: none.
  std::int64_t failed_row() const noexcept { return failed_row_; }
  /// Multiplications and additions so far.
  double operations() const noexcept { return operations_; }

 private:
  result<void> few_columns(const matrix& m, std::int64_t slice, const float* x, std::int64_t n,
                           std::int64_t x_stride, float* out, std::int64_t out_stride);
  result<void> run(const matrix& m, const mul_mat_args& a);
  result<void> run(const matrix& m, const mul_mat_id_args& a);
  result<void> located(const result<void>& r) const;
  error not_finite(const matrix& m, bool finite_input, std::int64_t row, std::int64_t expert = -1);
  std::int64_t position_of(std::int64_t row) const;

  std::string path_;
  runtime::dispatcher arch_;
  executor_ref executor_;
  activation policy_;
  products* device_;
  std::int64_t enough_columns_;
  std::span<const segment> parts_;
  std::int64_t failed_row_ = -1;
  double operations_ = 0;
  std::vector<std::byte> workspace_;
  buffer few_in_, few_out_;
};

}  // namespace quantal::mla
