// Kernels of avx2_vnni in a unit of their own, with the encoding of AVX-512 VNNI: machines that have it can
// test the code that machines with AVX-VNNI run.
#pragma once

#include "quantal/runtime/ops.hpp"

namespace quantal::test {

/// One or more formats of every form of panel.
inline constexpr std::string_view avx2_vnni_formats[] = {"q4_0", "q8_0",    "q4_K",  "q2_K",
                                                         "q6_K", "iq2_xxs", "iq2_bn"};

/// Null for other formats.
const runtime::format_ops* avx2_vnni_ops(std::string_view format) noexcept;

/// An arch that derives from avx2_vnni, and that quantal::runtime has only where it is named: some of these
/// formats.
const runtime::format_ops* avx512vl_vnni_ops(std::string_view format) noexcept;

}  // namespace quantal::test
