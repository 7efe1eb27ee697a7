#include "convert.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "quantal/dequantize.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

/// Rows that one work item converts.
constexpr std::int64_t elements_per_item = 16384;

struct outcome {
  conversion_loss loss;
  std::int64_t failed_row = -1;
  std::string why;
};

std::string non_finite_weight(const float* x, std::int64_t cols) {
  for (std::int64_t c = 0; c < cols; ++c)
    if (!std::isfinite(x[c]))
      return "column " + std::to_string(c) + " is " + (std::isnan(x[c]) ? "NaN" : "infinite");
  return {};
}

class conversion {
 public:
  conversion(const gguf::tensor_info& t, const gguf::row_source& source, std::uint32_t type,
             const imatrix::importance* importance, const scale_pair& scales, int workers)
      : t_(t),
        source_(source),
        importance_(importance),
        scales_(scales),
        from_(*find_format(t.type)),
        to_(*find_format(type)),
        floats_(static_cast<std::size_t>(2 * workers * t.cols())),
        bytes_(static_cast<std::size_t>(workers * from_.row_bytes(t.cols()))) {}

  std::int64_t rows() const { return t_.rows() * t_.slices(); }
  std::int64_t row_bytes() const { return to_.row_bytes(t_.cols()); }

  /// Converts rows [first, last) into `out`; stops at the first row that fails.
  outcome convert_rows(std::int64_t first, std::int64_t last, std::byte* out, int worker) {
    outcome o;
    for (std::int64_t r = first; r < last; ++r, out += row_bytes()) {
      o.why = convert_row(r, out, worker, o.loss);
      if (!o.why.empty()) {
        o.failed_row = r;
        break;
      }
    }
    return o;
  }

 private:
  /// Empty, or why the row cannot be converted.
  std::string convert_row(std::int64_t r, std::byte* out, int worker, conversion_loss& sum) {
    const std::int64_t cols = t_.cols();
    float *x = floats_.data() + 2 * worker * cols, *decoded = x + cols;
    const std::byte* row = source_.row(r, bytes_.data() + worker * from_.row_bytes(cols));
    if (const auto s = dequantize_row(from_.gguf_id, row, x, cols); s != status::ok) return std::string(to_string(s));
    if (auto bad = non_finite_weight(x, cols); !bad.empty()) return bad;
    if (from_.gguf_id == to_.gguf_id) {
      if (source_.before()) {
        source_.before()(r, decoded);
        if (auto bad = non_finite_weight(decoded, cols); !bad.empty()) return bad;
        sum.error.add(decoded, x, nullptr, cols);
      }
      std::memcpy(out, row, static_cast<std::size_t>(row_bytes()));
      return {};
    }
    // In the units of the result: what its scale beside it leaves.
    const std::int64_t slice = r / t_.rows();
    const float to = scales_.to.of(slice);
    scales_.from.apply(slice, x, cols);
    if (to != 1.0f)
      for (std::int64_t c = 0; c < cols; ++c) x[c] = to > 0.0f ? x[c] / to : 0.0f;
    const float* w = importance_ ? importance_->row(r / t_.rows(), r % t_.rows(), t_.rows()) : nullptr;
    if (const auto s = runtime::quantize_row(to_.gguf_id, x, w, out, cols); s != status::ok)
      return std::string(to_string(s));
    if (const auto s = dequantize_row(to_.gguf_id, out, decoded, cols); s != status::ok)
      return std::string(to_string(s));
    if (const auto bad = non_finite_weight(decoded, cols); !bad.empty())
      return "quantized data validation failed: " + bad + " as " + std::string(to_.name);
    sum.range += range_loss_of(to_, x, decoded, cols);
    if (to != 1.0f)
      for (std::int64_t c = 0; c < cols; ++c) x[c] *= to, decoded[c] *= to;
    sum.error.add(x, decoded, w, cols);
    return {};
  }

  const gguf::tensor_info& t_;
  const gguf::row_source& source_;
  const imatrix::importance* importance_;
  const scale_pair& scales_;
  const format_info& from_;
  const format_info& to_;
  std::vector<float> floats_;     ///< two rows per worker
  std::vector<std::byte> bytes_;  ///< one row of the source per worker
};

