// Arch policies: xsimd tags, so that kernels written for a tag serve every arch that derives from it.
// A translation unit compiled for one arch names only that arch's batches; baseline code may name every tag.
#pragma once

#ifndef XSIMD_WITH_EMULATED
#define XSIMD_WITH_EMULATED 1
#endif
#include <string_view>
#include <xsimd/xsimd.hpp>

#include "quantal/config.hpp"

namespace quantal::simd {

/// Plain C++ on 128-bit emulated batches: correct everywhere, and the reference for every other arch.
using scalar = xsimd::emulated<128>;
using avx2 = xsimd::fma3<xsimd::avx2>;
using avx512 = xsimd::avx512bw;
/// avx2 with the 256-bit int8 dot product, AVX-VNNI. xsimd's tag for it lacks fused multiply-add; deriving
/// keeps every avx2 kernel.
struct avx2_vnni : xsimd::fma3<xsimd::avx2> {
  static constexpr const char* name() noexcept { return "avxvnni+fma3+avx2"; }
};
#if XSIMD_WITH_AVX2 && (defined(__AVXVNNI__) || (defined(__AVX512VNNI__) && defined(__AVX512VL__)))
#define QUANTAL_WITH_AVX2_VNNI 1
#else
#define QUANTAL_WITH_AVX2_VNNI 0
#endif
#if XSIMD_VERSION_MAJOR >= 14
using avx512_vnni = xsimd::avx512vnni<xsimd::avx512vbmi2>;
#define QUANTAL_WITH_AVX512_VNNI XSIMD_WITH_AVX512VNNI_AVX512VBMI2
#else
using avx512_vnni = xsimd::avx512vnni<xsimd::avx512vbmi>;
#define QUANTAL_WITH_AVX512_VNNI XSIMD_WITH_AVX512VNNI_AVX512VBMI
#endif
using neon64 = xsimd::neon64;

/// neon64 with the int8 dot product of ARMv8.2. xsimd has no tag for it; deriving keeps every neon64 kernel.
struct neon64_dotprod : xsimd::neon64 {
  static constexpr const char* name() noexcept { return "dotprod+neon64"; }
};
/// The same with the int8 matrix product of ARMv8.6: two rows by two columns, eight products each.
struct neon64_i8mm : neon64_dotprod {
  static constexpr const char* name() noexcept { return "i8mm+dotprod+neon64"; }
};

/// The tag that every arch derives from: overloads that end in it are the fallback for all.
#if XSIMD_VERSION_MAJOR >= 14
using base = xsimd::common;
#else
using base = xsimd::generic;
#endif

/// Name used by the dispatcher, tests and benches.
template <class A>
inline constexpr std::string_view arch_name = A::name();
template <>
inline constexpr std::string_view arch_name<scalar> = "scalar";
template <>
inline constexpr std::string_view arch_name<avx2> = "avx2";
template <>
inline constexpr std::string_view arch_name<avx2_vnni> = "avx2_vnni";
template <>
inline constexpr std::string_view arch_name<avx512> = "avx512";
template <>
inline constexpr std::string_view arch_name<avx512_vnni> = "avx512_vnni";
template <>
inline constexpr std::string_view arch_name<neon64> = "neon64";
template <>
inline constexpr std::string_view arch_name<neon64_dotprod> = "neon64_dotprod";
template <>
inline constexpr std::string_view arch_name<neon64_i8mm> = "neon64_i8mm";

/// Tag argument for overloads that xsimd lacks. Ours, so that lookup at instantiation finds overloads
/// declared after their caller; derives from A, so that overload resolution prefers the nearest arch.
template <class A>
struct on : A {};

}  // namespace quantal::simd

#if XSIMD_WITH_FMA3_AVX2
namespace xsimd::types {
XSIMD_DECLARE_SIMD_REGISTER_ALIAS(quantal::simd::avx2_vnni, ::xsimd::avx2);
}
#endif
#if XSIMD_WITH_NEON64
namespace xsimd::types {
XSIMD_DECLARE_SIMD_REGISTER_ALIAS(quantal::simd::neon64_dotprod, ::xsimd::neon64);
XSIMD_DECLARE_SIMD_REGISTER_ALIAS(quantal::simd::neon64_i8mm, ::xsimd::neon64);
template <class T>
struct get_bool_simd_register<T, quantal::simd::neon64_dotprod>
    : detail::neon_bool_simd_register<T, quantal::simd::neon64_dotprod> {};
template <class T>
struct get_bool_simd_register<T, quantal::simd::neon64_i8mm>
    : detail::neon_bool_simd_register<T, quantal::simd::neon64_i8mm> {};
}  // namespace xsimd::types
#endif
