// What an error of a row of weights does to the outputs: the second moments of the inputs, prepared once for
// all rows that meet them.
//
// With e = weights - decoded, the mean squared error of the row's output is e P e^T, P = mean of x x^T. The
// diagonal of P is the importance; the rest says which errors add up and which cancel. P is made usable in
// two steps:
//   shrinkage  off-diagonal entries are multiplied by n / (n + kappa * cols), n inputs seen: with few inputs
//   they are
//              mostly noise, and codes chosen against noise are worse than codes chosen without. No input:
//              the diagonal.
//   damping    a share of the mean diagonal is added to the diagonal, so that P can be factored.
// Columns are taken in groups of 8, the group with the largest diagonal first, and P = U U^T with U upper
// triangular: then e P e^T = |e U|^2, and component c of e U depends on the columns up to c alone. What is
// chosen for a column can therefore answer the errors of all columns before it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numeric>
#include <span>
#include <vector>

#include "quantal/executor.hpp"
#include "quantal/status.hpp"

namespace quantal {

/// Second moments of `count` inputs of `cols` columns.
struct second_moments {
  std::int64_t cols = 0;
  double count = 0;
  std::span<const float> sums;  ///< cols x cols, row-major and symmetric: sum of x x^T
};

struct output_metric_options {
  double kappa = 1.0;     ///< strength of the shrinkage
  double damping = 0.01;  ///< share of the mean diagonal that is added to it
  int run = 8;            ///< a group of columns are 8 neighbours; 4: 4 neighbours and those 16 columns on
};

/// Allocates 2 * cols^2 floats; preparing takes cols^3 / 3 multiply-adds and 2 * cols^2 doubles for the time
/// being.
class output_metric {
 public:
  static constexpr int group = 8;  ///< columns that are ordered together

  /// bad_shape: cols is not a positive multiple of 16, or sums has another size. bad_moments: a sum is NaN or
  /// infinite, the matrix is not symmetric, or it has a negative diagonal. The result does not depend on the
  /// executor.
  status prepare(const second_moments& m, executor_ref threads, const output_metric_options& o = {});

  std::int64_t cols() const noexcept { return cols_; }
  /// Neighbours in a group, and how far its other ones are.
  int run() const noexcept { return run_; }
  static constexpr std::int64_t far = 16;
  /// First column of a group of the row, and column i of it.
  std::int64_t first_of(std::int64_t g) const noexcept {
    return run_ == group ? group * g : g / 4 * 32 + g % 4 * 4;
  }
  std::int64_t column_of(std::int64_t g, int i) const noexcept {
    return first_of(g) + (i < run_ ? i : far + i - run_);
  }
  /// Group at position `at` of the order.
  std::int32_t group_at(std::int64_t at) const noexcept { return order_[static_cast<std::size_t>(at)]; }
  /// P as the columns lie in the row, row-major.
  const float* moments() const noexcept { return moments_.data(); }
  /// U in the order of the groups, row-major; what lies below the diagonal is zero.
  const float* factor() const noexcept { return factor_.data(); }
  /// Factor V of the 8 x 8 part of P that is group g of the row: P_BB = V V^T, V upper triangular, row-major.
  const float* group_factor(std::int64_t g) const noexcept {
    return group_factor_.data() + g * group * group;
  }
  /// Diagonal of P, column by column of the row: the importance of a column while all others stay.
  std::span<const float> diagonal() const noexcept { return diagonal_; }
  /// The importance of a column while the columns behind it will still answer its error.
  std::span<const float> conditional() const noexcept { return conditional_; }

 private:
  static status check(const second_moments& m);
  void order_groups(const second_moments& m);
  std::vector<double> shrunk(const second_moments& m, const output_metric_options& o) const;
  status factorize(std::vector<double>& a, executor_ref threads);
  void keep(const std::vector<double>& p, const std::vector<double>& u);

  std::int64_t column_at(std::int64_t at) const noexcept {
    return column_of(order_[static_cast<std::size_t>(at / group)], static_cast<int>(at % group));
  }

