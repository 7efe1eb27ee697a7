// Instantiates every entry point, for warnings.
#include "quantal/kernel/mul_mat_id.hpp"
#include "quantal/kernel/mul_mat_many.hpp"
#include "quantal/kernel/pack.hpp"
#include "quantal/runtime/quantizers.hpp"
#include "quantal/runtime/variant.hpp"

namespace quantal {

using arch = simd::QUANTAL_CHECKED_ARCH;

template status mul_mat_many<q4_K, arch, no_epilogue>(std::span<const weight_matrix>,
                                                      const shared_activations&, activation, executor_ref,
                                                      std::span<std::byte>, const no_epilogue&) noexcept;
template status pack<q4_K, arch>(const pack_args&, std::span<std::byte>, executor_ref,
                                 packed_matrix<q4_K, arch>&) noexcept;
extern const runtime::format_ops checked_ops[];
const runtime::format_ops checked_ops[] = {runtime::make_ops<q4_K, arch>, runtime::make_ops<mxfp4, arch>};
template status quantize_row<q4_K, quantize_policy{}, arch>(const float*, const float*, std::byte*,
                                                            std::int64_t) noexcept;
template status quantize_row<mxfp4, quantize_policy{}, arch>(const float*, const float*, std::byte*,
                                                             std::int64_t) noexcept;
template status quantize_row<iq4_ks, quantize_policy{}, arch>(const float*, const float*, std::byte*,
                                                              std::int64_t) noexcept;

}  // namespace quantal
