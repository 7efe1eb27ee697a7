// Output-aware quantization: codes chosen by what they do to the outputs of a row, not weight by weight.
//
// The plain quantizer decides the scales. Then, over groups of eight columns in the order of output_metric:
//   feedback   each group takes the codes that answer the errors of all groups before it best;
//   rescale    the targets of that pass are weights to the plain quantizer, the conditional importance their
//   importance:
//              it finds scales (and offsets, tables) for them, under which feedback runs again;
//   descent    each group takes better codes while all others stay, until that stops paying.
// A row keeps the best bytes of all, so it is never worse than the plain quantizer's in e P e^T.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstring>
#include <span>
#include <utility>

#include "quantal/quantize/output_coder.hpp"
#include "quantal/quantize/output_metric.hpp"

namespace quantal {

struct output_aware_options {
  int rescales = 3;  ///< rounds of new scales for the fed-back targets
  int descents = 4;  ///< passes of descent, at most
};

/// Weights of one matrix, or of one slice of it, that meet the inputs of a metric.
struct output_aware_args {
  const float* weights;  ///< rows x metric.cols()
  std::int64_t rows, stride;
  std::byte* out;                ///< rows of the format
  std::int64_t out_stride;       ///< bytes
  double* loss = nullptr;        ///< null, or one per row: e P e^T of what was written
  double* plain_loss = nullptr;  ///< the same of the plain quantizer's bytes
};

namespace quantize {

/// Rows that are worked on together: enough that U is read from memory once for many multiply-adds.
inline constexpr int output_tile_rows = 24;

/// One worker's tile of rows. Errors and targets are in the order of the metric, U's own.
class output_tile {
  static constexpr int block = 64;  ///< columns between two products with everything before them

 public:
  static std::size_t bytes(const output_coder& c, std::int64_t cols) noexcept {
    const auto floats =
        static_cast<std::size_t>(output_tile_rows) * static_cast<std::size_t>(4 * cols + block) +
        static_cast<std::size_t>(2 * cols);
    return floats * sizeof(float) +
           static_cast<std::size_t>(2 * output_tile_rows) * static_cast<std::size_t>(c.row_bytes(cols)) + 64;
  }

  output_tile(const output_coder& coder, const output_metric& metric, row_product product,
              std::byte* memory) noexcept
      : coder_(coder),
        metric_(metric),
        product_(product),
        cols_(metric.cols()),
        row_bytes_(coder.row_bytes(cols_)) {
    memory += (64 - reinterpret_cast<std::uintptr_t>(memory) % 64) % 64;
    auto* f = reinterpret_cast<float*>(memory);
    const auto take = [&](std::int64_t n) { return std::exchange(f, f + n); };
    x_ = take(output_tile_rows * cols_), error_ = take(output_tile_rows * cols_),
    target_ = take(output_tile_rows * cols_);
    residual_ = take(output_tile_rows * cols_), y_ = take(output_tile_rows * block);
    natural_ = take(cols_), decoded_ = take(cols_);
    best_ = reinterpret_cast<std::byte*>(f), trial_ = best_ + output_tile_rows * row_bytes_;
  }

  status run(const output_aware_args& a, std::int64_t first, int rows,
             const output_aware_options& o) noexcept {
    rows_ = rows;
    for (int r = 0; r < rows; ++r) {
      const float* w = a.weights + (first + r) * a.stride;
      if (const status s = coder_.quantize(w, metric_.diagonal().data(), best(r), cols_); s != status::ok)
        return s;
      to_order(w, x_ + r * cols_);
    }
    evaluate_best();
    if (a.plain_loss) std::copy_n(loss_, rows, a.plain_loss + first);
    std::memcpy(trial_, best_, static_cast<std::size_t>(rows * row_bytes_));
    for (int round = 0;; ++round) {
      feed_back();
      keep_better();
      if (round == o.rescales) break;
      if (const status s = rescale(); s != status::ok) return s;
    }
    if (o.descents > 0) descend(o.descents);
    for (int r = 0; r < rows; ++r)
      std::memcpy(a.out + (first + r) * a.out_stride, best(r), static_cast<std::size_t>(row_bytes_));
    if (a.loss) std::copy_n(loss_, rows, a.loss + first);
    return status::ok;
  }

 private:
  static constexpr int group = output_metric::group;
  std::byte* best(int r) const noexcept { return best_ + r * row_bytes_; }
  std::byte* trial(int r) const noexcept { return trial_ + r * row_bytes_; }
  std::int64_t groups() const noexcept { return cols_ / group; }
  std::int64_t column(std::int64_t at) const noexcept { return group * metric_.group_at(at / group); }