error row_error(const gguf::tensor_info& t, const outcome& o) {
  std::string where =
      "tensor '" + text::printable(t.name) + "', row " + std::to_string(o.failed_row % t.rows());
  if (t.slices() > 1) where += " of slice " + std::to_string(o.failed_row / t.rows());
  return {where + ": " + o.why};
}

}  // namespace

std::int64_t scale_count(const gguf::tensor_info& t) noexcept {
  return t.name.find("_exps.") != std::string::npos ? t.slices() : 1;
}

result<gguf::tensor_scale> measure_scale(const gguf::tensor_info& t, const gguf::row_source& source,
                                         const gguf::tensor_scale& from, std::uint32_t type,
                                         executor_ref threads) {
  const auto& f = *find_format(t.type);
  const std::int64_t cols = t.cols(), rows = t.rows() * t.slices();
  std::vector<float> x(static_cast<std::size_t>(threads.workers() * cols));
  std::vector<std::byte> bytes(static_cast<std::size_t>(threads.workers() * f.row_bytes(cols)));
  std::vector<float> largest(static_cast<std::size_t>(rows));
  std::vector<status> failed(largest.size(), status::ok);
  const std::int64_t item = std::max<std::int64_t>(elements_per_item / std::max<std::int64_t>(cols, 1), 1);
  threads.for_each(static_cast<int>((rows + item - 1) / item), [&](int i, int worker) {
    float* row = x.data() + worker * cols;
    for (std::int64_t r = i * item; r < std::min((i + 1) * item, rows); ++r) {
      const auto at = static_cast<std::size_t>(r);
      failed[at] =
          dequantize_row(t.type, source.row(r, bytes.data() + worker * f.row_bytes(cols)), row, cols);
      if (failed[at] != status::ok) continue;
      from.apply(r / t.rows(), row, cols);
      for (std::int64_t c = 0; c < cols; ++c)
        if (std::isfinite(row[c])) largest[at] = std::max(largest[at], std::fabs(row[c]));
    }
  });
  const std::int64_t count = scale_count(t);
  std::vector<float> out(static_cast<std::size_t>(count), 0.0f);
  for (std::int64_t r = 0; r < rows; ++r) {
    const auto at = static_cast<std::size_t>(r);
    if (failed[at] != status::ok)
      return error{"tensor '" + text::printable(t.name) + "': " + std::string(to_string(failed[at]))};
    auto& most = out[static_cast<std::size_t>(count == 1 ? 0 : r / t.rows())];
    most = std::max(most, largest[at]);
  }
  for (auto& v : out) v = tensor_scale_for(type, v);
  return gguf::tensor_scale(std::move(out));
}

result<conversion_loss> convert(const gguf::tensor_info& t, const gguf::row_source& source,
                                std::uint32_t type, const imatrix::importance* importance,
                                const scale_pair& scales, executor_ref threads, const sink& out,
                                std::size_t window) {
  conversion c(t, source, type, importance, scales, threads.workers());
  conversion_loss total;
  if (t.elements() == 0) return total;
  const std::int64_t item = (elements_per_item + t.cols() - 1) / t.cols();
  const std::int64_t row_bytes = c.row_bytes();
  const std::int64_t items_at_once =
      std::max<std::int64_t>(static_cast<std::int64_t>(window) / (item * row_bytes), 1);
  std::vector<std::byte> bytes(
      static_cast<std::size_t>(std::min(items_at_once * item, c.rows()) * row_bytes));
  std::vector<outcome> outcomes;
  for (std::int64_t first = 0; first < c.rows(); first += items_at_once * item) {
    const std::int64_t last = std::min(first + items_at_once * item, c.rows());
    const auto items = static_cast<int>((last - first + item - 1) / item);
    outcomes.assign(static_cast<std::size_t>(items), {});
    threads.for_each(items, [&](int i, int worker) {
      const std::int64_t begin = first + i * item;
      outcomes[static_cast<std::size_t>(i)] = c.convert_rows(
          begin, std::min(begin + item, last), bytes.data() + (begin - first) * row_bytes, worker);
    });
    for (const auto& o : outcomes) {
      if (o.failed_row >= 0) return row_error(t, o);
      total.range += o.loss.range;
      total.error += o.loss.error;  // in the order of rows: sums do not depend on the threads either
    }
    if (auto w = out(std::span(bytes).first(static_cast<std::size_t>((last - first) * row_bytes))); !w)
      return w.error();
  }
  return total;
}

}  // namespace quantal::plan
