// Squared outputs of rows, told by the second moments of the inputs that were held out.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "quantal/imatrix/moments.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::plan {

/// y += x m, x and y being rows x cols and m cols x cols.
inline void add_square_product(const float* x, int rows, const float* m, std::int64_t cols, float* y) {
  runtime::best_variant().product()(x, cols, m, cols, y, cols, rows, cols, cols);
}

/// Mean squared outputs of rows for the inputs that were held out.
class output_meter {
 public:
  output_meter(const imatrix::moments& m, std::int64_t slice)
      : cols_(m.cols),
        matrix_(m.held_out_matrix(slice)),
        count_(m.held_counts[static_cast<std::size_t>(slice)]) {}

  bool can_tell() const { return count_ > 0; }
  /// Of each of `rows` rows x. `y`: as many floats, overwritten.
  void measure(const float* x, int rows, float* y, double* out) const {
    std::fill_n(y, rows * cols_, 0.0f);
    add_square_product(x, rows, matrix_.data(), cols_, y);
    for (int r = 0; r < rows; ++r) {
      double sum = 0;
      for (std::int64_t c = 0; c < cols_; ++c) sum += double{x[r * cols_ + c]} * y[r * cols_ + c];
      out[r] = sum / count_;
    }
  }

 private:
  std::int64_t cols_;
  std::vector<float> matrix_;
  double count_;
};

}  // namespace quantal::plan
