// A program that has included xsimd before, as it is by default.
#include <xsimd/xsimd.hpp>

#include "quantal/kernel/mul_mat.hpp"
#include "quantal/quantize/quantize.hpp"

namespace quantal {
template status mul_mat<q8_0, simd::scalar>(const mul_mat_args&, activation, executor_ref,
                                            std::span<std::byte>) noexcept;
template status quantize_row<q8_0, quantize_policy{}, simd::native>(const float*, const float*, std::byte*,
                                                                    std::int64_t) noexcept;
static_assert(std::same_as<simd::native, simd::scalar> || simd::own_arch<simd::native>);
}  // namespace quantal
