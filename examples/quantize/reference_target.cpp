#include "reference_target.hpp"

#include <algorithm>

#include "output_meter.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::plan {
namespace {

constexpr std::int64_t solve_panel = output_metric::factor_panel;

double dot(const float* a, const float* b, std::int64_t n) {
  double sum = 0;
  for (std::int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
  return sum;
}

}  // namespace

reference_target::reference_target(const paired_moments& m, std::int64_t slice, const output_metric& metric,
                                   executor_ref threads)
    : moments_(m), slice_(slice), cols_(metric.cols()), metric_(metric), threads_(threads) {
  for (std::int64_t g = 0; g < cols_ / output_metric::group; ++g)
    for (int i = 0; i < output_metric::group; ++i) order_.push_back(metric.column_of(metric.group_at(g), i));
  transposed_.resize(static_cast<std::size_t>(cols_ * cols_));
  threads_.for_each(static_cast<int>((cols_ + solve_panel - 1) / solve_panel), [&](int panel, int) {
    const std::int64_t begin = panel * solve_panel, end = std::min(begin + solve_panel, cols_);
    for (std::int64_t k = 0; k < begin; ++k)
      for (std::int64_t i = begin; i < end; ++i)
        transposed_[static_cast<std::size_t>(i * cols_ + k)] = *metric_.factor(k, i);
  });
}

template <class Body>
void reference_target::for_tiles(std::int64_t rows, Body body) const {
  threads_.for_each(static_cast<int>((rows + tile - 1) / tile), [&](int task, int worker) {
    const std::int64_t first = std::int64_t{tile} * task;
    body(first, static_cast<int>(std::min<std::int64_t>(tile, rows - first)), worker);
  });
}

/// Rows y become y P^-1, P = U U^T, both in the order of the metric: first z with z U^T = y from the last panel of columns to
/// the first, then y with y U = z the other way. `minus` has the size of y.
void reference_target::solve(float* y, int rows, float* minus) const {
  const auto product = runtime::best_variant().product();
  const auto at = [&](int r, std::int64_t c) -> float& { return y[r * cols_ + c]; };
  const std::int64_t last = (cols_ - 1) / solve_panel * solve_panel;
  for (std::int64_t begin = last; begin >= 0; begin -= solve_panel) {
    const std::int64_t end = std::min(begin + solve_panel, cols_);
    for (int r = 0; r < rows; ++r)
      for (std::int64_t i = end - 1; i >= begin; --i) {
        at(r, i) /= *metric_.factor(i, i);
        minus[r * cols_ + i] = -at(r, i);
        for (std::int64_t k = begin; k < i; ++k) at(r, k) -= at(r, i) * *metric_.factor(k, i);
      }
    if (begin > 0)
      product(minus + begin, cols_, &transposed_[static_cast<std::size_t>(begin * cols_)], cols_, y, cols_,
              rows, end - begin, begin);
  }
  for (std::int64_t begin = 0; begin < cols_; begin += solve_panel) {
    const std::int64_t end = std::min(begin + solve_panel, cols_);
    if (begin > 0)
      product(minus, cols_, metric_.factor(0, begin), solve_panel, y + begin, cols_, rows, begin,
              end - begin);
    for (int r = 0; r < rows; ++r)
      for (std::int64_t j = begin; j < end; ++j) {
        at(r, j) /= *metric_.factor(j, j);
        minus[r * cols_ + j] = -at(r, j);
        for (std::int64_t i = j + 1; i < end; ++i) at(r, i) -= at(r, j) * *metric_.factor(j, i);
      }
  }
}

/// Columns of rows, as the metric orders them.
void reference_target::to_order(const float* y, int rows, float* z) const {
  for (int r = 0; r < rows; ++r)
    for (std::int64_t c = 0; c < cols_; ++c)
      z[r * cols_ + c] = y[r * cols_ + order_[static_cast<std::size_t>(c)]];
}

/// The outputs are off by W (r - x) - share * D x: a parabola in the share.
double reference_target::best_share(const std::vector<float>& w, const std::vector<float>& d,
                                    std::int64_t rows) const {
  const auto shift = moments_.slice_of(moments_.held_shift, slice_);
  const auto inputs = moments_.inputs.held_out_matrix(slice_);
  std::vector<double> gain(static_cast<std::size_t>(rows)), cost(gain.size());
  std::vector<float> memory(static_cast<std::size_t>(threads_.workers() * tile * cols_));
  for_tiles(rows, [&](std::int64_t first, int n, int worker) {
    float* y = memory.data() + worker * tile * cols_;
    for (const bool gains : {true, false}) {
      std::fill_n(y, n * cols_, 0.0f);
      add_square_product((gains ? w : d).data() + first * cols_, n, gains ? shift.data() : inputs.data(),
                         cols_, y);
      for (int r = 0; r < n; ++r)
        (gains ? gain : cost)[static_cast<std::size_t>(first + r)] =
            dot(y + r * cols_, d.data() + (first + r) * cols_, cols_);
    }
  });
  double gains = 0, costs = 0;  // in the order of the rows
  for (const double v : gain) gains += v;
  for (const double v : cost) costs += v;
  return costs > 0 ? std::clamp(gains / costs, 0.0, 1.0) : 0.0;
}

double reference_target::move(std::vector<float>& w, std::int64_t rows, double kept) const {
  const auto shift = moments_.slice_of(moments_.shift, slice_);
  const auto count = static_cast<float>(moments_.inputs.counts[static_cast<std::size_t>(slice_)]);
  std::vector<float> d(static_cast<std::size_t>(rows * cols_));
  std::vector<float> memory(static_cast<std::size_t>(2 * threads_.workers() * tile * cols_));
  for_tiles(rows, [&](std::int64_t first, int n, int worker) {
    float *y = memory.data() + 2 * worker * tile * cols_, *z = y + tile * cols_;
    std::fill_n(y, n * cols_, 0.0f);
    add_square_product(w.data() + first * cols_, n, shift.data(), cols_, y);
    to_order(y, n, z);
    solve(z, n, y);
    for (int r = 0; r < n; ++r)
      for (std::int64_t c = 0; c < cols_; ++c)
        d[static_cast<std::size_t>((first + r) * cols_ + order_[static_cast<std::size_t>(c)])] =
            z[r * cols_ + c] / count;
  });
  const bool can_tell = moments_.inputs.held_counts[static_cast<std::size_t>(slice_)] > 0;
  const auto share = static_cast<float>(can_tell ? best_share(w, d, rows) : kept);
  for (std::size_t i = 0; i < w.size(); ++i) w[i] += share * d[i];
  return share;
}

}  // namespace quantal::plan
