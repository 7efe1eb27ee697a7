// Products with packed weights, for tests.
#pragma once

#include "kernel_case.hpp"

namespace quantal::test {

/// Memory for pack(), full of what no valid panel holds, with a guard behind it.
class poisoned_memory {
 public:
  explicit poisoned_memory(std::size_t size) : size_(size), bytes_(size + guard, poison) {}
  std::span<std::byte> span() { return std::span(bytes_).first(size_); }
  bool guard_is_whole() const {
    return std::all_of(bytes_.begin() + static_cast<std::ptrdiff_t>(size_), bytes_.end(),
                       [](std::byte b) { return b == poison; });
  }

 private:
  static constexpr std::size_t guard = 64;
  static constexpr std::byte poison{0xff};  // NaN as a scale
  std::size_t size_;
  std::vector<std::byte> bytes_;
};

/// Random weights of one or more experts, misaligned, rows and experts padded, and activations for 64
/// columns.
struct packed_problem {
  static constexpr std::int64_t most = 64;
  const runtime::format_ops& ops;
  std::int64_t experts, rows, cols, stride, expert_stride, act_stride;
  std::vector<std::byte> weights;
  std::vector<float> x;

  packed_problem(std::uint32_t format, const runtime::format_ops& operations, std::int64_t count,
                 std::int64_t height, std::int64_t blocks)
      : ops(operations), experts(count), rows(height) {
    const auto& info = *find_format(format);
    cols = blocks * info.layout.elements;
    stride = info.row_bytes(cols) + 3;
    expert_stride = rows * stride + 5;
    act_stride = cols + 7;
    rng g(static_cast<unsigned>(format * 131 + rows * 17 + cols));
    weights.assign(1, std::byte{});
    for (std::int64_t e = 0; e < experts; ++e) {
      visit_format(format, [&]<class F>() {
        const auto one = random_rows<F>(g, rows, cols, stride);
        weights.insert(weights.end(), one.begin(), one.end());
      });
      weights.resize(static_cast<std::size_t>(1 + (e + 1) * expert_stride));
    }
    x = gaussian(g, static_cast<std::size_t>(most * act_stride));
  }

  const std::byte* expert(std::int64_t e) const { return weights.data() + 1 + e * expert_stride; }
  mul_mat_args args(std::int64_t n, float* out, std::int64_t out_stride) const {
    return {expert(0), rows, cols, stride, x.data(), n, act_stride, out, out_stride};
  }
  std::vector<float> plain(std::int64_t n) const {
    std::vector<float> out(static_cast<std::size_t>(n * rows), NAN);
    const mul_mat_args a = args(n, out.data(), rows);
    std::vector<std::byte> workspace(ops.mul_mat_workspace(a, activation::q8));
    serial_executor serial;
    EXPECT_EQ(ops.mul_mat(a, activation::q8, serial, workspace), status::ok);
    return out;
  }
  /// Products of expert `e` alone, which is packed for it, with the first n columns.
  std::vector<float> packed(std::int64_t e, std::int64_t n, int workers) const {
    thread_pool pool(workers);
    poisoned_memory memory(ops.packed_bytes(rows, cols));
    packed_weights w;
    EXPECT_EQ(ops.pack({expert(e), 1, rows, cols, stride, 0}, memory.span(), pool, w), status::ok);
    EXPECT_TRUE(memory.guard_is_whole());
    const std::int64_t out_stride = rows + 2;
    std::vector<float> out(static_cast<std::size_t>(n * out_stride), NAN), results;
    mul_mat_args a = args(n, out.data(), out_stride);
    a.weights = nullptr;
    poisoned_memory workspace(ops.packed_mul_mat_workspace(w, a));
    EXPECT_EQ(ops.packed_mul_mat(w, a, pool, workspace.span()), status::ok);
    EXPECT_TRUE(workspace.guard_is_whole());
    for (std::int64_t t = 0; t < n; ++t) {
      const auto column = out.begin() + t * out_stride;
      results.insert(results.end(), column, column + rows);
      EXPECT_TRUE(std::isnan(column[rows]) && std::isnan(column[rows + 1])) << "wrote past the rows";
    }
    return results;
  }
};

inline bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() <= b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
}

/// Columns of mul_mat with 64 of them, which go through panels, are those that packed weights give, however
/// many at a time and on any number of threads.
inline void check_packed(std::uint32_t format, const runtime::format_ops& ops) {
  for (const auto& [rows, blocks] : {std::pair{1, 1}, {33, 3}, {131, 1}, {16, 17}}) {
    const packed_problem p(format, ops, 1, rows, blocks);
    const auto want = p.plain(packed_problem::most);
    int workers = 1;
    for (const std::int64_t n : {1, 2, 3, 4, 5, 8, 17, 64}) {
      EXPECT_TRUE(same_bits(p.packed(0, n, workers), want))
          << n << " columns, " << rows << " rows, " << blocks << " blocks, " << workers << " workers";
      workers = workers % 3 + 1;
    }
  }
}

}  // namespace quantal::test
