#include "output_aware.hpp"

#include <algorithm>

#include "conversion.hpp"
#include "quantal/quantize/output_aware.hpp"
#include "reference_meter.hpp"
#include "reference_target.hpp"

namespace quantal::plan {
namespace {

/// Strength of the shrinkage. With many inputs 1 to 16 are alike within noise; with few, less than 4 does
/// harm.
constexpr double shrinkage = 4;

class output_aware_conversion {
  static constexpr int tile = 24;  ///< rows that are measured together

 public:
  output_aware_conversion(const gguf::tensor_info& t, conversion& rows, const quantize::output_coder& coder,
                          const imatrix::moments& m, const paired_moments* pairs, executor_ref threads)
      : t_(t), rows_(rows), coder_(coder), moments_(m), pairs_(pairs), threads_(threads) {}

  /// `bytes` holds the plain codes, of which `loss` tells the error, and gets the better ones.
  result<conversion_loss> run(std::vector<std::byte>& bytes, conversion_loss loss) {
    std::vector<std::byte> chosen = bytes;
    for (std::int64_t s = 0; s < moments_.slices; ++s)
      if (auto done = convert_slice(s, bytes, chosen); !done) return done.error();
    output_.accepted = !output_.measured || output_.chosen < output_.plain;
    if (output_.accepted) {
      loss = chosen_loss_;
      bytes = std::move(chosen);
    }
    loss.output = output_;
    return loss;
  }

 private:
  std::int64_t rows_per_slice() const { return rows_.rows() / moments_.slices; }

  result<void> convert_slice(std::int64_t slice, const std::vector<std::byte>& plain,
                             std::vector<std::byte>& chosen) {
    const std::int64_t rows = rows_per_slice(), first = slice * rows, cols = moments_.cols;
    std::vector<float> x(static_cast<std::size_t>(rows * cols));
    if (auto loaded = load(first, rows, x); !loaded) return loaded;
    std::byte* out = chosen.data() + first * rows_.row_bytes();
    if (moments_.counts[static_cast<std::size_t>(slice)] > 0)  // else the plain codes stay
      if (auto done = choose(slice, rows, x, out); !done) return done;
    const reference_meter meter(moments_, slice, pairs_);
    if (meter.can_tell())
      measure_outputs(meter, first, rows, x, plain.data() + first * rows_.row_bytes(), out);
    return measure_weights(first, rows, x, out);
  }

  /// Work on all rows of a slice in runs, `body(first of the run, rows, worker)`.
  template <class Body>
  void for_runs(std::int64_t rows, Body body) {
    threads_.for_each(static_cast<int>((rows + tile - 1) / tile), [&](int task, int worker) {
      const std::int64_t first = std::int64_t{tile} * task;
      body(first, static_cast<int>(std::min<std::int64_t>(tile, rows - first)), worker);
    });
  }
  std::size_t runs(std::int64_t rows) const { return static_cast<std::size_t>((rows + tile - 1) / tile); }

  result<void> load(std::int64_t first, std::int64_t rows, std::vector<float>& x) {
    std::vector<outcome> outcomes(runs(rows));
    for_runs(rows, [&](std::int64_t at, int n, int worker) {
      auto& o = outcomes[static_cast<std::size_t>(at / tile)];
      for (std::int64_t r = at; r < at + n && o.why.empty(); ++r) {
        o.why = rows_.load_row(first + r, x.data() + r * moments_.cols, worker);
        if (!o.why.empty()) o.failed_row = first + r;
      }
    });
    for (const auto& o : outcomes)
      if (o.failed_row >= 0) return row_error(t_, o);
    return {};
  }

  result<void> choose(std::int64_t slice, std::int64_t rows, const std::vector<float>& x, std::byte* out) {
    const auto fail = [&](status s) {
      return error{"tensor '" + text::printable(t_.name) + "': second moments of slice " +
                   std::to_string(slice) + ": " + std::string(to_string(s))};
    };
    const auto matrix = moments_.matrix(slice);
    output_metric metric;
    if (const auto s = metric.prepare(
            {moments_.cols, moments_.counts[static_cast<std::size_t>(slice)], matrix}, threads_,
            {.kappa = shrinkage, .run = coder_.run}, runtime::best_variant().factor_product());
        s != status::ok)
      return fail(s);
    const std::vector<float> target = target_of(slice, rows, x, metric);
    std::vector<std::byte> workspace(quantize_rows_workspace(coder_, moments_.cols, threads_.workers()));
    const output_aware_args a{target.data(), rows, moments_.cols, out, rows_.row_bytes()};
    const auto s = quantize_rows(coder_, runtime::best_variant().product(), metric, a, threads_, workspace);
    return s == status::ok ? result<void>{} : fail(s);
  }