  std::int64_t cols_ = 0;
  int run_ = group;
  std::vector<std::int32_t> order_;
  std::vector<float> moments_, factor_, group_factor_, diagonal_, conditional_;
};

namespace quantize::detail {

/// Factors the n x n matrix `a` in place: its upper triangle becomes U with a = U U^T; only the upper
/// triangle is read. False if a pivot is not positive. n is small.
inline bool factor_small(double* a, std::int64_t stride, std::int64_t n) {
  for (std::int64_t j = n - 1; j >= 0; --j) {
    double pivot = a[j * stride + j];
    for (std::int64_t k = j + 1; k < n; ++k) pivot -= a[j * stride + k] * a[j * stride + k];
    if (!(pivot > 0)) return false;
    const double root = std::sqrt(pivot);
    a[j * stride + j] = root;
    for (std::int64_t i = 0; i < j; ++i) {
      double v = a[i * stride + j];
      for (std::int64_t k = j + 1; k < n; ++k) v -= a[i * stride + k] * a[j * stride + k];
      a[i * stride + j] = v / root;
    }
  }
  return true;
}

}  // namespace quantize::detail

inline status output_metric::check(const second_moments& m) {
  const std::int64_t n = m.cols;
  if (n <= 0 || n % (2 * group) != 0 || n > (std::int64_t{1} << 20) ||
      static_cast<std::int64_t>(m.sums.size()) != n * n)
    return status::bad_shape;
  if (!(m.count >= 0) || !std::isfinite(m.count)) return status::bad_moments;
  double most = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    const double d = m.sums[static_cast<std::size_t>(i * n + i)];
    if (!(d >= 0) || !std::isfinite(d)) return status::bad_moments;
    most = std::max(most, d);
  }
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < i; ++j) {
      const double a = m.sums[static_cast<std::size_t>(i * n + j)],
                   b = m.sums[static_cast<std::size_t>(j * n + i)];
      if (!std::isfinite(a) || !(std::fabs(a - b) <= 1e-3 * most)) return status::bad_moments;
    }
  return status::ok;
}

inline void output_metric::order_groups(const second_moments& m) {
  const auto groups = static_cast<std::size_t>(cols_ / group);
  std::vector<double> weight(groups);
  for (std::size_t g = 0; g < groups; ++g)
    for (int i = 0; i < group; ++i) {
      const std::int64_t c = column_of(static_cast<std::int64_t>(g), i);
      weight[g] += m.sums[static_cast<std::size_t>(c * cols_ + c)];
    }
  order_.resize(groups);
  std::iota(order_.begin(), order_.end(), 0);
  std::stable_sort(order_.begin(), order_.end(), [&](auto a, auto b) {
    return weight[static_cast<std::size_t>(a)] > weight[static_cast<std::size_t>(b)];
  });
}

inline std::vector<double> output_metric::shrunk(const second_moments& m,
                                                 const output_metric_options& o) const {
  const std::int64_t n = cols_;
  std::vector<double> p(static_cast<std::size_t>(n * n));
  const double count = std::max(m.count, 1.0), keep = m.count / (m.count + o.kappa * static_cast<double>(n));
  double mean = 0;
  for (std::int64_t c = 0; c < n; ++c)
    mean += m.sums[static_cast<std::size_t>(c * n + c)] / count / static_cast<double>(n);
  const double added = mean > 0 ? o.damping * mean : 1.0;  // no input at all: every column counts the same
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j) {
      const std::int64_t a = column_at(i), b = column_at(j);
      const double v = 0.5 *
                       (double{m.sums[static_cast<std::size_t>(a * n + b)]} +
                        m.sums[static_cast<std::size_t>(b * n + a)]) /
                       count;
      p[static_cast<std::size_t>(i * n + j)] = i == j ? v + added : keep * v;
    }
  return p;
}

