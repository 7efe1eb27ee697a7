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

/// The same for quantizers, which have units of their own and are defined in quantizers.hpp.
inline constexpr std::size_t quantizer_parts = 3;
template <class A, std::size_t P>
void add_quantizers(quantizer_table& table) noexcept;

}  // namespace quantal::runtime
