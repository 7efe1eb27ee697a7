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
#include "quantal/quantize/output_coder.hpp"
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

/// Allocates 1.5 * cols^2 floats; preparing takes cols^3 / 3 multiply-adds and cols^2 doubles for the time
/// being.
class output_metric {
 public:
  static constexpr int group = 8;  ///< columns that are ordered together
  /// U and P lie in panels of so many columns, each row by row: a product reads one from end to end.
  static constexpr std::int64_t factor_panel = 64, moments_panel = 256;

  /// bad_shape: cols is not a positive multiple of 16 (of 32 where groups have runs of 4), or sums has
  /// another size. bad_moments: a sum is NaN or infinite, the matrix is not symmetric, or it has a negative
  /// diagonal. The result does not depend on the executor, nor on the product: null is a slow one.
  status prepare(const second_moments& m, executor_ref threads, const output_metric_options& o = {},
                 quantize::factor_product product = nullptr);

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
  /// P as the columns lie in the row: row i from column c on, to the end of c's panel.
  const float* moments(std::int64_t i, std::int64_t c) const noexcept {
    const std::int64_t begin = c / moments_panel * moments_panel;
    return moments_.data() + begin * cols_ + i * moments_stride(c) + (c - begin);
  }
  /// Of the panel that holds column c.
  std::int64_t moments_stride(std::int64_t c) const noexcept {
    return std::min(moments_panel, cols_ - c / moments_panel * moments_panel);
  }
  /// U in the order of the groups: row i from column c on, i at most the last column of c's panel. What lies
  /// below the diagonal is zero.
  const float* factor(std::int64_t i, std::int64_t c) const noexcept {
    const std::int64_t p = c / factor_panel;
    return factor_.data() + factor_panel * factor_panel * (p * (p + 1) / 2) + i * factor_panel +
           (c - p * factor_panel);
  }
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
  status load(const second_moments& m, const output_metric_options& o, executor_ref threads,
              std::vector<double>& p);
  void keep_moments(const double* row, std::int64_t at);
  status factorize(std::vector<double>& a, executor_ref threads, quantize::factor_product product) const;
  void keep_group_factors(const std::vector<double>& p);
  void keep_factor(const std::vector<double>& u);
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
    for (std::int64_t k = j + 1; k < n; ++k) pivot = std::fma(-a[j * stride + k], a[j * stride + k], pivot);
    if (!(pivot > 0)) return false;
    const double root = std::sqrt(pivot);
    a[j * stride + j] = root;
    for (std::int64_t i = 0; i < j; ++i) {
      double v = a[i * stride + j];
      for (std::int64_t k = j + 1; k < n; ++k) v = std::fma(-a[i * stride + k], a[j * stride + k], v);
      a[i * stride + j] = v / root;
    }
  }
  return true;
}