  /// The weights to come near.
  std::vector<float> target_of(std::int64_t slice, std::int64_t rows, const std::vector<float>& x,
                               const output_metric& metric) {
    if (!pairs_) return x;
    std::vector<float> target = x;
    const double inputs = moments_.counts[static_cast<std::size_t>(slice)];
    const double share = reference_target(*pairs_, slice, metric, threads_)
                             .move(target, rows, kept_share(inputs, moments_.cols));
    output_.followed = output_.followed.value_or(0) + share / static_cast<double>(moments_.slices);
    return target;
  }

  void measure_outputs(const reference_meter& meter, std::int64_t first, std::int64_t rows,
                       const std::vector<float>& x, const std::byte* plain, const std::byte* chosen) {
    const std::int64_t cols = moments_.cols;
    std::vector<double> each(static_cast<std::size_t>(3 * rows));  // of the weights, of both errors
    std::vector<float> memory(static_cast<std::size_t>(threads_.workers() * tile * cols));
    std::vector<reference_meter::scratch> scratch(static_cast<std::size_t>(threads_.workers()));
    for_runs(rows, [&](std::int64_t at, int n, int worker) {
      float* e = memory.data() + worker * tile * cols;
      auto& room = scratch[static_cast<std::size_t>(worker)];
      double* out = each.data() + at;
      meter.measure_signal(x.data() + at * cols, n, room, out);
      for (const auto* bytes : {plain, chosen}) {
        for (int r = 0; r < n; ++r) {
          coder_.dequantize(bytes + (at + r) * rows_.row_bytes(), e + r * cols, cols);
          for (std::int64_t c = 0; c < cols; ++c)
            e[r * cols + c] = x[static_cast<std::size_t>((at + r) * cols + c)] - e[r * cols + c];
        }
        meter.measure_error(e, n, room, out += rows);
      }
    });
    for (std::int64_t r = 0; r < rows; ++r) {  // in the order of the rows: sums do not depend on the threads
      const double unit = rows_.unit_of(first + r), square = unit * unit;
      const double* v = each.data() + r;
      output_.signal += square * v[0], output_.plain += square * v[rows],
          output_.chosen += square * v[2 * rows];
    }
    output_.measured = true;
  }

  /// Uses x up.
  result<void> measure_weights(std::int64_t first, std::int64_t rows, std::vector<float>& x,
                               const std::byte* chosen) {
    std::vector<outcome> outcomes(runs(rows));
    for_runs(rows, [&](std::int64_t at, int n, int worker) {
      auto& o = outcomes[static_cast<std::size_t>(at / tile)];
      for (std::int64_t r = at; r < at + n && o.why.empty(); ++r) {
        o.why = rows_.measure_row(first + r, x.data() + r * moments_.cols, chosen + r * rows_.row_bytes(),
                                  worker, o.loss);
        if (!o.why.empty()) o.failed_row = first + r;
      }
    });
    for (const auto& o : outcomes) {
      if (o.failed_row >= 0) return row_error(t_, o);
      chosen_loss_.range += o.loss.range;
      chosen_loss_.error += o.loss.error;
    }
    return {};
  }

  const gguf::tensor_info& t_;
  conversion& rows_;
  const quantize::output_coder& coder_;
  const imatrix::moments& moments_;
  const paired_moments* pairs_;
  executor_ref threads_;
  output_loss output_;
  conversion_loss chosen_loss_;
};

}  // namespace

bool has_output_aware_codes(std::uint32_t type) noexcept {
  return runtime::best_variant().find_coder(type) != nullptr;
}

double kept_share(double inputs, std::int64_t cols) noexcept {
  return inputs / (inputs + shrinkage * static_cast<double>(cols));
}

result<conversion_loss> convert_output_aware(const gguf::tensor_info& t, const gguf::row_source& source,
                                             std::uint32_t type, const imatrix::importance* importance,
                                             const imatrix::moments& moments, const scale_pair& scales,
                                             executor_ref threads, const sink& out,
                                             const paired_moments* pairs) {
  std::vector<std::byte> bytes;
  const auto plain =
      convert(t, source, type, importance, scales, threads, [&](std::span<const std::byte> part) {
        bytes.insert(bytes.end(), part.begin(), part.end());
        return result<void>{};
      });
  if (!plain || bytes.empty()) return plain;
  conversion rows(t, source, type, importance, scales, threads.workers());
  auto loss =
      output_aware_conversion(t, rows, *runtime::best_variant().find_coder(type), moments, pairs, threads)
          .run(bytes, *plain);
  if (!loss) return loss;
  if (auto w = out(bytes); !w) return w.error();
  return loss;
}

}  // namespace quantal::plan
