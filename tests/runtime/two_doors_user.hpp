// What a program's own unit offers: the products and quantizers of one arch, through the headers.
#pragma once

#include "quantal/runtime/ops.hpp"

namespace quantal::test {

/// Calls the headers' templates for simd::avx2 from a unit whose compiler was allowed more than AVX2.
status user_mul_mat(const mul_mat_args& a, activation policy, executor_ref executor,
                    std::span<std::byte> workspace) noexcept;
status user_quantize_row(const float* x, std::byte* out, std::int64_t cols) noexcept;
bool user_supports() noexcept;

}  // namespace quantal::test
