// Output-aware quantization: codes chosen by what they do to the outputs of a row, not weight by weight.
//
// The plain quantizer decides the scales. Then, over groups of eight columns in the order of output_metric:
//   feedback   each group takes the codes that answer the errors of all groups before it best;
//   rescale    the targets of that pass are weights to the plain quantizer, the conditional importance their
//   importance:
//              it finds scales (and offsets, tables) for them, under which feedback runs again;
// and over blocks of columns as they are stored, until that stops paying:
//   descent    each group of eight takes better codes while all others stay;
//   refit      scales and offsets of groups, then what groups share, suit the codes that they have.
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
  int descents = 6;  ///< passes of descent, at most; all but the first refit scales
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

/// Rows that are worked on together: enough that P and U are read from memory once for many multiply-adds.
inline constexpr int output_tile_rows = 24;

/// One worker's tile of rows. Weights and targets lie as in the row; errors in the order of the metric during
/// feedback, as in the row during descent.
class output_tile {
  static constexpr int group = output_metric::group, largest_block = 512;
  static constexpr int block = 64;   ///< columns between two products with everything before them
  static constexpr int visit = 256;  ///< columns that descent works on together: whole blocks of all formats
  static constexpr double less =
      1e-3;  ///< share of the loss that a pass must remove to be followed by another

 public:
  static std::size_t bytes(const output_coder& c, std::int64_t cols) noexcept {
    const auto floats = static_cast<std::size_t>(output_tile_rows * 3 + 1) * static_cast<std::size_t>(cols) +
                        static_cast<std::size_t>(output_tile_rows) * (block + visit) +
                        static_cast<std::size_t>(2 * (2 * output_tile_rows + 1)) * visit;
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
    y_ = take(output_tile_rows * block), residual_ = take(output_tile_rows * visit);
    part_ = take((2 * output_tile_rows + 1) * visit), image_ = take((2 * output_tile_rows + 1) * visit);
    natural_ = take(cols_);
    best_ = reinterpret_cast<std::byte*>(f), trial_ = best_ + output_tile_rows * row_bytes_;
  }