/// From the last block of columns to the first: its own triangle, the rows above it, and what these take from
/// all columns before. Every entry is updated in one order of terms, whatever the threads.
inline status output_metric::factorize(std::vector<double>& a, executor_ref threads) {
  constexpr std::int64_t width = 32;
  const std::int64_t n = cols_;
  std::vector<double> panel(static_cast<std::size_t>(width * n));
  for (std::int64_t end = n; end > 0;) {
    const std::int64_t begin = std::max<std::int64_t>(end - width, 0), w = end - begin;
    if (!quantize::detail::factor_small(&a[static_cast<std::size_t>(begin * n + begin)], n, w))
      return status::bad_moments;
    for (std::int64_t i = 0; i < begin; ++i)
      for (std::int64_t j = end - 1; j >= begin; --j) {
        double v = a[static_cast<std::size_t>(i * n + j)];
        for (std::int64_t k = j + 1; k < end; ++k)
          v -= a[static_cast<std::size_t>(i * n + k)] * a[static_cast<std::size_t>(j * n + k)];
        v /= a[static_cast<std::size_t>(j * n + j)];
        a[static_cast<std::size_t>(i * n + j)] = v;
        panel[static_cast<std::size_t>((j - begin) * n + i)] = v;
      }
    const int tasks = static_cast<int>((begin + 15) / 16);
    const bool ran = threads.for_each(tasks, [&](int task, int) {
      for (std::int64_t i = 16 * task; i < std::min<std::int64_t>(16 * task + 16, begin); ++i) {
        double* row = &a[static_cast<std::size_t>(i * n)];
        for (std::int64_t j = 0; j < w; ++j) {
          const double v = row[begin + j];
          const double* p = &panel[static_cast<std::size_t>(j * n)];
          for (std::int64_t k = i; k < begin; ++k) row[k] -= v * p[k];
        }
      }
    });
    if (!ran) return status::executor_failed;
    end = begin;
  }
  return status::ok;
}

inline void output_metric::keep(const std::vector<double>& p, const std::vector<double>& u) {
  const std::int64_t n = cols_;
  moments_.resize(p.size());
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t j = 0; j < n; ++j)
      moments_[static_cast<std::size_t>(column_at(i) * n + column_at(j))] =
          static_cast<float>(p[static_cast<std::size_t>(i * n + j)]);
  factor_.assign(static_cast<std::size_t>(n * n), 0.0f);
  diagonal_.resize(static_cast<std::size_t>(n)), conditional_.resize(static_cast<std::size_t>(n));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j)
      factor_[static_cast<std::size_t>(i * n + j)] =
          static_cast<float>(u[static_cast<std::size_t>(i * n + j)]);
    const auto c = static_cast<std::size_t>(column_at(i));
    const double d = u[static_cast<std::size_t>(i * n + i)];
    diagonal_[c] = static_cast<float>(p[static_cast<std::size_t>(i * n + i)]);
    conditional_[c] = static_cast<float>(d * d);
  }
  group_factor_.resize(static_cast<std::size_t>(n * group));
  for (std::int64_t at = 0; at < n; at += group) {
    double v[group * group] = {};
    for (int i = 0; i < group; ++i)
      for (int j = i; j < group; ++j) v[i * group + j] = p[static_cast<std::size_t>((at + i) * n + at + j)];
    (void)quantize::detail::factor_small(v, group, group);  // a principal part of what has been factored
    std::transform(v, v + group * group, group_factor_.begin() + group_at(at / group) * group * group,
                   [](double x) { return static_cast<float>(x); });
  }
}

inline status output_metric::prepare(const second_moments& m, executor_ref threads,
                                     const output_metric_options& o) {
  if (const status checked = check(m); checked != status::ok) return checked;
  if (o.run != group && (o.run != group / 2 || m.cols % 32 != 0)) return status::bad_shape;
  cols_ = m.cols, run_ = o.run;
  order_groups(m);
  output_metric_options damped = o;
  for (int tries = 0; tries < 6; ++tries, damped.damping = std::max(10 * damped.damping, 1e-6)) {
    const auto p = shrunk(m, damped);
    auto u = p;
    const status s = factorize(u, threads);
    if (s == status::bad_moments) continue;  // not positive definite to rounding: more damping
    if (s == status::ok) keep(p, u);
    return s;
  }
  return status::bad_moments;
}

}  // namespace quantal
