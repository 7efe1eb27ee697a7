// IEEE binary16 and bfloat16 as plain bits, converted without hardware so that host, device and every arch
// agree and constant evaluation works. Kernels that convert many halves use the arch's own instruction.
#pragma once

#include <cstdint>

#include "quantal/config.hpp"
#include "quantal/format/detail/bytes.hpp"

namespace quantal::detail {

QUANTAL_HD constexpr float float_from_bits(std::uint32_t u) noexcept { return __builtin_bit_cast(float, u); }
QUANTAL_HD constexpr std::uint32_t bits_from_float(float f) noexcept {
  return __builtin_bit_cast(std::uint32_t, f);
}

/// Exact; subnormals and infinities included.
QUANTAL_HD constexpr float half_to_float(std::uint16_t h) noexcept {
#if defined(__CUDA_ARCH__)
  if (!__builtin_is_constant_evaluated()) {
    float f;
    asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h));
    return f;
  }
#endif
  const std::uint32_t sign = static_cast<std::uint32_t>(h & 0x8000u) << 16;
  const std::uint32_t magnitude = h & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_from_bits(sign | 0x7f800000u | (magnitude & 0x3ffu) << 13);
  // A subnormal half counts in units of 2^-24, the last place of 0.5. No float here is subnormal: hosts may
  // have set those to count as zero.
  const float value = magnitude < 0x400u ? float_from_bits(0x3f000000u + magnitude) - 0.5f
                                         : float_from_bits(0x38000000u + (magnitude << 13));
  return float_from_bits(sign | bits_from_float(value));
}

/// Round to nearest even; overflow goes to infinity, NaN stays NaN.
QUANTAL_HD constexpr std::uint16_t float_to_half(float f) noexcept {
  const std::uint32_t u = bits_from_float(f);
  const std::uint32_t sign = (u >> 16) & 0x8000u;
  const std::uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
  if (a >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // 65520 and above
  if (a < 0x38800000u) {
    // Below 2^-14 the half is subnormal: adding 0.5 aligns the mantissa so that the FPU does the rounding.
    const float aligned = float_from_bits(a) + 0.5f;
    return static_cast<std::uint16_t>(sign | (bits_from_float(aligned) - 0x3f000000u));
  }
  const std::uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u);
  return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

/// binary16 field of a block.
struct half_bits {
  le_u16 raw;
  QUANTAL_HD constexpr float get() const noexcept { return half_to_float(raw.get()); }
  QUANTAL_HD constexpr void set(float f) noexcept { raw.set(float_to_half(f)); }
};

/// binary32 field of a block or row.
struct float_field {
  le_u32 raw;
  QUANTAL_HD constexpr float get() const noexcept { return float_from_bits(raw.get()); }
  QUANTAL_HD constexpr void set(float f) noexcept { raw.set(bits_from_float(f)); }
};

QUANTAL_HD constexpr float bfloat16_to_float(std::uint16_t b) noexcept {
  return float_from_bits(static_cast<std::uint32_t>(b) << 16);
}
/// Round to nearest even; a NaN keeps its upper bits and is made quiet (formats.md section 3).
QUANTAL_HD constexpr std::uint16_t float_to_bfloat16(float f) noexcept {
  const std::uint32_t u = bits_from_float(f);
  if ((u & 0x7fffffffu) > 0x7f800000u) return static_cast<std::uint16_t>((u >> 16) | 64u);
  return static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
}

}  // namespace quantal::detail
