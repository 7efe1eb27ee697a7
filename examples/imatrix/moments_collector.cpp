#include "moments_collector.hpp"

#include <algorithm>

#include "quantal/finite.hpp"
#include "quantal/imatrix/lookup.hpp"

namespace quantal::mla {
namespace {

/// Inputs that one product takes: enough that the sums are read from memory once for many multiply-adds.
constexpr std::int64_t inputs_at_once = 128;
/// Rows of the matrix that one task computes.
constexpr std::int64_t rows_per_task = 24;

constexpr std::int64_t padded(std::int64_t cols) {
  return (cols + quantize::product_columns - 1) / quantize::product_columns * quantize::product_columns;
}

void store(const std::vector<double>& from, std::vector<float>& to, std::int64_t slice) {
  std::transform(from.begin(), from.end(), to.begin() + slice * static_cast<std::int64_t>(from.size()),
                 [](double v) { return static_cast<float>(v); });
}

}  // namespace

moments_collector::moments_collector(moments_options o, quantize::row_product product, executor_ref threads)
    : options_(o), product_(product), threads_(threads) {}

/// Another tensor that was just given the very same numbers.
const std::string* moments_collector::shared_with(const std::string& name, const float* data,
                                                  std::int64_t cols, std::size_t slices) const {
  for (const auto& other : imatrix::detail::same_input(name)) {
    const auto it = tensors_.find(other);
    if (it != tensors_.end() && it->second.data == data && it->second.tokens == first_token_ &&
        it->second.cols == cols && it->second.used.size() == slices)
      return &it->first;
  }
  return nullptr;
}

result<moments_collector::tensor*> moments_collector::find(std::string_view name, const float* data,
                                                           std::int64_t cols, std::int64_t slices) {
  const std::string key(name);
  if (same_.contains(key)) return nullptr;
  const auto bytes = static_cast<std::size_t>(imatrix::triangle(cols)) * sizeof(double);
  if (bytes * static_cast<std::size_t>(slices) > options_.bytes_per_tensor) slices = 1;
  const auto count = static_cast<std::size_t>(slices);
  auto it = tensors_.find(key);
  if (it == tensors_.end()) {
    if (const auto* other = shared_with(key, data, cols, count)) {
      same_.emplace(key, *other);
      return nullptr;
    }
    it = tensors_
             .emplace(key,
                      tensor{cols, data, first_token_, std::vector<sums>(count), std::vector<sums>(count)})
             .first;
  }
  if (it->second.cols != cols || it->second.used.size() != count)
    return error{"tensor '" + key + "': its inputs change their shape"};
  it->second.data = data, it->second.tokens = first_token_;
  return &it->second;
}

result<void> moments_collector::add(std::string_view name, tensor& t, std::int64_t slice, std::int64_t token,
                                    const float* x) {
  if (!std::all_of(x, x + t.cols, [](float v) { return is_finite(v); }))
    return error{"tensor '" + std::string(name) + "': its input holds a NaN or an infinity"};
  auto& list = first_token_ + token >= options_.held_out_from ? t.held_out : t.used;
  sums& s = list[list.size() == 1 ? 0 : static_cast<std::size_t>(slice)];
  s.pending.insert(s.pending.end(), x, x + t.cols);
  s.count += 1;
  if (static_cast<std::int64_t>(s.pending.size()) == inputs_at_once * t.cols) flush(s, t.cols);
  return {};
}

result<void> moments_collector::on_mul_mat(const matrix_input& in) {
  if (!in.name.starts_with("blk.")) return {};
  const auto t = find(in.name, in.data, in.cols, in.slices);
  if (!t) return t.error();
  for (std::int64_t n = 0; *t && n < in.tokens; ++n)
    for (std::int64_t s = 0; s < in.slices; ++s)
      if (auto r = add(in.name, **t, s, n, in.data + n * in.token_stride + s * in.slice_stride); !r) return r;
  return {};
}

result<void> moments_collector::on_mul_mat_id(const expert_input& in) {
  const auto t = find(in.name, in.data, in.cols, in.experts);
  if (!t) return t.error();
  for (std::int64_t n = 0; *t && n < in.tokens; ++n)
    for (std::int64_t j = 0; j < in.used; ++j) {
      const std::int64_t expert = in.ids[n * in.used + j];
      if (expert < 0 || expert >= in.experts)
        return error{"tensor '" + std::string(in.name) + "': expert " + std::to_string(expert) + " of " +
                     std::to_string(in.experts)};
      if (auto r = add(in.name, **t, expert, n, in.data + n * in.token_stride + j * in.slot_stride); !r)
        return r;
    }
  return {};
}

/// Adds the pending inputs: products of the columns with the rows, of the lower triangle only.
void moments_collector::flush(sums& s, std::int64_t cols) {
  const std::int64_t n = static_cast<std::int64_t>(s.pending.size()) / cols, width = padded(cols);
  if (s.triangle.empty()) {
    s.triangle.assign(static_cast<std::size_t>(imatrix::triangle(cols)), 0.0);
    s.x.assign(static_cast<std::size_t>(cols), 0.0);
  }
  rows_.assign(static_cast<std::size_t>(n * width), 0.0f);
  columns_.resize(static_cast<std::size_t>(cols * n));
  products_.resize(static_cast<std::size_t>(threads_.workers() * rows_per_task * width));
  for (std::int64_t i = 0; i < n; ++i)
    for (std::int64_t c = 0; c < cols; ++c) {
      const float v = s.pending[static_cast<std::size_t>(i * cols + c)];
      rows_[static_cast<std::size_t>(i * width + c)] = columns_[static_cast<std::size_t>(c * n + i)] = v;
      s.x[static_cast<std::size_t>(c)] += v;
    }
  threads_.for_each(static_cast<int>((cols + rows_per_task - 1) / rows_per_task), [&](int task, int worker) {
    const std::int64_t first = task * rows_per_task, last = std::min(first + rows_per_task, cols),
                       wide = padded(last);
    float* y = products_.data() + worker * rows_per_task * width;
    std::fill_n(y, rows_per_task * width, 0.0f);
    product_(columns_.data() + first * n, n, rows_.data(), width, y, width, static_cast<int>(last - first), n,
             wide);
    for (std::int64_t i = first; i < last; ++i)
      for (std::int64_t j = 0; j <= i; ++j)
        s.triangle[static_cast<std::size_t>(imatrix::triangle(i) + j)] += double{y[(i - first) * width + j]};
  });
  s.pending.clear();
}

imatrix::moments_store moments_collector::take() {
  imatrix::moments_store out;
  out.same = std::move(same_);
  for (auto& [name, t] : tensors_) {
    imatrix::moments m(t.cols, static_cast<std::int64_t>(t.used.size()));
    for (std::size_t i = 0; i < t.used.size(); ++i) {
      const auto slice = static_cast<std::int64_t>(i);
      for (auto* s : {&t.used[i], &t.held_out[i]})
        if (!s->pending.empty()) flush(*s, t.cols);
      m.counts[i] = t.used[i].count, m.held_counts[i] = t.held_out[i].count;
      for (auto& v : t.used[i].x) v /= t.used[i].count;
      store(t.used[i].triangle, m.sums, slice), store(t.used[i].x, m.mean, slice);
      store(t.held_out[i].triangle, m.held_out, slice);
    }
    t.used.clear(), t.held_out.clear();
    out.entries.emplace(name, std::move(m));
  }
  tensors_.clear();
  return out;
}

}  // namespace quantal::mla
