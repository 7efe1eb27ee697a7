// The weights to aim at where the inputs x of a tensor are not those it was trained on, r, but the outputs shall be: W + share * D,
// D = W C P^-1. With C = mean of (r - x) x^T and P = mean of x x^T, shrunk and damped, that is the best linear answer of the
// weights to what happened to their inputs.
#pragma once

#include <cstdint>
#include <vector>

#include "paired_moments.hpp"
#include "quantal/executor.hpp"
#include "quantal/quantize/output_metric.hpp"

namespace quantal::plan {

class reference_target {
 public:
  /// Tiles of rows that threads take.
  static constexpr int tile = 24;

  /// `metric`: P of the slice, which must have seen inputs.
  reference_target(const paired_moments& m, std::int64_t slice, const output_metric& metric,
                   executor_ref threads);

  /// Moves `rows` rows of weights, and answers the share of D that was taken: that which leaves least error on the inputs
  /// that were held out, between 0 and 1. Without such inputs, what the shrinkage of P leaves of `kept`.
  double move(std::vector<float>& w, std::int64_t rows, double kept) const;

 private:
  void solve(float* y, int rows, float* scratch) const;
  void to_order(const float* y, int rows, float* z) const;
  double best_share(const std::vector<float>& w, const std::vector<float>& d, std::int64_t rows) const;
  template <class Body>
  void for_tiles(std::int64_t rows, Body body) const;

  const paired_moments& moments_;
  std::int64_t slice_, cols_;
  const output_metric& metric_;
  executor_ref threads_;
  std::vector<std::int64_t> order_;  ///< column of the row at every position of the metric
  std::vector<float> transposed_;    ///< the metric's factor: [row i][k]: U_ki for the k before i's panel
};

}  // namespace quantal::plan
