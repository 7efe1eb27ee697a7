#include "paired_collector.hpp"

#include <algorithm>

#include "quantal/finite.hpp"
#include "quantal/imatrix/lookup.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

/// Inputs that one product takes: enough that the sums are read from memory once for many multiply-adds.
constexpr std::int64_t pairs_at_once = 128;
/// Rows of the matrix that one task computes.
constexpr std::int64_t sum_rows_per_task = 24;

/// A width that products take.
constexpr std::int64_t product_width(std::int64_t cols) {
  return (cols + quantize::product_columns - 1) / quantize::product_columns * quantize::product_columns;
}

void append_floats(const std::vector<double>& from, std::vector<float>& to) {
  std::transform(from.begin(), from.end(), std::back_inserter(to),
                 [](double v) { return static_cast<float>(v); });
}

/// The lower triangle of a square matrix.
void store_triangle(const std::vector<double>& square, std::int64_t cols, float* to) {
  for (std::int64_t i = 0; i < cols && !square.empty(); ++i)
    for (std::int64_t j = 0; j <= i; ++j)
      *to++ = static_cast<float>(square[static_cast<std::size_t>(i * cols + j)]);
}

}  // namespace

result<void> paired_collector::side::on_mul_mat(const mla::matrix_input& in) {
  return to_.take(
      {in.name, in.data, in.cols, in.tokens, in.slices, in.token_stride, in.slice_stride, in.slices, nullptr},
      reference_);
}

result<void> paired_collector::side::on_mul_mat_id(const mla::expert_input& in) {
  return to_.take(
      {in.name, in.data, in.cols, in.tokens, in.used, in.token_stride, in.slot_stride, in.experts, in.ids},
      reference_);
}

std::span<const std::int32_t> paired_collector::side::other_experts() const {
  return reference_ ? std::span<const std::int32_t>(to_.experts_) : std::span<const std::int32_t>();
}

paired_collector::paired_collector(std::vector<std::string> names, pairing_options o,
                                   quantize::row_product product, executor_ref threads)
    : names_(std::move(names)), options_(o), product_(product), threads_(threads) {}

void paired_collector::start(std::int64_t token, bool reference) {
  first_token_ = token, seen_ = 0;
  if (!reference) experts_.clear();
}

std::string paired_collector::described() const {
  std::string all;
  for (const auto& name : names_) all += (all.empty() ? "" : ", ") + name;
  return all;
}

bool paired_collector::wanted(std::string_view name) const {
  return std::find(names_.begin(), names_.end(), name) != names_.end();
}

result<void> paired_collector::take(const rows& in, bool reference) {
  if (!wanted(in.name)) return {};
  ++seen_;
  return reference ? pair(in) : keep(in);
}

/// Another tensor that the quantized model just gave the very same numbers.
const std::string* paired_collector::shared_with(const std::string& name, const rows& in) const {
  for (const auto& other : imatrix::detail::same_input(name)) {
    const auto it = tensors_.find(other);
    if (it != tensors_.end() && it->second.data == in.data && it->second.cols == in.cols) return &it->first;
  }
  return nullptr;
}

void paired_collector::open(tensor& t, const rows& in) const {
  // Two sums of what is used, three of what is held out.
  const auto bytes = static_cast<std::size_t>(5 * in.cols * in.cols * in.slices) * sizeof(double);
  t.cols = in.cols, t.slices = bytes > options_.bytes_per_tensor ? 1 : in.slices;
  t.used.resize(static_cast<std::size_t>(t.slices)), t.held_out.resize(t.used.size());
}

/// The quantized model's side of a batch.
result<void> paired_collector::keep(const rows& in) {
  const std::string name(in.name);
  if (in.ids) experts_.assign(in.ids, in.ids + in.tokens * in.per_token);
  if (same_.contains(name)) return {};
  if (!tensors_.contains(name))
    if (const auto* other = shared_with(name, in)) {
      same_.emplace(name, *other);
      return {};
    }
  tensor& t = tensors_[name];
  if (t.cols == 0) open(t, in);
  t.data = in.data;
  t.batch_rows = in.row_stride == 0 ? 1 : in.per_token;
  t.batch.resize(static_cast<std::size_t>(in.tokens * t.batch_rows * in.cols));
  auto to = t.batch.begin();
  for (std::int64_t n = 0; n < in.tokens; ++n)
    for (std::int64_t i = 0; i < t.batch_rows; ++i, to += in.cols) std::copy_n(in.row(n, i), in.cols, to);
  return {};
}

