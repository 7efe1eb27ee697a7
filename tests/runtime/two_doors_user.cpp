// Compiled for AVX-512: whatever it instantiates for simd::avx2 may hold AVX-512 instructions.
#include "two_doors_user.hpp"

#include "quantal/kernel/mul_mat_id.hpp"
#include "quantal/kernel/pack.hpp"
#include "quantal/runtime/cpu.hpp"
#include "quantal/runtime/quantizers.hpp"
#include "quantal/runtime/variant.hpp"

namespace quantal::test {

status user_mul_mat(const mul_mat_args& a, activation policy, executor_ref executor,
                    std::span<std::byte> workspace) noexcept {
  return mul_mat<q4_K, simd::avx2>(a, policy, executor, workspace);
}
status user_quantize_row(const float* x, std::byte* out, std::int64_t cols) noexcept {
  return quantize_row<q4_K, quantize_policy{}, simd::avx2>(x, nullptr, out, cols);
}

extern const runtime::format_ops user_ops;
const runtime::format_ops user_ops = runtime::make_ops<q4_K, simd::avx2>;
bool user_supports() noexcept { return runtime::cpu_supports<simd::avx2>(); }

}  // namespace quantal::test
