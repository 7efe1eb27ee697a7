// Can this machine run an arch's variant? Asked of the compiler's run-time feature tables, which include the
// operating system's register-saving support.
#pragma once

#include "quantal/simd/arch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace quantal::runtime {

template <class A>
bool cpu_supports() noexcept;

template <>
inline bool cpu_supports<simd::scalar>() noexcept { return true; }

#if defined(__x86_64__)
/// Not by __builtin_cpu_supports: clang 14 does not know the name.
inline bool cpu_has_f16c() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid(1, &a, &b, &c, &d) && (c >> 29 & 1u);
}

template <>
inline bool cpu_supports<simd::avx2>() noexcept {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && cpu_has_f16c();
}
/// Leaf 7.1; not by __builtin_cpu_supports either.
inline bool cpu_has_avx_vnni() noexcept {
  unsigned a = 0, b = 0, c = 0, d = 0;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a >> 4 & 1u);
}
template <>
inline bool cpu_supports<simd::avx2_vnni>() noexcept { return cpu_supports<simd::avx2>() && cpu_has_avx_vnni(); }
template <>
inline bool cpu_supports<simd::avx512>() noexcept {
  return cpu_supports<simd::avx2>() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
template <>
inline bool cpu_supports<simd::avx512_vnni>() noexcept {
  return cpu_supports<simd::avx512>() && __builtin_cpu_supports("avx512vnni") &&
         __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vbmi2") &&
         __builtin_cpu_supports("avx512ifma");
}
#elif defined(__aarch64__)
template <>
inline bool cpu_supports<simd::neon64>() noexcept { return true; }
template <>
inline bool cpu_supports<simd::neon64_dotprod>() noexcept {
#if defined(__linux__)
  return (getauxval(AT_HWCAP) & (1ul << 20)) != 0;  // HWCAP_ASIMDDP
#else
  return true;
#endif
}
template <>
inline bool cpu_supports<simd::neon64_i8mm>() noexcept {
#if defined(__linux__)
  return cpu_supports<simd::neon64_dotprod>() && (getauxval(AT_HWCAP2) & (1ul << 13)) != 0;  // HWCAP2_I8MM
#else
  return false;
#endif
}
#endif

}  // namespace quantal::runtime
