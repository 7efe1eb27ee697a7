// Squared errors of outputs for the inputs that were held out, against the outputs that weights are to have.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "output_meter.hpp"
#include "paired_moments.hpp"

namespace quantal::plan {

/// Without pairs these outputs are those of the weights W for the same inputs x: stored as W - E they err by E x. With pairs
/// they are those that the reference's inputs r = x + d have: the error is W r - (W - E) x = W d + E x.
class reference_meter {
 public:
  /// Of one thread: what it knows of the rows between measure_signal() and measure_error().
  struct scratch {
    std::vector<float> y;
    std::vector<float> shifted;  ///< W sum d x^T
    std::vector<double> rest;    ///< W sum d d^T W^T
  };

  reference_meter(const imatrix::moments& m, std::int64_t slice, const paired_moments* pairs)
      : meter_(m, slice), cols_(m.cols), count_(m.held_counts[static_cast<std::size_t>(slice)]) {
    if (pairs)
      shift_ = pairs->slice_of(pairs->held_shift, slice), rest_ = pairs->slice_of(pairs->held_rest, slice);
  }

  bool can_tell() const { return meter_.can_tell(); }

  /// Of each of `rows` rows of weights.
  void measure_signal(const float* w, int rows, scratch& s, double* out) const {
    s.y.resize(static_cast<std::size_t>(rows * cols_));
    meter_.measure(w, rows, s.y.data(), out);
    if (shift_.empty()) return;
    s.rest.resize(static_cast<std::size_t>(rows));
    multiply(w, rows, rest_, s.y);
    multiply(w, rows, shift_, s.shifted);
    for (int r = 0; r < rows; ++r) {
      s.rest[static_cast<std::size_t>(r)] = dot(w, s.y, r) / count_;
      out[r] += s.rest[static_cast<std::size_t>(r)] + 2 * dot(w, s.shifted, r) / count_;  // W r = W x + W d
    }
  }
  /// Of the same rows, whose errors are e.
  void measure_error(const float* e, int rows, scratch& s, double* out) const {
    s.y.resize(static_cast<std::size_t>(rows * cols_));
    meter_.measure(e, rows, s.y.data(), out);
    for (int r = 0; r < rows && !shift_.empty(); ++r)
      out[r] += s.rest[static_cast<std::size_t>(r)] + 2 * dot(e, s.shifted, r) / count_;
  }

 private:
  void multiply(const float* x, int rows, std::span<const float> m, std::vector<float>& y) const {
    y.assign(static_cast<std::size_t>(rows * cols_), 0.0f);
    add_square_product(x, rows, m.data(), cols_, y.data());
  }
  double dot(const float* x, const std::vector<float>& y, int r) const {
    double sum = 0;
    for (std::int64_t c = 0; c < cols_; ++c)
      sum += double{x[r * cols_ + c]} * y[static_cast<std::size_t>(r * cols_ + c)];
    return sum;
  }

  output_meter meter_;
  std::int64_t cols_;
  double count_;
  std::span<const float> shift_, rest_;
};

}  // namespace quantal::plan
