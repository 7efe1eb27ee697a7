#include "commands.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

#include "file.hpp"
#include "json.hpp"
#include "quantal/checked.hpp"
#include "quantal/executor.hpp"
#include "quantal/lattice.hpp"
#include "quantal/quantize/error.hpp"
#include "quantal/quantize/range.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::blocks {
namespace {

result<const format_info*> format_of(const options& o) {
  const auto* f = find_format(o.format);
  if (!f) return error{"unknown format '" + o.format + "' ('quantal-blocks list' prints them)"};
  if (o.cols % f->layout.elements != 0)
    return error{std::to_string(o.cols) + " columns are not a multiple of the " +
                 std::to_string(f->layout.elements) + " of a block of " + std::string(f->name)};
  return f;
}

result<const format_info*> target_of(const options& o) {
  auto f = format_of(o);
  if (f && !runtime::can_quantize((*f)->gguf_id))
    return error{std::string((*f)->name) + " cannot be quantized to"};
  return f;
}

/// Float32 rows with the importance that goes with their columns.
struct input {
  std::vector<float> values, importance;
  std::int64_t rows = 0;

  const float* weights() const { return importance.empty() ? nullptr : importance.data(); }
};

result<input> read_input(const options& o) {
  input in;
  auto values = file::read_raw<float>(o.in);
  if (!values) return values.error();
  in.values = std::move(*values);
  const auto n = static_cast<std::int64_t>(in.values.size());
  if (n % o.cols != 0)
    return error{o.in.string() + ": " + std::to_string(n) + " values are not whole rows of " +
                 std::to_string(o.cols)};
  in.rows = n / o.cols;
  if (o.importance.empty()) return in;
  auto w = file::read_raw<float>(o.importance);
  if (!w) return w.error();
  if (static_cast<std::int64_t>(w->size()) != o.cols)
    return error{o.importance.string() + ": " + std::to_string(w->size()) + " importances for " +
                 std::to_string(o.cols) + " columns"};
  in.importance = std::move(*w);
  return in;
}

/// rows * row, in bytes or values; what overflows does not fit in memory either.
result<std::size_t> size_of_rows(std::int64_t rows, std::int64_t row) {
  const auto size = checked_multiply(rows, row);
  if (!size)
    return error{std::to_string(rows) + " rows of " + std::to_string(row) + " are more than memory can hold"};
  return static_cast<std::size_t>(*size);
}

/// Calls f(row) -> status for every row; the error names the first row (by number) that failed.
template <class F>
result<void> for_rows(std::int64_t rows, int threads, const std::filesystem::path& source, F&& f) {
  constexpr std::int64_t at_once = 1 << 16;  // files may hold more rows than an int counts
  std::vector<status> failures(static_cast<std::size_t>(rows), status::ok);
  thread_pool pool(threads);
  for (std::int64_t first = 0; first < rows; first += at_once)
    executor_ref(pool).for_each(static_cast<int>(std::min(at_once, rows - first)), [&](int i, int) {
      failures[static_cast<std::size_t>(first + i)] = f(first + i);
    });
  for (std::size_t r = 0; r < failures.size(); ++r)
    if (failures[r] != status::ok)
      return error{source.string() + ": row " + std::to_string(r) + ": " +
                   std::string(to_string(failures[r]))};
  return {};
}

/// The scale beside an nvfp4 array; 1 for other formats.
float scale_of(const format_info& f, const input& in) {
  if (f.gguf_id != nvfp4::gguf_id) return 1.0f;
  float largest = 0;
  for (const float v : in.values) largest = std::isfinite(v) ? std::max(largest, std::fabs(v)) : largest;
  return tensor_scale_of(f.gguf_id, largest_of_groups(in.values), largest);
}

void divide(std::vector<float>& values, float scale) {
  if (scale != 1.0f)
    for (float& v : values) v /= scale;
}

result<std::vector<std::byte>> encode(const options& o, const format_info& f, const input& in) {
  const std::int64_t row_bytes = f.row_bytes(o.cols);
  const auto size = size_of_rows(in.rows, row_bytes);
  if (!size) return size.error();
  std::vector<std::byte> out(*size);
  const auto done = for_rows(in.rows, o.threads, o.in, [&](std::int64_t r) {
    return runtime::quantize_row(f.gguf_id, in.values.data() + r * o.cols, in.weights(),
                                 out.data() + r * row_bytes, o.cols);
  });
  if (!done) return done.error();
  return out;
}

json description(const format_info& f) {
  return {{"name", f.name},
          {"gguf_id", f.gguf_id},
          {"block", f.layout.elements},
          {"bytes", f.layout.bytes},
          {"row_meta", f.layout.row_meta},
          {"group", f.layout.group},
          {"bpw", f.layout.bpw()},
          {"quantizer", runtime::can_quantize(f.gguf_id)},
          {"role", f.usage == role::weight ? "weight" : "activation"}};
}

}  // namespace

