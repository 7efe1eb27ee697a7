// Tests run over format x arch x policy, by name, through the run-time table: what users call.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "quantal/kernel/q8_activations.hpp"
#include "quantal/reference/mul_mat.hpp"
#include "quantal/reference/q8.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {

struct kernel_case {
  std::uint32_t format;
  std::string_view arch;
  activation policy;
};

inline std::string name_of(const testing::TestParamInfo<kernel_case>& info) {
  const auto& c = info.param;
  return std::string(find_format(c.format)->name) + "_" + std::string(c.arch) +
         (c.policy == activation::q8 ? "_q8" : "_exact");
}

/// Of the archs that this machine runs.
inline std::vector<kernel_case> all_kernel_cases() {
  std::vector<kernel_case> cases;
  for (const auto& f : format_table)
    for (const auto arch : runtime::dispatcher::compiled())
      for (const auto policy : {activation::exact, activation::q8})
        if (runtime::dispatcher::named(arch)) cases.push_back({f.gguf_id, arch, policy});
  return cases;
}

/// Bounds of kernel/args.hpp: exact 1e-6 relative norm; q8 normalised MSE 5e-5, its square root as a norm.
inline bool rounds_activations(const kernel_case& c) {
  return c.policy == activation::q8 && !find_format(c.format)->is_float;
}

/// Are activations rounded to bfloat16 where `n` of them meet one matrix?
inline bool rounds_to_bf16(const kernel_case& c, std::int64_t n) {
#if defined(__x86_64__)
  return find_format(c.format)->name == "bf16" && c.policy == activation::q8 && c.arch == "avx512_vnni" &&
         n >= 6 && __builtin_cpu_supports("avx512bf16");
#else
  return (void)c, (void)n, false;
#endif
}

/// Activation vectors as the policy sees them: rounded for q8, in `count` vectors of `cols` values `stride`
/// apart.
inline std::vector<float> seen_by(const kernel_case& c, std::vector<float> x, std::int64_t count,
                                  std::int64_t stride, std::int64_t cols) {
  if (rounds_to_bf16(c, count))
    for (float& v : x) v = bf16::value(bf16::from_float(v));
  if (!rounds_activations(c)) return x;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto from = x.begin() + i * stride;
    const auto rounded = reference::round_activations({from, from + cols}, kernel::q8_block);
    std::copy(rounded.begin(), rounded.end(), from);
  }
  return x;
}

/// |got - want| over the larger of |want| and what independent weights and activations would give: the few
/// results of a small product may cancel to almost nothing, and their error does not shrink with them.
inline double error_of(std::uint32_t format, const std::vector<float>& got, const mul_mat_args& a) {
  const std::vector<double> want = reference::mul_mat(format, a);
  double error = 0, norm = 0, weights = 0, activations = 0;
  for (std::size_t i = 0; i < want.size(); ++i)
    error += (got[i] - want[i]) * (got[i] - want[i]), norm += want[i] * want[i];
  std::vector<float> row(static_cast<std::size_t>(a.cols));
  for (std::int64_t r = 0; r < a.rows; ++r) {
    EXPECT_EQ(dequantize_row(format, a.weights + r * a.weight_row_stride, row.data(), a.cols), status::ok);
    for (const float w : row) weights += double{w} * w;
  }
  for (std::int64_t t = 0; t < a.n; ++t)
    for (std::int64_t k = 0; k < a.cols; ++k) {
      const double x = a.activations[t * a.activation_stride + k];
      activations += x * x;
    }
  return std::sqrt(error / std::max(norm, weights * activations / static_cast<double>(a.cols)));
}

/// Relative error of float32 arithmetic, given the activations as the policy sees them.
inline constexpr double arithmetic_tolerance = 1e-6;

/// Rows, blocks per row, columns.
struct product_shape {
  std::int64_t rows, blocks, n;
};

/// Every tail: of rows, of columns, of a slice.
inline constexpr product_shape ragged_shapes[] = {{1, 1, 1},   {3, 3, 2},   {33, 2, 3},  {16, 4, 5},
                                                  {35, 3, 17}, {19, 8, 14}, {70, 2, 64}, {40, 1, 7}};

/// mul_mat on fresh random data against float64; rows and vectors are padded, weights misaligned.
inline void check_mul_mat(const kernel_case& c, const runtime::format_ops& ops, const product_shape& s) {
  const auto& info = *find_format(c.format);
  rng g(static_cast<unsigned>(c.format * 131 + s.rows * 17 + s.n));
  // Float formats have no block: an odd length exercises their ragged end.
  const std::int64_t cols = info.is_float ? s.blocks * 37 : s.blocks * info.layout.elements;
  const std::int64_t stride = info.row_bytes(cols) + 3, act_stride = cols + 5, out_stride = s.rows + 2;
  std::vector<std::byte> weights;
  visit_format(c.format, [&]<class F>() { weights = random_rows<F>(g, s.rows, cols, stride, 1); });
  const auto x = gaussian(g, static_cast<std::size_t>(s.n * act_stride));
  std::vector<float> out(static_cast<std::size_t>(s.n * out_stride), NAN);

  const mul_mat_args a{weights.data() + 1, s.rows,     cols,      stride, x.data(), s.n,
                       act_stride,         out.data(), out_stride};
  std::vector<std::byte> workspace(ops.mul_mat_workspace(a, c.policy));
  serial_executor serial;
  ASSERT_EQ(ops.mul_mat(a, c.policy, serial, workspace), status::ok);

  std::vector<float> packed;
  for (std::int64_t t = 0; t < s.n; ++t) {
    packed.insert(packed.end(), out.begin() + t * out_stride, out.begin() + t * out_stride + s.rows);
    for (std::int64_t r = s.rows; r < out_stride; ++r)
      EXPECT_TRUE(std::isnan(out[static_cast<std::size_t>(t * out_stride + r)])) << "wrote past the rows";
  }
  const auto seen = seen_by(c, x, s.n, act_stride, cols);
  auto exact = a;
  exact.activations = seen.data();
  EXPECT_LT(error_of(c.format, packed, exact), arithmetic_tolerance)
      << "rows " << s.rows << " cols " << cols << " n " << s.n;
}

#define QUANTAL_REQUIRE_ARCH(dispatcher_variable, arch)              \
  const auto dispatcher_variable = runtime::dispatcher::named(arch); \
  if (!dispatcher_variable) GTEST_SKIP() << "this machine does not run " << (arch)

}  // namespace quantal::test
