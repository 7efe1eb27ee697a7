#include "convert.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "conversion.hpp"
#include "quantal/lattice.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::plan {

std::int64_t scale_count(const gguf::tensor_info& t) noexcept {
  return t.name.find("_exps.") != std::string::npos ? t.slices() : 1;
}

namespace {

/// Groups of 16 weights of every slice that tell how its scales lie: some of some rows.
class group_sample {
 public:
  explicit group_sample(const gguf::tensor_info& t)
      : rows_(t.rows()),
        step_(std::max<std::int64_t>(t.rows() / 64, 1)),
        taken_((rows_ + step_ - 1) / step_),
        groups_(t.cols() / 16),
        each_(std::min<std::int64_t>(groups_, 16)),
        largest_(static_cast<std::size_t>(t.slices() * taken_ * each_)) {}

  /// Several threads may add rows.
  void add(std::int64_t r, const float* x) {
    if (r % rows_ % step_ != 0) return;
    float* out = largest_.data() + (r / rows_ * taken_ + r % rows_ / step_) * each_;
    for (std::int64_t i = 0; i < each_; ++i)
      for (std::int64_t c = i * groups_ / each_ * 16, end = c + 16; c < end; ++c)
        out[i] = std::max(out[i], std::fabs(x[c]));
  }
  std::span<const float> of_slices(std::int64_t first, std::int64_t count) const {
    return std::span(largest_).subspan(static_cast<std::size_t>(first * taken_ * each_),
                                       static_cast<std::size_t>(count * taken_ * each_));
  }

 private:
  std::int64_t rows_, step_, taken_, groups_, each_;
  std::vector<float> largest_;
};

}  // namespace

result<gguf::tensor_scale> measure_scale(const gguf::tensor_info& t, const gguf::row_source& source,
                                         const gguf::tensor_scale& from, std::uint32_t type,
                                         executor_ref threads) {
  const auto& f = *find_format(t.type);
  const std::int64_t cols = t.cols(), rows = t.rows() * t.slices();
  std::vector<float> x(static_cast<std::size_t>(threads.workers() * cols));
  std::vector<std::byte> bytes(static_cast<std::size_t>(threads.workers() * f.row_bytes(cols)));
  std::vector<float> largest(static_cast<std::size_t>(rows));
  group_sample groups(t);
  std::vector<status> failed(largest.size(), status::ok);
  const std::int64_t item = std::max<std::int64_t>(elements_per_item / std::max<std::int64_t>(cols, 1), 1);
  threads.for_each(static_cast<int>((rows + item - 1) / item), [&](int i, int worker) {
    float* row = x.data() + worker * cols;
    for (std::int64_t r = i * item; r < std::min((i + 1) * item, rows); ++r) {
      const auto at = static_cast<std::size_t>(r);
      failed[at] = runtime::dequantize_row(t.type, source.row(r, bytes.data() + worker * f.row_bytes(cols)),
                                           row, cols);
      if (failed[at] != status::ok) continue;
      from.apply(r / t.rows(), row, cols);
      for (std::int64_t c = 0; c < cols; ++c)
        if (std::isfinite(row[c])) largest[at] = std::max(largest[at], std::fabs(row[c]));
      groups.add(r, row);
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
  for (std::int64_t s = 0; s < count; ++s) {
    auto& v = out[static_cast<std::size_t>(s)];
    v = tensor_scale_of(type, count == 1 ? groups.of_slices(0, t.slices()) : groups.of_slices(s, 1), v);
  }
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