result<void> list(const options& o) {
  if (o.json) {
    json all = json::array();
    for (const auto& f : format_table) all.push_back(description(f));
    print_json(all);
    return {};
  }
  std::printf("%-10s %5s %6s %6s %9s %6s %8s  %s\n", "name", "id", "block", "bytes", "row meta", "group",
              "bpw", "quantizer");
  for (const auto& f : format_table)
    std::printf("%-10s %5u %6d %6d %9d %6d %8.4f  %s\n", std::string(f.name).c_str(), f.gguf_id,
                f.layout.elements, f.layout.bytes, f.layout.row_meta, f.layout.group, f.layout.bpw(),
                runtime::can_quantize(f.gguf_id) ? "yes" : "no");
  return {};
}

result<void> dequantize(const options& o) {
  const auto f = format_of(o);
  if (!f) return f.error();
  const auto in = file::read_raw<std::byte>(o.in);
  if (!in) return in.error();
  const auto row_bytes = (*f)->row_bytes(o.cols);
  const auto bytes = static_cast<std::int64_t>(in->size());
  if (bytes % row_bytes != 0)
    return error{o.in.string() + ": " + std::to_string(bytes) + " bytes are not whole rows of " +
                 std::to_string(row_bytes) + " bytes (" + std::to_string(o.cols) + " columns of " + o.format +
                 ")"};
  const auto rows = bytes / row_bytes;
  const auto size = size_of_rows(rows, o.cols);
  if (!size) return size.error();
  std::vector<float> out(*size);
  const auto done = for_rows(rows, o.threads, o.in, [&](std::int64_t r) {
    return runtime::dequantize_row((*f)->gguf_id, in->data() + r * row_bytes, out.data() + r * o.cols,
                                   o.cols);
  });
  if (done && !o.scale.empty()) {
    const auto scale = file::read_raw<float>(o.scale);
    if (!scale) return scale.error();
    if (scale->size() != 1) return error{o.scale.string() + ": is not one float32"};
    for (float& v : out) v *= scale->front();
  }
  return done ? file::write_raw(o.out, out) : done;
}

result<void> quantize(const options& o) {
  const auto f = target_of(o);
  if (!f) return f.error();
  auto in = read_input(o);
  if (!in) return in.error();
  const float scale = o.scale.empty() ? 1.0f : scale_of(**f, *in);
  divide(in->values, scale);
  const auto out = encode(o, **f, *in);
  if (!out) return out.error();
  if (!o.scale.empty())
    if (auto w = file::write_raw(o.scale, std::vector<float>{scale}); !w) return w;
  return file::write(o.out, *out);
}

result<void> measure_error(const options& o) {
  const auto f = target_of(o);
  if (!f) return f.error();
  auto in = read_input(o);
  if (!in) return in.error();
  // Errors are relative: they are those of the scaled weights.
  const float scale = scale_of(**f, *in);
  divide(in->values, scale);
  const auto encoded = encode(o, **f, *in);
  if (!encoded) return encoded.error();
  const auto row_bytes = (*f)->row_bytes(o.cols);
  quantization_error sum;
  range_loss range;
  std::vector<float> decoded(static_cast<std::size_t>(o.cols));
  for (std::int64_t r = 0; r < in->rows; ++r) {
    if (const auto s =
            runtime::dequantize_row((*f)->gguf_id, encoded->data() + r * row_bytes, decoded.data(), o.cols);
        s != status::ok)
      return error{o.in.string() + ": row " + std::to_string(r) + ": " + std::string(to_string(s))};
    if (!std::all_of(decoded.begin(), decoded.end(), [](float v) { return std::isfinite(v); }))
      return error{o.in.string() + ": row " + std::to_string(r) +
                   ": a weight decodes to a NaN or an infinity; " + o.format + " cannot hold the row"};
    sum.add(in->values.data() + r * o.cols, decoded.data(), in->weights(), o.cols);
    range += range_loss_of(**f, in->values.data() + r * o.cols, decoded.data(), o.cols);
  }
  if (!std::isfinite(sum.nmse_weighted()) || !std::isfinite(sum.nmse_plain()))
    return error{o.in.string() + ": the error is not finite"};
  const double bpw = 8.0 * static_cast<double>(row_bytes) / static_cast<double>(o.cols);
  if (o.json) {
    print_json({{"format", (*f)->name},
                {"rows", in->rows},
                {"cols", o.cols},
                {"bytes", encoded->size()},
                {"bpw", bpw},
                {"importance", !in->importance.empty()},
                {"scale", scale},
                {"cut", range.cut},
                {"lost", range.lost},
                {"nmse_weighted", json_number(sum.nmse_weighted())},
                {"nmse", json_number(sum.nmse_plain())}});
    return {};
  }
  std::printf("%s: %lld rows of %lld columns, %.4f bpw\n", std::string((*f)->name).c_str(),
              static_cast<long long>(in->rows), static_cast<long long>(o.cols), bpw);
  std::printf("weighted nmse %.9g\nplain nmse    %.9g\n", sum.nmse_weighted(), sum.nmse_plain());
  if (scale != 1.0f) std::printf("scale of the array %.9g\n", static_cast<double>(scale));
  if (range.any())
    std::printf("beyond the range of the scales: %lld cut, %lld lost\n", static_cast<long long>(range.cut),
                static_cast<long long>(range.lost));
  return {};
}

}  // namespace quantal::blocks
