#include "moments_error.hpp"

#include "moments_plan.hpp"
#include "output_meter.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/imatrix/model.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::validate {
namespace {

constexpr std::int64_t tile = 24;  ///< rows that are measured together

/// The rows of a tensor as floats.
class decoded_rows {
 public:
  static result<decoded_rows> open(const gguf::reader& file, const gguf::tensor_info& t) {
    const auto bytes = file.data(t);
    if (!bytes) return bytes.error();
    auto scale = gguf::read_scale(file, t);
    if (!scale) return scale.error();
    return decoded_rows(t, *bytes, std::move(*scale));
  }
  status read(std::int64_t r, float* out) const {
    const auto s = runtime::dequantize_row(
        t_->type, bytes_.data() + r * find_format(t_->type)->row_bytes(t_->cols()), out, t_->cols());
    if (s == status::ok) scale_.apply(r / t_->rows(), out, t_->cols());
    return s;
  }

 private:
  decoded_rows(const gguf::tensor_info& t, std::span<const std::byte> bytes, gguf::tensor_scale scale)
      : t_(&t), bytes_(bytes), scale_(std::move(scale)) {}
  const gguf::tensor_info* t_;
  std::span<const std::byte> bytes_;
  gguf::tensor_scale scale_;
};

struct output_sums {
  double error = 0, signal = 0;
  status failed = status::ok;
};

/// Rows [first, first + rows).
output_sums compare(const decoded_rows& model, const decoded_rows& reference, const plan::output_meter& meter,
                    std::int64_t first, int rows, std::int64_t cols) {
  std::vector<float> w(static_cast<std::size_t>(rows * cols)), e(w.size()), y(w.size());
  output_sums s;
  for (int r = 0; r < rows && s.failed == status::ok; ++r) {
    s.failed = reference.read(first + r, w.data() + r * cols);
    if (s.failed == status::ok) s.failed = model.read(first + r, e.data() + r * cols);
  }
  if (s.failed != status::ok) return s;
  for (std::size_t i = 0; i < e.size(); ++i) e[i] = w[i] - e[i];
  std::vector<double> each(static_cast<std::size_t>(rows));
  meter.measure(w.data(), rows, y.data(), each.data());
  for (const double v : each) s.signal += v;
  meter.measure(e.data(), rows, y.data(), each.data());
  for (const double v : each) s.error += v;
  return s;
}

/// Where nothing was held out, what was collected.
imatrix::moments with_inputs_to_tell(imatrix::moments m) {
  for (const double n : m.held_counts)
    if (n > 0) return m;
  m.held_out = m.sums, m.held_counts = m.counts;
  return m;
}

}  // namespace

result<std::optional<double>> moments_error(const gguf::reader& model, const gguf::tensor_info& t,
                                            const gguf::reader& reference, const gguf::tensor_info& source,
                                            const imatrix::moments_file& file, executor_ref threads) {
  const auto note = plan::find_moments(file, source, imatrix::shape_of(reference.meta()));
  if (!note) return note.error();
  if (!*note || t.cols() % quantize::product_columns != 0) return std::optional<double>();
  auto read = file.read(note->of);
  if (!read) return read.error();
  const auto m = with_inputs_to_tell(std::move(*read));
  const auto a = decoded_rows::open(model, t), b = decoded_rows::open(reference, source);
  if (!a) return a.error();
  if (!b) return b.error();
  output_sums all;
  const std::int64_t rows = t.rows() * t.slices() / m.slices;
  for (std::int64_t slice = 0; slice < m.slices; ++slice) {
    const plan::output_meter meter(m, slice);
    if (!meter.can_tell()) continue;
    std::vector<output_sums> parts(static_cast<std::size_t>((rows + tile - 1) / tile));
    threads.for_each(static_cast<int>(parts.size()), [&](int i, int) {
      const std::int64_t first = i * tile;
      parts[static_cast<std::size_t>(i)] = compare(*a, *b, meter, slice * rows + first,
                                                   static_cast<int>(std::min(tile, rows - first)), m.cols);
    });
    for (const auto& p : parts) {  // in the order of rows: sums do not depend on the threads
      if (p.failed != status::ok)
        return error{model.path() + ": tensor '" + text::printable(t.name) +
                     "': " + std::string(to_string(p.failed))};
      all.error += p.error, all.signal += p.signal;
    }
  }
  return all.signal > 0 ? std::optional(all.error / all.signal) : std::nullopt;
}

}  // namespace quantal::validate