  void to_order(const float* natural, float* ordered) const noexcept {
    for (std::int64_t at = 0; at < cols_; at += group)
      std::memcpy(ordered + at, natural + column(at), group * sizeof(float));
  }
  void from_order(const float* ordered, float* natural) const noexcept {
    for (std::int64_t at = 0; at < cols_; at += group)
      std::memcpy(natural + column(at), ordered + at, group * sizeof(float));
  }
  /// error = x - what `row` decodes to.
  void load_errors(const std::byte* row, int r) noexcept {
    coder_.dequantize(row, natural_, cols_);
    to_order(natural_, decoded_);
    for (std::int64_t c = 0; c < cols_; ++c) error_[r * cols_ + c] = x_[r * cols_ + c] - decoded_[c];
  }
  /// y = error * U for the block's columns, from the rows of U before `end`.
  void project(std::int64_t begin, std::int64_t width, std::int64_t end) noexcept {
    std::fill_n(y_, output_tile_rows * block, 0.0f);
    product_(error_, cols_, metric_.factor() + begin, cols_, y_, block, rows_, end, width);
  }

  /// Losses of the best bytes.
  void evaluate_best() noexcept {
    for (int r = 0; r < rows_; ++r) load_errors(best(r), r), loss_[r] = 0;
    for (std::int64_t begin = 0; begin < cols_; begin += block) {
      const std::int64_t width = std::min<std::int64_t>(block, cols_ - begin);
      project(begin, width, begin + width);
      for (int r = 0; r < rows_; ++r)
        for (std::int64_t c = 0; c < width; ++c) loss_[r] += double{y_[r * block + c]} * y_[r * block + c];
    }
  }

  /// New codes for the trial bytes, under their scales.
  void feed_back() noexcept {
    std::fill_n(trial_loss_, rows_, 0.0);
    for (std::int64_t begin = 0; begin < cols_; begin += block) {
      const std::int64_t width = std::min<std::int64_t>(block, cols_ - begin);
      project(begin, width, begin);
      for (std::int64_t at = begin; at < begin + width; at += group) {
        for (int r = 0; r < rows_; ++r) choose(r, at, y_ + r * block + (at - begin));
        const std::int64_t rest = (at + group - begin) / product_columns * product_columns;
        if (rest < width)
          product_(error_ + at, cols_, metric_.factor() + at * cols_ + begin + rest, cols_, y_ + rest, block,
                   rows_, group, width - rest);
      }
    }
  }
  void choose(int r, std::int64_t at, const float* y) noexcept {
    const float *u = metric_.factor() + at * cols_ + at, *x = x_ + r * cols_ + at;
    float q[group], *e = error_ + r * cols_ + at, *t = target_ + r * cols_ + at;
    coder_.choose(trial(r), column(at), {x, y, u, cols_}, q);
    for (int i = 0; i < group; ++i) e[i] = x[i] - q[i];
    for (int i = 0; i < group; ++i) {
      float z = y[i];
      for (int k = 0; k < i; ++k) z += e[k] * u[k * cols_ + i];
      t[i] = x[i] + z / u[i * cols_ + i];
      const double v = double{z} + double{e[i]} * u[i * cols_ + i];
      trial_loss_[r] += v * v;
    }
  }
  void keep_better() noexcept {
    for (int r = 0; r < rows_; ++r)
      if (trial_loss_[r] < loss_[r]) {
        loss_[r] = trial_loss_[r];
        std::memcpy(best(r), trial(r), static_cast<std::size_t>(row_bytes_));
      }
  }
  /// Scales that suit the targets of the last feedback.
  status rescale() noexcept {
    for (int r = 0; r < rows_; ++r) {
      from_order(target_ + r * cols_, natural_);
      if (const status s = coder_.quantize(natural_, metric_.conditional().data(), trial(r), cols_);
          s != status::ok)
        return s;
    }
    return status::ok;
  }

