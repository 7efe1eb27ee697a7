#include "convert.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "conversion.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::plan {

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
      failed[at] = runtime::dequantize_row(t.type, source.row(r, bytes.data() + worker * f.row_bytes(cols)),
                                           row, cols);
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
