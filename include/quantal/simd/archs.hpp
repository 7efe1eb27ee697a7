// The archs, one row each. The tags of arch.hpp, the detection of runtime/cpu.hpp, and the flags and lists of
// cmake/archs.cmake are made of these rows.
#pragma once

#include "quantal/config.hpp"

// 1 where the argument is a macro that is defined as 1, else 0; for conditions of the preprocessor and for expressions.
#define QUANTAL_HAS(macro) QUANTAL_HAS_EXPANDED(macro)
#define QUANTAL_HAS_EXPANDED(value) QUANTAL_HAS_EITHER(QUANTAL_HAS_COMMA_##value)
#define QUANTAL_HAS_EITHER(comma_or_not) QUANTAL_HAS_SECOND(comma_or_not 1, 0, 0)
#define QUANTAL_HAS_COMMA_1 0,
#define QUANTAL_HAS_SECOND(ignored, value, ...) value

// clang-format off
// ROW(name, base, family, builds, quantizers, takes_u8, features, flags), a base before what derives from it, and of
// each family the best last. CMake reads the rows too: no comments in them, and no quotes but those of the flags.
// - base: the arch whose kernels it keeps, or xsimd's whose registers it has.
// - family: any, x86 or arm.
// - builds: `all` is in quantal::runtime by itself; `named` only where the option QUANTAL_ARCHS names it.
// - quantizers: whose quantizers quantal::runtime uses. A faster dot product alone is not worth another set of them.
//   `baseline` is the arch that every machine of the family runs.
// - takes_u8: does its short int8 dot product take any unsigned byte?
// - features: what a machine must have, and what `flags` tell a compiler.
#define QUANTAL_ARCHS(ROW) \
  ROW(scalar, detail::plain_registers, any, all, baseline, true, (), "") \
  ROW(neon64, xsimd::neon64, arm, all, neon64, false, (asimd), "") \
  ROW(neon64_dotprod, neon64, arm, all, neon64, false, (asimd, dotprod), "-march=armv8.2-a+dotprod") \
  ROW(neon64_i8mm, neon64_dotprod, arm, all, neon64, true, (asimd, dotprod, i8mm), "-march=armv8.2-a+dotprod+i8mm") \
  ROW(avx2, xsimd::fma3<xsimd::avx2>, x86, all, avx2, false, (avx2, fma, f16c), "-mavx2 -mfma -mf16c") \
  ROW(avx2_vnni, avx2, x86, all, avx2, true, (avx2, fma, f16c, avxvnni), "-mavx2 -mfma -mf16c -mavxvnni") \
  ROW(avx512, xsimd::avx512bw, x86, all, avx512, false, \
      (avx2, fma, f16c, avx512f, avx512bw, avx512cd, avx512dq, avx512vl), \
      "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mprefer-vector-width=512") \
  ROW(avx512vl_vnni, avx2_vnni, x86, named, avx2, true, \
      (avx2, fma, f16c, avx512f, avx512bw, avx512cd, avx512dq, avx512vl, avx512vnni), \
      "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mavx512vnni " \
      "-mprefer-vector-width=256") \
  ROW(avx512_vnni, avx512, x86, all, avx512_vnni, true, \
      (avx2, fma, f16c, avx512f, avx512bw, avx512cd, avx512dq, avx512vl, avx512ifma, avx512vbmi, avx512vbmi2, \
       avx512vnni), \
      "-mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512cd -mavx512dq -mavx512vl -mprefer-vector-width=512 " \
      "-mavx512ifma -mavx512vbmi -mavx512vbmi2 -mavx512vnni")
// clang-format on

// FEATURE(name, macro of compilers, word, bit): where a machine says that it has it.
#define QUANTAL_CPU_FEATURES(FEATURE)                   \
  FEATURE(fma, __FMA__, cpuid_1_ecx, 12)                \
  FEATURE(f16c, __F16C__, cpuid_1_ecx, 29)              \
  FEATURE(avx2, __AVX2__, cpuid_7_ebx, 5)               \
  FEATURE(avx512f, __AVX512F__, cpuid_7_ebx, 16)        \
  FEATURE(avx512dq, __AVX512DQ__, cpuid_7_ebx, 17)      \
  FEATURE(avx512ifma, __AVX512IFMA__, cpuid_7_ebx, 21)  \
  FEATURE(avx512cd, __AVX512CD__, cpuid_7_ebx, 28)      \
  FEATURE(avx512bw, __AVX512BW__, cpuid_7_ebx, 30)      \
  FEATURE(avx512vl, __AVX512VL__, cpuid_7_ebx, 31)      \
  FEATURE(avx512vbmi, __AVX512VBMI__, cpuid_7_ecx, 1)   \
  FEATURE(avx512vbmi2, __AVX512VBMI2__, cpuid_7_ecx, 6) \
  FEATURE(avx512vnni, __AVX512VNNI__, cpuid_7_ecx, 11)  \
  FEATURE(avxvnni, __AVXVNNI__, cpuid_7_1_eax, 4)       \
  FEATURE(asimd, __ARM_NEON, hwcap, 1)                  \
  FEATURE(dotprod, __ARM_FEATURE_DOTPROD, hwcap, 20)    \
  FEATURE(i8mm, __ARM_FEATURE_MATMUL_INT8, hwcap2, 13)

// Are there instructions for the dot products of these archs, and of those that derive from them?
#define QUANTAL_WITH_AVX2_VNNI \
  (QUANTAL_HAS(__AVX2__) &&    \
   (QUANTAL_HAS(__AVXVNNI__) || (QUANTAL_HAS(__AVX512VNNI__) && QUANTAL_HAS(__AVX512VL__))))
#define QUANTAL_WITH_AVX512_VNNI \
  (QUANTAL_HAS(__AVX512BW__) && QUANTAL_HAS(__AVX512VBMI__) && QUANTAL_HAS(__AVX512VNNI__))
