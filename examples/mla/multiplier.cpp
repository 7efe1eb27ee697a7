#include "multiplier.hpp"

#include <algorithm>
#include <bit>

namespace quantal::mla {

bool all_finite(const float* v, std::int64_t n) {
  constexpr std::uint32_t exponent = 0x7f800000;
  bool bad = false;
  for (std::int64_t i = 0; i < n; ++i) bad |= (std::bit_cast<std::uint32_t>(v[i]) & exponent) == exponent;
  return !bad;
}

multiplier::multiplier(const model& m, const runtime::dispatcher& arch, executor_ref executor,
                       activation policy, products* device)
    : path_(m.file->path()),
      arch_(arch),
      executor_(executor),
      policy_(policy),
      device_(device),
      enough_columns_(policy == activation::exact ? 6 : 9) {}

result<void> multiplier::multiply(const matrix& m, std::int64_t slice, const float* x, std::int64_t n,
                                  std::int64_t x_stride, float* out, std::int64_t out_stride,
                                  std::int64_t first_row) {
  const mul_mat_args a{
      m.data + slice * m.slice_stride, m.rows, m.cols, m.row_stride, x, n, x_stride, out, out_stride};
  if (auto r = n < enough_columns_ ? few_columns(m, slice, x, n, x_stride, out, out_stride) : run(m, a); !r)
    return r;
  for (std::int64_t t = 0; t < n; ++t) {
    if (!m.scale.is_one()) m.scale.apply(slice, out + t * out_stride, m.rows);
    if (!all_finite(out + t * out_stride, m.rows))
      return not_finite(m, all_finite(x + t * x_stride, m.cols), first_row + t);
  }
  return {};
}

/// The last column is repeated until there are enough.
result<void> multiplier::few_columns(const matrix& m, std::int64_t slice, const float* x, std::int64_t n,
                                     std::int64_t x_stride, float* out, std::int64_t out_stride) {
  float* in = grow(few_in_, enough_columns_ * m.cols);
  float* results = grow(few_out_, enough_columns_ * m.rows);
  for (std::int64_t t = 0; t < enough_columns_; ++t)
    std::copy_n(x + std::min(t, n - 1) * x_stride, m.cols, in + t * m.cols);
  if (auto r = run(m, mul_mat_args{m.data + slice * m.slice_stride, m.rows, m.cols, m.row_stride, in,
                                   enough_columns_, m.cols, results, m.rows});
      !r)
    return r;
  for (std::int64_t t = 0; t < n; ++t) std::copy_n(results + t * m.rows, m.rows, out + t * out_stride);
  return {};
}

result<void> multiplier::multiply_experts(const matrix& m, const float* x, std::int64_t n,
                                          std::int64_t token_stride, std::int64_t slot_stride,
                                          const std::int32_t* ids, std::int64_t used, float* out) {
  const mul_mat_id_args a{m.data, m.slices, m.rows,        m.cols,      m.row_stride, m.slice_stride,
                          x,      n,        token_stride,  slot_stride, ids,          used,
                          used,   out,      used * m.rows, m.rows};
  if (auto r = run(m, a); !r) return r;
  for (std::int64_t pair = 0; pair < n * used; ++pair) {
    float* const row = out + pair * m.rows;
    if (!m.scale.is_one()) m.scale.apply(ids[pair], row, m.rows);
    if (!all_finite(row, m.rows))
      return not_finite(m, all_finite(x + pair / used * token_stride + pair % used * slot_stride, m.cols),
                        pair / used, ids[pair]);
  }
  return {};
}

std::int64_t multiplier::pad_experts(std::vector<std::int32_t>& ids, std::int64_t used,
                                     std::int64_t experts) const {
  std::vector<std::int64_t> columns(static_cast<std::size_t>(experts));
  for (const auto id : ids) ++columns[static_cast<std::size_t>(id)];
  const std::size_t before = ids.size();
  for (std::size_t e = 0; e < columns.size(); ++e)
    for (; columns[e] > 0 && columns[e] < enough_columns_; ++columns[e])
      ids.push_back(static_cast<std::int32_t>(e));
  while (ids.size() % static_cast<std::size_t>(used) != 0) ids.push_back(ids.front());
  return static_cast<std::int64_t>(ids.size() - before) / used;
}

result<void> multiplier::run(const matrix& m, const mul_mat_args& a) {
  operations_ += 2.0 * static_cast<double>(a.rows * a.cols) * static_cast<double>(a.n);
  if (device_)
    if (auto r = device_->mul_mat(m, a)) return located(*r);
  const auto* ops = arch_.find(m.format);
  workspace_.resize(std::max(workspace_.size(), ops->mul_mat_workspace(a, policy_)));
  return check(m, ops->mul_mat(a, policy_, executor_, workspace_));
}

result<void> multiplier::run(const matrix& m, const mul_mat_id_args& a) {
  operations_ += 2.0 * static_cast<double>(a.rows * a.cols) * static_cast<double>(a.tokens * a.used);
  if (device_)
    if (auto r = device_->mul_mat_id(m, a)) return located(*r);
  const auto* ops = arch_.find(m.format);
  workspace_.resize(std::max(workspace_.size(), ops->mul_mat_id_workspace(a, policy_)));
  return check(m, ops->mul_mat_id(a, policy_, executor_, workspace_));
}

result<void> multiplier::located(const result<void>& r) const {
  if (r) return {};
  return at_file(r.error().message);
}

result<void> multiplier::check(const matrix& m, status s) const {
  if (s == status::ok) return {};
  return at_file("tensor '" + m.name + "': " + std::string(to_string(s)));
}

/// The first product that is not finite ends the run: whatever follows would not be, either.
error multiplier::not_finite(const matrix& m, bool finite_input, std::int64_t row, std::int64_t expert) {
  failed_row_ = row;
  return at_file("tensor '" + m.name + "'" + (expert < 0 ? "" : ", expert " + std::to_string(expert)) +
                 ": its " + (finite_input ? "product" : "input") + " holds a NaN or an infinity at token " +
                 std::to_string(position_of(row)));
}

/// Rows before the batch are earlier tokens of its first sequence.
std::int64_t multiplier::position_of(std::int64_t row) const {
  const segment* in = &parts_.front();
  for (const auto& p : parts_)
    if (p.first <= row) in = &p;
  return in->position + row - in->first;
}

}  // namespace quantal::mla