/// The reference's side, which completes the pairs.
result<void> paired_collector::pair(const rows& in) {
  const auto it = tensors_.find(std::string(in.name));
  if (it == tensors_.end()) return {};  // its inputs are those of another tensor
  tensor& t = it->second;
  for (std::int64_t n = 0; n < in.tokens; ++n)
    for (std::int64_t i = 0; i < in.per_token; ++i) {
      const float* x = t.batch.data() + (n * t.batch_rows + std::min(i, t.batch_rows - 1)) * in.cols;
      const float* r = in.row(n, i);
      const auto finite = [&](const float* v) {
        return std::all_of(v, v + in.cols, [](float f) { return is_finite(f); });
      };
      if (!finite(x) || !finite(r))
        return error{"tensor '" + text::printable(in.name) + "': its input" +
                     (finite(r) ? ", from what is quantized so far," : "") + " holds a NaN or an infinity"};
      const bool held = first_token_ + n >= options_.held_out_from;
      sums& s = (held ? t.held_out : t.used)[static_cast<std::size_t>(t.slices == 1 ? 0 : in.slice(n, i))];
      s.pending_x.insert(s.pending_x.end(), x, x + in.cols);
      s.pending_r.insert(s.pending_r.end(), r, r + in.cols);
      s.count += 1;
      if (static_cast<std::int64_t>(s.pending_x.size()) == pairs_at_once * in.cols) flush(s, in.cols, held);
    }
  return {};
}

/// Adds the pending pairs.
void paired_collector::flush(sums& s, std::int64_t cols, bool with_rest) {
  const std::int64_t n = static_cast<std::int64_t>(s.pending_x.size()) / cols;
  if (n == 0) return;
  for (std::size_t i = 0; i < s.pending_x.size(); ++i) s.pending_r[i] -= s.pending_x[i];
  add_products(s.pending_x, s.pending_x, n, cols, s.x);
  add_products(s.pending_r, s.pending_x, n, cols, s.d);
  if (with_rest) add_products(s.pending_r, s.pending_r, n, cols, s.rest);
  s.pending_x.clear(), s.pending_r.clear();
}

/// sum += left^T right, both [n][cols]; a part's products are float32, their sum is float64.
void paired_collector::add_products(const std::vector<float>& left, const std::vector<float>& right,
                                    std::int64_t n, std::int64_t cols, std::vector<double>& sum) {
  const std::int64_t width = product_width(cols);
  sum.resize(static_cast<std::size_t>(cols * cols));
  rows_.assign(static_cast<std::size_t>(n * width), 0.0f);
  columns_.resize(static_cast<std::size_t>(cols * n));
  products_.resize(static_cast<std::size_t>(threads_.workers() * sum_rows_per_task * width));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < cols; ++c) {
      rows_[static_cast<std::size_t>(i * width + c)] = right[static_cast<std::size_t>(i * cols + c)];
      columns_[static_cast<std::size_t>(c * n + i)] = left[static_cast<std::size_t>(i * cols + c)];
    }
  const auto tasks = static_cast<int>((cols + sum_rows_per_task - 1) / sum_rows_per_task);
  threads_.for_each(tasks, [&](int task, int worker) {
    const std::int64_t first = task * sum_rows_per_task, last = std::min(first + sum_rows_per_task, cols);
    float* y = products_.data() + worker * sum_rows_per_task * width;
    std::fill_n(y, sum_rows_per_task * width, 0.0f);
    product_(columns_.data() + first * n, n, rows_.data(), width, y, width, static_cast<int>(last - first), n,
             width);
    for (std::int64_t i = first; i < last; ++i)
      for (std::int64_t j = 0; j < cols; ++j)
        sum[static_cast<std::size_t>(i * cols + j)] += double{y[(i - first) * width + j]};
  });
}

const paired_moments& paired_collector::moments_of(const std::string& name) {
  const auto shared = same_.find(name);
  tensor& t = tensors_.at(shared == same_.end() ? name : shared->second);
  if (!t.finished) finish(t);
  return t.moments;
}

void paired_collector::finish(tensor& t) {
  paired_moments& m = t.moments;
  m.inputs = imatrix::moments(t.cols, t.slices);
  const auto square = static_cast<std::size_t>(t.cols * t.cols);
  for (std::size_t i = 0; i < t.used.size(); ++i) {
    sums &used = t.used[i], &held = t.held_out[i];
    flush(used, t.cols, false), flush(held, t.cols, true);
    m.inputs.counts[i] = used.count, m.inputs.held_counts[i] = held.count;
    const auto at = static_cast<std::int64_t>(i) * imatrix::triangle(t.cols);
    store_triangle(used.x, t.cols, m.inputs.sums.data() + at);
    store_triangle(held.x, t.cols, m.inputs.held_out.data() + at);
    used.d.resize(square), held.d.resize(square), held.rest.resize(square);
    append_floats(used.d, m.shift), append_floats(held.d, m.held_shift),
        append_floats(held.rest, m.held_rest);
    used = {}, held = {};
  }
  t.finished = true;
}

}  // namespace quantal::plan