  status run(const output_aware_args& a, std::int64_t first, int rows,
             const output_aware_options& o) noexcept {
    rows_ = rows;
    for (int r = 0; r < rows; ++r) {
      const float* w = a.weights + (first + r) * a.stride;
      if (const status s = coder_.quantize(w, metric_.diagonal().data(), best(r), cols_); s != status::ok)
        return s;
      std::copy_n(w, cols_, x_ + r * cols_);
      place_[r] = r;
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
    for (int r = 0; r < rows; ++r) {
      const std::int64_t to = first + place_[r];
      std::memcpy(a.out + to * a.out_stride, best(r), static_cast<std::size_t>(row_bytes_));
      if (a.loss) a.loss[to] = loss_[r];
    }
    return status::ok;
  }

 private:
  std::byte* best(int r) const noexcept { return best_ + r * row_bytes_; }
  std::byte* trial(int r) const noexcept { return trial_ + r * row_bytes_; }
  /// Eight weights of a group in its own order, and back.
  void gather(std::int64_t g, const float* from, float* to) const noexcept {
    for (int i = 0; i < group; ++i) to[i] = from[metric_.column_of(g, i)];
  }
  void scatter(std::int64_t g, const float* from, float* to) const noexcept {
    for (int i = 0; i < group; ++i) to[metric_.column_of(g, i)] = from[i];
  }

  // ---- in the order of the metric

  /// error = x - what the best bytes of row r decode to.
  void load_errors(int r) noexcept {
    coder_.dequantize(best(r), natural_, cols_);
    for (std::int64_t c = 0; c < cols_; ++c) natural_[c] = x_[r * cols_ + c] - natural_[c];
    for (std::int64_t at = 0; at < cols_; at += group)
      gather(metric_.group_at(at / group), natural_, error_ + r * cols_ + at);
  }
  /// y = error * U for the block's columns, from the rows of U before `end`.
  void project(std::int64_t begin, std::int64_t width, std::int64_t end) noexcept {
    std::fill_n(y_, output_tile_rows * block, 0.0f);
    product_(error_, cols_, metric_.factor(0, begin), block, y_, block, rows_, end, width);
  }

  /// Losses of the best bytes.
  void evaluate_best() noexcept {
    for (int r = 0; r < rows_; ++r) load_errors(r), loss_[r] = 0;
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
          product_(error_ + at, cols_, metric_.factor(at, begin + rest), block, y_ + rest, block, rows_,
                   group, width - rest);
      }
    }
  }
  void choose(int r, std::int64_t at, const float* y) noexcept {
    const float* u = metric_.factor(at, at);
    const std::int64_t g = metric_.group_at(at / group);
    float x[group], q[group], t[group], *e = error_ + r * cols_ + at;
    gather(g, x_ + r * cols_, x);
    coder_.choose(trial(r), metric_.first_of(g), {x, y, u, block}, q);
    for (int i = 0; i < group; ++i) e[i] = x[i] - q[i];
    for (int i = 0; i < group; ++i) {
      float z = y[i];
      for (int k = 0; k < i; ++k) z += mul(e[k], u[k * block + i]);
      t[i] = x[i] + z / u[i * block + i];
      const double v = double{z} + double{e[i]} * u[i * block + i];
      trial_loss_[r] += mul(v, v);
    }
    scatter(g, t, target_ + r * cols_);
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
    for (int r = 0; r < rows_; ++r)
      if (const status s =
              coder_.quantize(target_ + r * cols_, metric_.conditional().data(), trial(r), cols_);
          s != status::ok)
        return s;
    return status::ok;
  }

  // ---- in the order of the row

  /// The same as load_errors.
  void load_natural_errors(int r) noexcept {
    coder_.dequantize(best(r), natural_, cols_);
    for (std::int64_t c = 0; c < cols_; ++c) error_[r * cols_ + c] = x_[r * cols_ + c] - natural_[c];
  }
  /// Better codes and scales, block by block. Rows that gain no more leave the tile's active part.
  void descend(int passes) noexcept {
    for (int r = 0; r < rows_; ++r) load_natural_errors(r);
    active_ = rows_;
    for (int pass = 0; pass < passes && active_ > 0; ++pass) {
      std::fill_n(gain_, active_, 0.0);
      if (pass > 0 && coder_.shared == shared_scale::row) refit_rows();
      for (std::int64_t begin = 0; begin < cols_; begin += visit)
        visit_block(begin, std::min<std::int64_t>(visit, cols_ - begin), pass > 0);
      for (int r = active_ - 1; r >= 0; --r) {
        const bool done = !(gain_[r] > less * loss_[r]);
        loss_[r] -= gain_[r];
        if (done) retire(r);
      }
    }
  }
  void retire(int r) noexcept {
    if (const int last = --active_; r != last) {
      std::swap_ranges(x_ + r * cols_, x_ + (r + 1) * cols_, x_ + last * cols_);
      std::swap_ranges(error_ + r * cols_, error_ + (r + 1) * cols_, error_ + last * cols_);
      std::swap_ranges(best(r), best(r) + row_bytes_, best(last));
      std::swap(loss_[r], loss_[last]), std::swap(gain_[r], gain_[last]);
      std::swap(place_[r], place_[last]);
    }
  }
  /// image = part * P for columns begin .. begin + width.
  void transform(const float* part, int rows, std::int64_t begin, std::int64_t width) noexcept {
    std::fill_n(image_, rows * width, 0.0f);
    product_(part, width, metric_.moments(begin, begin), metric_.moments_stride(begin), image_, width, rows,
             width, width);
  }
  void visit_block(std::int64_t begin, std::int64_t width, bool refit) noexcept {
    std::fill_n(residual_, active_ * visit, 0.0f);
    product_(error_, cols_, metric_.moments(0, begin), width, residual_, visit, active_, cols_, width);
    begin_ = begin, width_ = width;
    if (refit) {
      for (std::int64_t c = begin; c < begin + width; c += coder_.group) refit_groups(c);
      if (coder_.shared == shared_scale::block)
        for (std::int64_t c = begin; c < begin + width; c += coder_.elements) refit_blocks(c);
    }
    for (int r = 0; r < active_; ++r)
      for (std::int64_t g = begin / group; g < (begin + width) / group; ++g) improve(r, g);
  }
  float* residual(int r, std::int64_t c) const noexcept { return residual_ + r * visit + (c - begin_); }
  /// The errors of n weights from c on grow by `moved`.
  void move(int r, std::int64_t c, const float* moved, std::int64_t n) noexcept {
    float* e = error_ + r * cols_ + c;
    for (std::int64_t i = 0; i < n; ++i) e[i] += moved[i];
    product_(moved, n, metric_.moments(c, begin_), width_, residual_ + r * visit, visit, 1, n, width_);
  }

  /// Better codes for eight weights.
  void improve(int r, std::int64_t g) noexcept {
    const float* v = metric_.group_factor(g);
    const std::int64_t c = metric_.first_of(g);
    float x[group], e[group], b[group], z[group], wanted[group], q[group];
    gather(g, x_ + r * cols_, x), gather(g, error_ + r * cols_, e);
    gather(g, residual_ + r * visit - begin_, b);
    // z P_BB = residual_B: where the group should be is q + z, all else being equal.
    solve_group(v, b, z);
    for (int i = 0; i < group; ++i) wanted[i] = x[i] - e[i] + z[i];
    static constexpr float nothing[group] = {};
    std::byte saved[largest_block];
    std::byte* stored = coder_.block(best(r), c);
    std::memcpy(saved, stored, static_cast<std::size_t>(coder_.bytes));
    coder_.choose(best(r), c, {wanted, nothing, v, group}, q);
    float moved[group], left[group];
    bool any = false;
    for (int i = 0; i < group; ++i) {
      moved[i] = (x[i] - q[i]) - e[i], left[i] = wanted[i] - q[i];
      any |= moved[i] != 0.0f;
    }
    if (!any) return;
    const double gain = square(v, z) - square(v, left);
    if (!(gain > noise(r))) {
      std::memcpy(stored, saved, static_cast<std::size_t>(coder_.bytes));
      return;
    }
    gain_[r] += gain;
    const int run = metric_.run();
    move(r, c, moved, run);
    if (run < group) move(r, c + metric_.far, moved + run, group - run);
  }
  /// Gains that may be roundings.
  double noise(int r) const noexcept { return 1e-7 * loss_[r] / static_cast<double>(cols_); }

  /// Better scales for a group of all active rows.
  void refit_groups(std::int64_t c) noexcept {
    const std::int64_t n = coder_.group;
    scale_problem fit[output_tile_rows];
    for (int r = 0; r < active_; ++r) coder_.codes(best(r), c, part_ + r * n, fit[r]);
    std::fill_n(part_ + active_ * n, n, 1.0f);
    transform(part_, active_ + 1, c, n);
    const float *ones = part_ + active_ * n, *sums = image_ + active_ * n;
    const double uu = dot(ones, sums, n);
    for (int r = 0; r < active_; ++r) {
      scale_problem& f = fit[r];
      f.qq = dot(part_ + r * n, image_ + r * n, n), f.qr = dot(part_ + r * n, residual(r, c), n);
      if (coder_.has_offset)
        f.qu = dot(part_ + r * n, sums, n), f.uu = uu, f.ur = dot(ones, residual(r, c), n);
      try_move(r, c, n, [&] { return coder_.move_scale(best(r), c, f); });
    }
  }
  /// Better scales for what the groups of a block share.
  void refit_blocks(std::int64_t c) noexcept {
    const std::int64_t n = coder_.elements;
    float* offsets = part_ + active_ * n;
    for (int r = 0; r < active_; ++r) {
      coder_.decode(best(r), c, n, part_ + r * n);
      if (!coder_.has_offset) continue;
      for (std::int64_t g = 0; g < n; g += coder_.group) {
        scale_problem at;
        coder_.codes(best(r), c + g, image_, at);
        std::fill_n(offsets + r * n + g, coder_.group, at.offset);
        for (std::int64_t i = g; i < g + coder_.group; ++i) part_[r * n + i] -= at.offset;
      }
    }
    transform(part_, coder_.has_offset ? 2 * active_ : active_, c, n);
    for (int r = 0; r < active_; ++r) {
      const float *q = part_ + r * n, *u = offsets + r * n, *images = image_ + active_ * n + r * n;
      scale_problem f;
      f.qq = dot(q, image_ + r * n, n), f.qr = dot(q, residual(r, c), n);
      if (coder_.has_offset)
        f.qu = dot(q, images, n), f.uu = dot(u, images, n), f.ur = dot(u, residual(r, c), n);
      try_move(r, c, n, [&] { return coder_.move_shared(best(r), c, f); });
    }
  }
  /// Keeps what `change` stores for n weights from c on if the error falls.
  template <class Change>
  void try_move(int r, std::int64_t c, std::int64_t n, Change change) noexcept {
    std::byte saved[largest_block];
    std::byte* stored = coder_.block(best(r), c);
    std::memcpy(saved, stored, static_cast<std::size_t>(coder_.bytes));
    if (!change()) return;
    float moved[visit], image[visit] = {};
    coder_.decode(best(r), c, n, moved);
    for (std::int64_t i = 0; i < n; ++i)
      moved[i] = (x_[r * cols_ + c + i] - moved[i]) - error_[r * cols_ + c + i];
    product_(moved, n, metric_.moments(c, c), width_, image, n, 1, n, n);
    const double gain = -2 * dot(moved, residual(r, c), n) - dot(moved, image, n);
    if (!(gain > noise(r))) {
      std::memcpy(stored, saved, static_cast<std::size_t>(coder_.bytes));
      return;
    }
    gain_[r] += gain;
    move(r, c, moved, n);
  }
  /// A better scale for each row as a whole: e P v and v P v of what it decodes to, v.
  void refit_rows() noexcept {
    float* v = target_;
    scale_problem fit[output_tile_rows];
    for (int r = 0; r < active_; ++r) coder_.dequantize(best(r), v + r * cols_, cols_);
    for (std::int64_t begin = 0; begin < cols_; begin += visit) {
      const std::int64_t width = std::min<std::int64_t>(visit, cols_ - begin);
      std::fill_n(residual_, active_ * visit, 0.0f);
      product_(v, cols_, metric_.moments(0, begin), width, residual_, visit, active_, cols_, width);
      for (int r = 0; r < active_; ++r) {
        fit[r].qq += dot(v + r * cols_ + begin, residual_ + r * visit, width);
        fit[r].qr += dot(error_ + r * cols_ + begin, residual_ + r * visit, width);
      }
    }
    for (int r = 0; r < active_; ++r) {
      if (!coder_.move_shared(best(r), 0, fit[r])) continue;
      const float* old = v + r * cols_;
      load_natural_errors(r);
      gain_[r] += fit[r].gain(dot(natural_, old, cols_) / dot(old, old, cols_), 0);
    }
  }
  static double dot(const float* a, const float* b, std::int64_t n) noexcept {
    double sum = 0;
    for (std::int64_t i = 0; i < n; ++i) sum += double{a[i]} * b[i];
    return sum;
  }
  /// |d V|^2.
  static double square(const float* v, const float* d) noexcept {
    double sum = 0;
    for (int c = 0; c < group; ++c) {
      double y = 0;
      for (int k = 0; k <= c; ++k) y += double{d[k]} * v[k * group + c];
      sum += mul(y, y);
    }
    return sum;
  }
  /// z V V^T = b.
  static void solve_group(const float* v, const float* b, float* z) noexcept {
    float s[group];
    for (int c = group - 1; c >= 0; --c) {  // s V^T = b
      float t = b[c];
      for (int k = c + 1; k < group; ++k) t -= mul(s[k], v[c * group + k]);
      s[c] = t / v[c * group + c];
    }
    for (int c = 0; c < group; ++c) {  // z V = s
      float t = s[c];
      for (int k = 0; k < c; ++k) t -= mul(z[k], v[k * group + c]);
      z[c] = t / v[c * group + c];
    }
  }

  const output_coder& coder_;
  const output_metric& metric_;
  row_product product_;
  std::int64_t cols_, row_bytes_;
  int rows_ = 0, active_ = 0;
  std::int64_t begin_ = 0, width_ = 0;  ///< of the block that is visited
  float *x_, *error_, *target_, *y_, *residual_, *part_, *image_, *natural_;
  std::byte *best_, *trial_;
  int place_[output_tile_rows];
  double loss_[output_tile_rows], trial_loss_[output_tile_rows], gain_[output_tile_rows];
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
  if (a.rows < 0 || cols <= 0 || cols % coder.elements != 0 || metric.run() != coder.run)
    return status::bad_shape;
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