/// The product for those who have none for their machine.
inline void add_plain_product(const double* e, std::int64_t e_stride, const double* u, std::int64_t u_stride,
                              double* y, std::int64_t y_stride, int rows, std::int64_t k,
                              std::int64_t cols) noexcept {
  for (int r = 0; r < rows; ++r)
    for (std::int64_t i = 0; i < k; ++i)
      for (std::int64_t c = 0; c < cols; ++c)
        y[r * y_stride + c] = std::fma(e[r * e_stride + i], u[i * u_stride + c], y[r * y_stride + c]);
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

/// The shrunk and damped matrix, in the order of the groups, and what is kept of it.
inline status output_metric::load(const second_moments& m, const output_metric_options& o,
                                  executor_ref threads, std::vector<double>& p) {
  const std::int64_t n = cols_;
  const double count = std::max(m.count, 1.0), keep = m.count / (m.count + o.kappa * static_cast<double>(n));
  double mean = 0;
  for (std::int64_t c = 0; c < n; ++c)
    mean += m.sums[static_cast<std::size_t>(c * n + c)] / count / static_cast<double>(n);
  const double added = mean > 0 ? o.damping * mean : 1.0;  // no input at all: every column counts the same
  const auto sum = [&](std::int64_t a, std::int64_t b) {
    return double{m.sums[static_cast<std::size_t>(a * n + b)]};
  };
  const bool ran = threads.for_each(static_cast<int>(n / group), [&](int task, int) {
    const std::int64_t first = group * task;
    for (std::int64_t at = 0; at < n; at += group)  // 8 x 8: rows of one and of the other triangle
      for (std::int64_t i = first; i < first + group; ++i)
        for (std::int64_t j = at; j < at + group; ++j) {
          const std::int64_t a = column_at(i), b = column_at(j);
          const double v = 0.5 * (sum(a, b) + sum(b, a)) / count;
          p[static_cast<std::size_t>(i * n + j)] = i == j ? v + added : keep * v;
        }
    for (std::int64_t i = first; i < first + group; ++i) keep_moments(&p[static_cast<std::size_t>(i * n)], i);
  });
  return ran ? status::ok : status::executor_failed;
}

/// Row `at` of P in the order of the groups.
inline void output_metric::keep_moments(const double* row, std::int64_t at) {
  const std::int64_t n = cols_, i = column_at(at);
  for (std::int64_t j = 0; j < n; ++j)
    *const_cast<float*>(moments(i, column_at(j))) = static_cast<float>(row[j]);
  diagonal_[static_cast<std::size_t>(i)] = static_cast<float>(row[at]);
}

/// From the last block of columns to the first: its own triangle, the rows above it, and what these take from
/// all columns before. Every entry is updated in one order of terms, whatever the threads.
inline status output_metric::factorize(std::vector<double>& p, executor_ref threads,
                                       quantize::factor_product product) const {
  constexpr std::int64_t width = 64, rows = 48, columns = 4 * rows;
  const std::int64_t n = cols_;
  double* a = p.data();
  // The rows above a triangle, negative row by row, and transposed in panels.
  std::vector<double> negative(static_cast<std::size_t>(width * n)),
      panels(static_cast<std::size_t>(width * (n + columns)));
  const auto panel = [&](std::int64_t j, std::int64_t i) {
    return &panels[static_cast<std::size_t>((i / columns * width + j) * columns + i % columns)];
  };
  for (std::int64_t end = n; end > 0;) {
    const std::int64_t begin = std::max<std::int64_t>(end - width, 0), w = end - begin;
    double* triangle = a + begin * n + begin;
    if (!quantize::detail::factor_small(triangle, n, w)) return status::bad_moments;
    const auto tasks = static_cast<int>((begin + rows - 1) / rows);
    const auto count = [&](int task) { return std::min(rows, begin - rows * task); };
    const bool solved = threads.for_each(tasks, [&](int task, int) {
      const std::int64_t i0 = rows * task;
      double* x = panel(0, i0);
      for (std::int64_t i = 0; i < count(task); ++i)
        for (std::int64_t j = 0; j < w; ++j) x[j * columns + i] = -a[(i0 + i) * n + begin + j];
      for (std::int64_t j = w - 1; j >= 0; --j) {
        double* to = x + j * columns;
        if (j + 1 < w)
          product(triangle + j * n + j + 1, n, to + columns, columns, to, columns, 1, w - 1 - j, count(task));
        for (std::int64_t i = 0; i < count(task); ++i) to[i] /= -triangle[j * n + j];
      }
      for (std::int64_t i = 0; i < count(task); ++i)
        for (std::int64_t j = 0; j < w; ++j) {
          const double v = x[j * columns + i];
          a[(i0 + i) * n + begin + j] = v;
          negative[static_cast<std::size_t>((i0 + i) * width + j)] = -v;
        }
    });
    const bool updated = solved && threads.for_each(tasks, [&](int task, int) {
      const std::int64_t i = rows * task;
      for (std::int64_t c = i; c < begin;) {
        const std::int64_t part = std::min(columns - c % columns, begin - c);
        product(&negative[static_cast<std::size_t>(i * width)], width, panel(0, c), columns, a + i * n + c, n,
                static_cast<int>(count(task)), w, part);
        c += part;
      }
    });
    if (!updated) return status::executor_failed;
    end = begin;
  }
  return status::ok;
}

inline void output_metric::keep_group_factors(const std::vector<double>& p) {
  for (std::int64_t at = 0; at < cols_; at += group) {
    double v[group * group] = {};
    for (int i = 0; i < group; ++i)
      for (int j = i; j < group; ++j)
        v[i * group + j] = p[static_cast<std::size_t>((at + i) * cols_ + at + j)];
    if (!quantize::detail::factor_small(v, group, group)) return;  // nor can the whole be factored
    std::transform(v, v + group * group, group_factor_.begin() + group_at(at / group) * group * group,
                   [](double x) { return static_cast<float>(x); });
  }
}

inline void output_metric::keep_factor(const std::vector<double>& u) {
  const std::int64_t n = cols_, panels = (n + factor_panel - 1) / factor_panel;
  factor_.assign(static_cast<std::size_t>(factor_panel * factor_panel * (panels * (panels + 1) / 2)), 0.0f);
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t j = i; j < n; ++j)
      *const_cast<float*>(factor(i, j)) = static_cast<float>(u[static_cast<std::size_t>(i * n + j)]);
    const double d = u[static_cast<std::size_t>(i * n + i)];
    conditional_[static_cast<std::size_t>(column_at(i))] = static_cast<float>(d * d);
  }
}

inline status output_metric::prepare(const second_moments& m, executor_ref threads,
                                     const output_metric_options& o, quantize::factor_product product) {
  if (const status checked = check(m); checked != status::ok) return checked;
  if (o.run != group && (o.run != group / 2 || m.cols % 32 != 0)) return status::bad_shape;
  cols_ = m.cols, run_ = o.run;
  order_groups(m);
  const auto n = static_cast<std::size_t>(cols_);
  moments_.resize(n * n), diagonal_.resize(n), conditional_.resize(n), group_factor_.resize(n * group);
  std::vector<double> p(n * n);
  output_metric_options damped = o;
  for (int tries = 0; tries < 6; ++tries, damped.damping = std::max(10 * damped.damping, 1e-6)) {
    if (const status s = load(m, damped, threads, p); s != status::ok) return s;
    keep_group_factors(p);
    const status s = factorize(p, threads, product ? product : &quantize::detail::add_plain_product);
    if (s == status::bad_moments) continue;  // not positive definite to rounding: more damping
    if (s == status::ok) keep_factor(p);
    return s;
  }
  return status::bad_moments;
}

}  // namespace quantal
