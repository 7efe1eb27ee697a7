#include "collector.hpp"

#include <cmath>

#include "quantal/imatrix/statistics.hpp"

namespace quantal::mla {
namespace {

error not_finite(std::string_view name) {
  return {"tensor '" + std::string(name) +
          "': its input holds a NaN or an infinity; the statistics would be worthless"};
}

/// Adds squares of one row; false if the row is not finite (a float square cannot overflow float64).
bool add_row(const float* x, std::int64_t cols, double* sums) {
  double check = 0;
  for (std::int64_t c = 0; c < cols; ++c) {
    const double v = x[c];
    sums[c] += v * v;
    check += v * 0.0;
  }
  return check == 0;
}

/// The same, and keeps what rounding loses.
bool add_row(const float* x, std::int64_t cols, double* sums, double* rest) {
  double check = 0;
  for (std::int64_t c = 0; c < cols; ++c) {
    const double v = x[c];
    imatrix::add_exactly(v * v, sums[c], rest + 2 * c);
    check += v * 0.0;
  }
  return check == 0;
}

/// Adds to a slice of an entry.
bool add_row(const float* x, imatrix::entry& e, std::int64_t slice) {
  const std::int64_t at = slice * e.cols;
  return e.rest.empty() ? add_row(x, e.cols, e.sums.data() + at)
                        : add_row(x, e.cols, e.sums.data() + at, e.rest.data() + 2 * at);
}

double cosine(const float* a, const float* b, std::int64_t n) {
  double ab = 0, aa = 0, bb = 0;
  for (std::int64_t i = 0; i < n; ++i)
    ab += double{a[i]} * b[i], aa += double{a[i]} * a[i], bb += double{b[i]} * b[i];
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

void add_similarity(std::vector<layer_similarity::mean>& to, std::int64_t block, const std::vector<float>& a,
                    const std::vector<float>& b, std::int64_t cols) {
  if (a.size() != b.size()) return;
  if (to.size() <= static_cast<std::size_t>(block)) to.resize(static_cast<std::size_t>(block) + 1);
  auto& m = to[static_cast<std::size_t>(block)];
  for (std::size_t at = 0; at < a.size(); at += static_cast<std::size_t>(cols))
    m.sum += cosine(&a[at], &b[at], cols), ++m.n;
}

}  // namespace

result<imatrix::entry*> collector::entry_for(std::string_view name, std::int64_t cols, std::int64_t slices) {
  const auto [it, added] = store_.entries.try_emplace(std::string(name), cols, slices);
  auto& e = it->second;
  if (added && options_.exact) e.rest.resize(2 * e.sums.size());
  if (e.slices != slices && static_cast<std::int64_t>(e.sums.size()) == cols * slices && e.slices == 1) {
    // Another program's file: one count for all heads.
    e.counts.assign(static_cast<std::size_t>(slices), e.counts.front());
    e.slices = slices, e.cols = cols;
  }
  if (e.cols != cols || e.slices != slices)
    return error{"imatrix entry '" + std::string(name) + "' has " + std::to_string(e.slices) + " x " +
                 std::to_string(e.cols) + " values, the model needs " + std::to_string(slices) + " x " +
                 std::to_string(cols)};
  return &e;
}

result<void> collector::on_mul_mat(const matrix_input& in) {
  if (options_.similarity) note_layer_input(in);
  const bool block_weight = in.name.starts_with("blk.");
  if (!block_weight && !(options_.output && in.name == "output.weight")) return {};
  auto e = entry_for(in.name, in.cols, in.slices);
  if (!e) return e.error();
  for (std::int64_t t = 0; t < in.tokens; ++t)
    for (std::int64_t s = 0; s < in.slices; ++s)
      if (!add_row(in.data + t * in.token_stride + s * in.slice_stride, **e, s)) return not_finite(in.name);
  for (auto& c : (*e)->counts) c += in.tokens;
  return {};
}

result<void> collector::on_mul_mat_id(const expert_input& in) {
  auto e = entry_for(in.name, in.cols, in.experts);
  if (!e) return e.error();
  for (std::int64_t t = 0; t < in.tokens; ++t)
    for (std::int64_t j = 0; j < in.used; ++j) {
      const std::int64_t expert = in.ids[t * in.used + j];
      if (expert < 0 || expert >= in.experts)
        return error{"tensor '" + std::string(in.name) + "': expert " + std::to_string(expert) + " of " +
                     std::to_string(in.experts)};
      if (!add_row(in.data + t * in.token_stride + j * in.slot_stride, **e, expert))
        return not_finite(in.name);
      ++(*e)->counts[static_cast<std::size_t>(expert)];
    }
  return {};
}

/// The first products of a block see attn_norm's output, the first of its feed-forward part ffn_norm's.
void collector::note_layer_input(const matrix_input& in) {
  const std::int64_t block = imatrix::block_of(in.name);
  const bool attention = in.name.ends_with(".attn_kv_a_mqa.weight"), last = in.name == "output.weight";
  const bool feed_forward =
      in.name.ends_with(".ffn_gate.weight") || in.name.ends_with(".ffn_gate_inp.weight");
  if (!attention && !feed_forward && !last) return;
  std::vector<float> now;
  for (std::int64_t t = 0; t < in.tokens; ++t)
    now.insert(now.end(), in.data + t * in.token_stride, in.data + t * in.token_stride + in.cols);
  inputs& batch = inputs_[batch_];
  if (feed_forward) {
    add_similarity(similarity_.attention, block, batch.layer, now, in.cols);
    batch.feed_forward = std::move(now);
    return;
  }
  const std::int64_t before = last ? static_cast<std::int64_t>(similarity_.attention.size()) - 1 : block - 1;
  if (before >= 0) {
    add_similarity(similarity_.layer, before, batch.layer, now, in.cols);
    add_similarity(similarity_.feed_forward, before, batch.feed_forward, now, in.cols);
  }
  batch.layer = std::move(now);
  if (last) inputs_.erase(batch_);
}

void collector::settle() {
  for (auto& [name, e] : store_.entries) imatrix::settle(e);
}

}  // namespace quantal::mla
