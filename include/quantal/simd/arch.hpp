// Arch tags: they derive from xsimd's, so that xsimd's functions and kernels written for a tag serve every
// arch that derives from it. A translation unit compiled for one arch names only that arch's batches;
// baseline code may name every tag.
#pragma once

#include <concepts>
#include <cstddef>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <xsimd/xsimd.hpp>

#include "quantal/simd/archs.hpp"
#include "quantal/simd/as_written.hpp"

// Compilers may use whatever a unit's flags allow, also in code that names a lesser arch, and linkers keep
// one copy of a template whatever it was compiled with. Tags of units with different flags are therefore
// different types. Units that meet by the names of tags give themselves one name: -DQUANTAL_UNIT=name.
#ifndef QUANTAL_UNIT
#define QUANTAL_UNIT                                                                                     \
  QUANTAL_UNIT_NAME(QUANTAL_HAS(__AVX__), QUANTAL_HAS(__AVX2__), QUANTAL_HAS(__FMA__),                   \
                    QUANTAL_HAS(__BMI2__), QUANTAL_HAS(__AVX512F__), QUANTAL_HAS(__AVX512BW__),          \
                    QUANTAL_HAS(__AVX512VL__), QUANTAL_HAS(__AVX512VBMI__), QUANTAL_HAS(__AVX512VNNI__), \
                    QUANTAL_HAS(__AVX512BF16__), QUANTAL_HAS(__AVXVNNI__),                               \
                    QUANTAL_HAS(__ARM_FEATURE_DOTPROD), QUANTAL_HAS(__ARM_FEATURE_MATMUL_INT8),          \
                    QUANTAL_HAS(__ARM_FEATURE_SVE), QUANTAL_HAS(__FAST_MATH__))
#define QUANTAL_UNIT_NAME(...) QUANTAL_UNIT_JOINED(__VA_ARGS__)
#define QUANTAL_UNIT_JOINED(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o) \
  unit_##a##b##c##d##e##f##g##h##i##j##k##l##m##n##o
#endif

namespace quantal::simd {

/// The tag that every arch derives from: overloads that end in it are the fallback for all.
#if XSIMD_VERSION_MAJOR >= 14
using base = xsimd::common;
#else
using base = xsimd::generic;
#endif

/// What a machine may have beyond the baseline of its family.
enum class feature {
#define QUANTAL_FEATURE(name, macro, word, bit) name,
  QUANTAL_CPU_FEATURES(QUANTAL_FEATURE)
#undef QUANTAL_FEATURE
};

inline namespace QUANTAL_UNIT {

/// May this unit's compiler use the feature?
QUANTAL_INLINE constexpr bool is_built(feature f) noexcept {
  switch (f) {
#define QUANTAL_FEATURE(name, macro, word, bit) \
  case feature::name:                           \
    return QUANTAL_HAS(macro);
    QUANTAL_CPU_FEATURES(QUANTAL_FEATURE)
#undef QUANTAL_FEATURE
  }
  return false;
}
template <class... Features>
QUANTAL_INLINE constexpr bool all_built(Features... f) noexcept {
  return (is_built(f) && ...);
}

}  // namespace QUANTAL_UNIT

namespace detail {

/// The registers that every machine of the family has.
#if XSIMD_WITH_NEON64
using plain_registers = xsimd::neon64;
#elif XSIMD_WITH_SSE2
using plain_registers = xsimd::sse2;
#else
#error "quantal's kernels know the vector registers of x86 and of AArch64"
#endif

/// The xsimd tag whose registers an arch has.
template <class A>
struct registers_of {
  using type = A;
};
template <class A>
requires requires { typename A::registers; }
struct registers_of<A> {
  using type = typename A::registers;
};

}  // namespace detail

inline namespace QUANTAL_UNIT {

#define QUANTAL_ARCH(arch, base, family, builds, quantizers, takes_u8, features, flags) struct arch;
QUANTAL_ARCHS(QUANTAL_ARCH)
#undef QUANTAL_ARCH
#if XSIMD_WITH_NEON64
using baseline = neon64;
#else
using baseline = scalar;
#endif

#define QUANTAL_ARCH(arch, base, family, builds, quantizers, takes_u8, features, flags) \
  struct arch : base {                                                                  \
    using registers = typename detail::registers_of<base>::type;                        \
    using quantizer_arch = quantizers;                                                  \
    static constexpr bool dot_takes_u8 = takes_u8;                                      \
    static constexpr const char* name() noexcept { return #arch; }                      \
    static QUANTAL_INLINE constexpr bool is_built() noexcept {                          \
      using enum feature;                                                               \
      return all_built features;                                                        \
    }                                                                                   \
  };
QUANTAL_ARCHS(QUANTAL_ARCH)
#undef QUANTAL_ARCH

}  // namespace QUANTAL_UNIT

namespace detail {

#define QUANTAL_ARCH(arch, base, family, builds, quantizers, takes_u8, features, flags) arch,
using all_archs = std::tuple<QUANTAL_ARCHS(QUANTAL_ARCH) void>;
#undef QUANTAL_ARCH

/// Place of the last of all_archs that this unit's flags allow.
template <class = scalar>
QUANTAL_INLINE constexpr std::size_t last_built() noexcept {
  std::size_t last = 0, i = 0;
#define QUANTAL_ARCH(arch, base, family, builds, quantizers, takes_u8, features, flags) \
  if (arch::is_built()) last = i;                                                       \
  ++i;
  QUANTAL_ARCHS(QUANTAL_ARCH)
#undef QUANTAL_ARCH
  return last;
}

}  // namespace detail

/// The best arch that the flags of this unit allow.
using native = std::tuple_element_t<detail::last_built(), detail::all_archs>;

/// One of the archs above, rather than one of xsimd's.
template <class A>
concept own_arch = std::derived_from<A, base> && requires {
  typename A::registers;
};

/// Name used by the dispatcher, tests and benches.
template <class A>
inline constexpr std::string_view arch_name = A::name();

/// Does the arch's short dot product take any unsigned byte?
template <class A>
inline constexpr bool dot_takes_u8 = false;
template <own_arch A>
inline constexpr bool dot_takes_u8<A> = A::dot_takes_u8;

/// Tag argument for overloads that xsimd lacks. Ours, so that lookup at instantiation finds overloads
/// declared after their caller; derives from A, so that overload resolution prefers the nearest arch.
template <class A>
struct on : A {};

}  // namespace quantal::simd

// An own arch has the registers of xsimd's. Results of its operations are as written, whether the compiler
// may contract a product and a sum or not.
namespace xsimd::types {

template <class T, quantal::simd::own_arch A>
requires has_simd_register<T, typename A::registers>::value struct simd_register<T, A>
    : simd_register<T, typename A::registers> {
  using register_type = typename simd_register<T, typename A::registers>::register_type;
  simd_register() = default;
  QUANTAL_INLINE simd_register(register_type r) noexcept : simd_register<T, typename A::registers>{kept(r)} {}

 private:
  static QUANTAL_INLINE register_type kept(register_type r) noexcept {
    if constexpr (std::is_floating_point_v<T>)
      return quantal::simd::as_written(r);
    else
      return r;
  }
};
template <class T, quantal::simd::own_arch A>
struct has_simd_register<T, A> : has_simd_register<T, typename A::registers> {};
template <class T, quantal::simd::own_arch A>
struct get_bool_simd_register<T, A> : get_bool_simd_register<T, typename A::registers> {};

}  // namespace xsimd::types
