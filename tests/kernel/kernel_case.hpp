// Tests run over format x arch x policy, by name, through the run-time table: what users call.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "quantal/reference/mul_mat.hpp"
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
      for (const auto policy : {activation::exact, activation::q8}) cases.push_back({f.gguf_id, arch, policy});
  return cases;
}

/// Bounds of kernel/args.hpp: exact 1e-6 relative norm; q8 normalised MSE 5e-5, its square root as a norm.
inline double tolerance(const kernel_case& c) {
  return c.policy == activation::exact || find_format(c.format)->is_float ? 1e-6 : std::sqrt(5e-5);
}

/// Skips with a reason where this machine lacks the arch.
#define QUANTAL_REQUIRE_ARCH(dispatcher_variable, arch)                            \
  const auto dispatcher_variable = runtime::dispatcher::named(arch);               \
  if (!dispatcher_variable) GTEST_SKIP() << "this machine does not run " << (arch)

}  // namespace quantal::test
