// Can this machine run an arch's variant? Asked of the machine itself: compilers do not all know the names of
// all features.
#pragma once

#include "quantal/simd/arch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#elif defined(__aarch64__) && defined(__linux__)
#include <sys/auxv.h>
#endif

namespace quantal::runtime {

namespace detail {

/// Where a feature is looked up.
enum class cpu_word { cpuid_1_ecx, cpuid_7_ebx, cpuid_7_ecx, cpuid_7_1_eax, hwcap, hwcap2 };

#if defined(__x86_64__)
struct cpuid_registers {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
};
/// Zeros for a leaf that the processor lacks.
QUANTAL_INLINE cpuid_registers cpuid(unsigned leaf, unsigned sub) noexcept {
  cpuid_registers r;
  __get_cpuid_count(leaf, sub, &r.eax, &r.ebx, &r.ecx, &r.edx);
  return r;
}
/// The registers that the operating system saves (XCR0); 0 where it does not say.
QUANTAL_INLINE unsigned saved_registers() noexcept {
  constexpr unsigned osxsave = 1u << 27;
  if (!(cpuid(1, 0).ecx & osxsave)) return 0;
  unsigned low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return low;
}
#endif

/// The words of features, in the order of cpu_word, and which registers the operating system saves.
struct cpu_state {
  unsigned long words[6] = {};
  bool ymm = false, zmm = false;
};
QUANTAL_INLINE cpu_state read_cpu() noexcept {
  cpu_state s;
#if defined(__x86_64__)
  const cpuid_registers first = cpuid(1, 0), seventh = cpuid(7, 0);
  s = {{first.ecx, seventh.ebx, seventh.ecx, seventh.eax >= 1 ? cpuid(7, 1).eax : 0}};
  const unsigned saved = saved_registers();
  s.ymm = (saved & 0x06) == 0x06, s.zmm = (saved & 0xe6) == 0xe6;  // zmm is of no use without its masks
#elif defined(__aarch64__) && defined(__linux__)
  s = {{0, 0, 0, 0, getauxval(AT_HWCAP), getauxval(AT_HWCAP2)}, true, true};
#elif defined(__aarch64__)
  s = {{0, 0, 0, 0, ~0ul, 0}, true, true};  // Apple's have dot products
#endif
  return s;
}

/// Does the machine have the feature, and does its operating system save the registers?
QUANTAL_INLINE bool cpu_has(simd::feature f) noexcept {
  static const cpu_state cpu = read_cpu();
  const auto look = [](std::string_view name, cpu_word word, int bit) QUANTAL_LAMBDA {
    return (cpu.words[static_cast<int>(word)] >> bit & 1u) &&
           (name.starts_with("avx512") ? cpu.zmm : cpu.ymm);
  };
  switch (f) {
#define QUANTAL_FEATURE(name, macro, word, bit) \
  case simd::feature::name:                     \
    return look(#name, cpu_word::word, bit);
    QUANTAL_CPU_FEATURES(QUANTAL_FEATURE)
#undef QUANTAL_FEATURE
  }
  return false;
}
template <class... Features>
QUANTAL_INLINE bool cpu_has_all([[maybe_unused]] Features... f) noexcept {
  return (cpu_has(f) && ...);
}

}  // namespace detail

/// Does this machine run code compiled for arch A?
template <class A>
bool cpu_supports() noexcept;

#define QUANTAL_ARCH(arch, base, family, builds, quantizers, takes_u8, features, flags) \
  template <>                                                                           \
  inline bool cpu_supports<simd::arch>() noexcept {                                     \
    using enum simd::feature;                                                           \
    return detail::cpu_has_all features;                                                \
  }
QUANTAL_ARCHS(QUANTAL_ARCH)
#undef QUANTAL_ARCH

}  // namespace quantal::runtime
