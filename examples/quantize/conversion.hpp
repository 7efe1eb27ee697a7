// Rows of one tensor from their type to another, and what that loses: what every way of choosing the codes
// shares.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "convert.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::plan {

/// Rows that one work item converts.
inline constexpr std::int64_t elements_per_item = 16384;

/// Of a run of rows.
struct outcome {
  conversion_loss loss;
  std::int64_t failed_row = -1;
  std::string why;
};

inline std::string non_finite_weight(const float* x, std::int64_t cols) {
  for (std::int64_t c = 0; c < cols; ++c)
    if (!std::isfinite(x[c]))
      return "column " + std::to_string(c) + " is " + (std::isnan(x[c]) ? "NaN" : "infinite");
  return {};
}

/// The rows of one tensor, from their type to another.
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

  /// The weights of row r in the units of the result. Empty, or why they cannot be read.
  std::string load_row(std::int64_t r, float* x, int worker) {
    if (auto bad = decode(source_row(r, worker), x); !bad.empty()) return bad;
    to_result_units(r, x);
    return {};
  }
  /// Adds what the bytes of row r lose against its weights `x`, which are used up.
  std::string measure_row(std::int64_t r, float* x, const std::byte* row, int worker, conversion_loss& sum) {
    const std::int64_t cols = t_.cols();
    float* decoded = floats_.data() + (2 * worker + 1) * cols;
    if (const auto s = runtime::dequantize_row(to_.gguf_id, row, decoded, cols); s != status::ok)
      return std::string(to_string(s));
    if (const auto bad = non_finite_weight(decoded, cols); !bad.empty())
      return "quantized data validation failed: " + bad + " as " + std::string(to_.name);
    sum.range += range_loss_of(to_, x, decoded, cols);
    if (const float to = unit_of(r); to != 1.0f)
      for (std::int64_t c = 0; c < cols; ++c) x[c] *= to, decoded[c] *= to;
    sum.error.add(x, decoded, importance_of(r), cols);
    return {};
  }
  /// Scale beside the result that row r has.
  float unit_of(std::int64_t r) const { return scales_.to.of(r / t_.rows()); }

 private:
  /// Empty, or why the row cannot be converted.
  std::string convert_row(std::int64_t r, std::byte* out, int worker, conversion_loss& sum) {
    const std::int64_t cols = t_.cols();
    float *x = floats_.data() + 2 * worker * cols, *decoded = x + cols;
    const std::byte* row = source_row(r, worker);
    if (auto bad = decode(row, x); !bad.empty()) return bad;
    if (from_.gguf_id == to_.gguf_id) {
      if (source_.before()) {
        source_.before()(r, decoded);
        if (auto bad = non_finite_weight(decoded, cols); !bad.empty()) return bad;
        sum.error.add(decoded, x, nullptr, cols);
      }
      std::memcpy(out, row, static_cast<std::size_t>(row_bytes()));
      return {};
    }
    to_result_units(r, x);
    if (const auto s = runtime::quantize_row(to_.gguf_id, x, importance_of(r), out, cols); s != status::ok)
      return std::string(to_string(s));
    return measure_row(r, x, out, worker, sum);
  }
  const std::byte* source_row(std::int64_t r, int worker) {
    return source_.row(r, bytes_.data() + worker * from_.row_bytes(t_.cols()));
  }
  std::string decode(const std::byte* row, float* x) const {
    if (const auto s = runtime::dequantize_row(from_.gguf_id, row, x, t_.cols()); s != status::ok)
      return std::string(to_string(s));
    return non_finite_weight(x, t_.cols());
  }
  /// In the units of the result: what its scale beside it leaves.
  void to_result_units(std::int64_t r, float* x) const {
    scales_.from.apply(r / t_.rows(), x, t_.cols());
    const float to = unit_of(r);
    if (to != 1.0f)
      for (std::int64_t c = 0; c < t_.cols(); ++c) x[c] = to > 0.0f ? x[c] / to : 0.0f;
  }
  const float* importance_of(std::int64_t r) const {
    return importance_ ? importance_->row(r / t_.rows(), r % t_.rows(), t_.rows()) : nullptr;
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

inline error row_error(const gguf::tensor_info& t, const outcome& o) {
  std::string where =
      "tensor '" + text::printable(t.name) + "', row " + std::to_string(o.failed_row % t.rows());
  if (t.slices() > 1) where += " of slice " + std::to_string(o.failed_row / t.rows());
  return {where + ": " + o.why};
}

}  // namespace quantal::plan
