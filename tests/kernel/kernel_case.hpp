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

inline std::vector<kernel_case> all_kernel_cases() {
  std::vector<kernel_case> cases;
  for (const auto& f : format_table)
    for (const auto arch : runtime::dispatcher::compiled())
      for (const auto policy : {activation::exact, activation::q8})
        cases.push_back({f.gguf_id, arch, policy});
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

#define QUANTAL_REQUIRE_ARCH(dispatcher_variable, arch)              \
  const auto dispatcher_variable = runtime::dispatcher::named(arch); \
  if (!dispatcher_variable) GTEST_SKIP() << "this machine does not run " << (arch)

}  // namespace quantal::test
