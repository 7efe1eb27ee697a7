// How the variants' translation units and the dispatcher meet.
#pragma once

#include "quantal/runtime/ops.hpp"
#include "quantal/simd/arch.hpp"

namespace quantal::runtime {

/// Every arch is spread over this many translation units: format i is in part i % variant_parts.
inline constexpr std::size_t variant_parts = 2;

/// Puts the operations of part P on arch A into their places of the table. Defined in variant.hpp, which only
/// the units compiled for A include; called by the dispatcher.
template <class A, std::size_t P>
void add_part(ops_table& table) noexcept;

/// The arch whose quantizers a variant uses: a faster dot product alone is not worth another set of them.
template <class A>
struct quantizer_arch {
  using type = A;
};
template <>
struct quantizer_arch<simd::avx2_vnni> {
  using type = simd::avx2;
};
template <>
struct quantizer_arch<simd::neon64_i8mm> {
  using type = simd::neon64;
};
template <>
struct quantizer_arch<simd::neon64_dotprod> {
  using type = simd::neon64;
};
#if XSIMD_WITH_NEON64
template <>
struct quantizer_arch<simd::scalar> {  // whose lanes are those of the baseline
  using type = simd::neon64;
};
#endif

/// The same for quantizers, which have units of their own and are defined in quantizers.hpp.
inline constexpr std::size_t quantizer_parts = 3;
template <class A, std::size_t P>
void add_quantizers(quantizer_table& table) noexcept;

}  // namespace quantal::runtime
