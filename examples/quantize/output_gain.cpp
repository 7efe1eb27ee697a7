#include "output_gain.hpp"

#include <algorithm>
#include <cmath>

#include "output_aware.hpp"
#include "weight_rows.hpp"

namespace quantal::plan {
namespace {

constexpr std::int64_t sampled_elements = 1 << 15, fewest_rows = 24;
constexpr std::size_t most_slices = 4;

/// Slices that saw inputs, evenly spread.
std::vector<std::int64_t> slices_of(const imatrix::moments& m) {
  std::vector<std::int64_t> seen, out;
  for (std::int64_t s = 0; s < m.slices; ++s)
    if (m.counts[static_cast<std::size_t>(s)] > 0) seen.push_back(s);
  const std::size_t n = std::min(seen.size(), most_slices);
  for (std::size_t i = 0; i < n; ++i) out.push_back(seen[i * seen.size() / n]);
  return out;
}

imatrix::moments some_slices(const imatrix::moments& m, const std::vector<std::int64_t>& slices) {
  imatrix::moments out(m.cols, static_cast<std::int64_t>(slices.size()));
  const auto copy = [&](const auto& from, auto& to, std::int64_t each) {
    for (std::size_t i = 0; i < slices.size(); ++i)
      std::copy_n(from.begin() + slices[i] * each, each, to.begin() + static_cast<std::int64_t>(i) * each);
  };
  copy(m.sums, out.sums, imatrix::triangle(m.cols)),
      copy(m.held_out, out.held_out, imatrix::triangle(m.cols));
  copy(m.mean, out.mean, m.cols);
  copy(m.counts, out.counts, 1), copy(m.held_counts, out.held_counts, 1);
  return out;
}

}  // namespace

result<output_gain> output_gain::sample(const gguf::model_view& model, const gguf::tensor_info& t,
                                        const imatrix::importance* importance, const imatrix::moments& m) {
  auto reader = weight_rows::open(model, t);
  if (!reader) return reader.error();
  const auto slices = slices_of(m);
  const std::int64_t cols = t.cols(), all = t.rows() * t.slices() / m.slices,
                     count = static_cast<std::int64_t>(slices.size());
  const std::int64_t rows =
      std::min(all, std::max(sampled_elements / (cols * std::max<std::int64_t>(count, 1)), fewest_rows));
  output_gain g;
  g.tensor_ = t;
  g.tensor_.type = f32::gguf_id, g.tensor_.ne = {cols, rows, count, 1}, g.tensor_.n_dims = 3;
  g.weights_.resize(static_cast<std::size_t>(cols * rows * count));
  g.moments_ = some_slices(m, slices);
  if (importance) {
    g.importance_ = *importance;
    g.importance_.weights.clear(), g.importance_.vectors = rows * count, g.importance_.rows_per_vector = 1;
  }
  float* x = g.weights_.data();
  for (const auto s : slices)
    for (std::int64_t i = 0; i < rows; ++i, x += cols) {
      const std::int64_t r = s * all + i * all / rows;
      if (auto read = reader->read(r, x); !read) return read.error();
      if (importance) {
        const float* w = importance->row(r / t.rows(), r % t.rows(), t.rows());
        g.importance_.weights.insert(g.importance_.weights.end(), w, w + cols);
      }
    }
  return g;
}

result<double> output_gain::ratio(std::uint32_t type, executor_ref threads) const {
  if (!has_output_aware_codes(type) || weights_.empty()) return 1.0;
  const gguf::row_source rows(std::as_bytes(std::span(weights_)),
                              static_cast<std::uint64_t>(tensor_.cols()) * sizeof(float));
  scale_pair scales;
  if (has_tensor_scale(type)) {
    auto scale = measure_scale(tensor_, rows, {}, type, threads);
    if (!scale) return scale.error();
    scales.to = std::move(*scale);
  }
  const auto loss =
      convert_output_aware(tensor_, rows, type, importance_ ? &importance_ : nullptr, moments_, scales,
                           threads, [](std::span<const std::byte>) { return result<void>{}; });
  if (!loss) return loss.error();
  const auto& o = loss->output;
  if (!o || !o->measured || !(o->plain > 0)) return 1.0;
  return std::min(o->chosen / o->plain, 1.0);
}

}  // namespace quantal::plan