  /// Better codes for one group at a time. residual = error * P, kept up to date.
  void descend(int passes) noexcept {
    for (int r = 0; r < rows_; ++r) load_errors(best(r), r);
    std::fill_n(residual_, rows_ * cols_, 0.0f);
    product_(error_, cols_, metric_.moments(), cols_, residual_, cols_, rows_, cols_, cols_);
    for (int r = 0; r < rows_; ++r) {
      std::memcpy(trial(r), best(r), static_cast<std::size_t>(row_bytes_));
      for (int pass = 0; pass < passes; ++pass) {
        bool changed = false;
        for (std::int64_t at = 0; at < cols_; at += group) changed |= improve(r, at);
        if (!changed) break;
      }
    }
  }
  /// The trial bytes are the best ones, before and after.
  bool improve(int r, std::int64_t at) noexcept {
    const float *v = metric_.group_factor(at), *x = x_ + r * cols_ + at;
    float *e = error_ + r * cols_ + at, *residual = residual_ + r * cols_;
    // z P_BB = residual_B: where the group should be is q + z, all else being equal.
    float z[group], wanted[group], q[group];
    solve_group(v, residual + at, z);
    for (int i = 0; i < group; ++i) wanted[i] = x[i] - e[i] + z[i];
    static constexpr float nothing[group] = {};
    coder_.choose(trial(r), column(at), {wanted, nothing, v, group}, q);
    float moved[group], left[group];
    bool any = false;
    for (int i = 0; i < group; ++i) {
      moved[i] = (x[i] - q[i]) - e[i], left[i] = wanted[i] - q[i];
      any |= moved[i] != 0.0f;
    }
    if (!any) return false;
    const double gain = square(v, z) - square(v, left);
    if (!(gain > 1e-7 * loss_[r] / static_cast<double>(cols_))) {
      std::memcpy(trial(r), best(r), static_cast<std::size_t>(row_bytes_));
      return false;
    }
    std::memcpy(best(r), trial(r), static_cast<std::size_t>(row_bytes_));
    loss_[r] -= gain;
    for (int i = 0; i < group; ++i) {
      if (moved[i] == 0.0f) continue;
      e[i] += moved[i];
      product_(moved + i, 1, metric_.moments() + (at + i) * cols_, cols_, residual, cols_, 1, 1, cols_);
    }
    return true;
  }
  /// |d V|^2.
  static double square(const float* v, const float* d) noexcept {
    double sum = 0;
    for (int c = 0; c < group; ++c) {
      double y = 0;
      for (int k = 0; k <= c; ++k) y += double{d[k]} * v[k * group + c];
      sum += y * y;
    }
    return sum;
  }
  /// z V V^T = b.
  static void solve_group(const float* v, const float* b, float* z) noexcept {
    float s[group];
    for (int c = group - 1; c >= 0; --c) {  // s V^T = b
      float t = b[c];
      for (int k = c + 1; k < group; ++k) t -= s[k] * v[c * group + k];
      s[c] = t / v[c * group + c];
    }
    for (int c = 0; c < group; ++c) {  // z V = s
      float t = s[c];
      for (int k = 0; k < c; ++k) t -= z[k] * v[k * group + c];
      z[c] = t / v[c * group + c];
    }
  }

  const output_coder& coder_;
  const output_metric& metric_;
  row_product product_;
  std::int64_t cols_, row_bytes_;
  int rows_ = 0;
  float *x_, *error_, *target_, *residual_, *y_, *natural_, *decoded_;
  std::byte *best_, *trial_;
  double loss_[output_tile_rows], trial_loss_[output_tile_rows];
};

}  // namespace quantize

/// Bytes of workspace for quantize_rows.
inline std::size_t quantize_rows_workspace(const quantize::output_coder& c, std::int64_t cols,
                                           int workers) noexcept {
  return quantize::output_tile::bytes(c, cols) * static_cast<std::size_t>(workers);
}

/// Quantizes all rows. The bytes do not depend on the threads or on the arch.
inline status quantize_rows(const quantize::output_coder& coder, quantize::row_product product,
                            const output_metric& metric, const output_aware_args& a, executor_ref threads,
                            std::span<std::byte> workspace, const output_aware_options& o = {}) noexcept {
  const std::int64_t cols = metric.cols();
  if (a.rows < 0 || cols <= 0 || cols % coder.elements != 0) return status::bad_shape;
  if (a.rows == 0) return status::ok;
  if (!a.weights || !a.out) return status::null_pointer;
  if (a.rows > 1 && (a.stride < cols || a.out_stride < coder.row_bytes(cols))) return status::bad_stride;
  const std::size_t each = quantize::output_tile::bytes(coder, cols);
  if (workspace.size() / each < static_cast<std::size_t>(threads.workers())) return status::small_workspace;
  std::atomic<status> failed{status::ok};
  const auto tiles = static_cast<int>((a.rows + quantize::output_tile_rows - 1) / quantize::output_tile_rows);
  const bool ran = threads.for_each(tiles, [&](int task, int worker) {
    quantize::output_tile tile(coder, metric, product,
                               workspace.data() + each * static_cast<std::size_t>(worker));
    const std::int64_t first = std::int64_t{quantize::output_tile_rows} * task;
    const auto rows = static_cast<int>(std::min<std::int64_t>(quantize::output_tile_rows, a.rows - first));
    if (const status s = tile.run(a, first, rows, o); s != status::ok) failed.store(s);
  });
  return ran ? failed.load() : status::executor_failed;
}

}  // namespace quantal
