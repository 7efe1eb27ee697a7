// Reading the bytes of a weight row at any alignment, on host and device.
#pragma once

#include <cstdint>
#include <cstring>

#include "quantal/format.hpp"

namespace quantal::cuda {

/// The four bytes that the low four nibbles of `selector` (each 0..7) pick from the eight bytes b:a. One
/// instruction.
QUANTAL_HD std::uint32_t byte_permute(std::uint32_t a, std::uint32_t b, std::uint32_t selector) noexcept {
#if defined(__CUDA_ARCH__)
  return __byte_perm(a, b, selector);
#else
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i)
    out |= static_cast<std::uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255) << (8 * i);
  return out;
#endif
}

/// Bits shift..shift + 31 of high:low, shift in 0..31.
QUANTAL_HD std::uint32_t funnel_shift(std::uint32_t low, std::uint32_t high, int shift) noexcept {
#if defined(__CUDA_ARCH__)
  return __funnelshift_r(low, high, shift);
#else
  return static_cast<std::uint32_t>((static_cast<std::uint64_t>(high) << 32 | low) >> shift);
#endif
}

struct word_pair {
  std::uint32_t low, high;
};

/// The bytes of 256 consecutive weights of a row in memory that is read by aligned words. The first byte lies
/// `skew` bytes behind `words`; Align is what is known of its address (1, 2, 4, 8 or 16; skew is 0 from 4
/// on). Reads of words may touch up to seven bytes behind the last one asked for.
///
/// Offsets are split in a constant and a run-time part, so that the shifts of a known alignment fold away.
template <int Align>
struct group_bytes {
  static constexpr int alignment = Align;
  const std::uint32_t* words;
  int skew;

  QUANTAL_HD const std::uint8_t* bytes() const noexcept {
    return reinterpret_cast<const std::uint8_t*>(words) + (Align >= 4 ? 0 : skew);
  }
  template <format F>
  QUANTAL_HD const typename F::block& block(int i) const noexcept {
    return *reinterpret_cast<const typename F::block*>(bytes() + i * F::layout.bytes);
  }

  QUANTAL_HD std::uint32_t u8(int offset) const noexcept { return bytes()[offset]; }
  /// Constant and total offset must be even where the format's fields are.
  template <int Offset>
  QUANTAL_HD std::uint32_t u16(int dynamic = 0) const noexcept {
    const std::uint8_t* p = bytes() + Offset + dynamic;
    if constexpr (Align >= 2 && Offset % 2 == 0)
      return *reinterpret_cast<const std::uint16_t*>(p);
    else
      return p[0] | static_cast<std::uint32_t>(p[1]) << 8;
  }
  /// Four bytes at Offset + dynamic; dynamic is a multiple of 4.
  template <int Offset>
  QUANTAL_HD std::uint32_t u32(int dynamic = 0) const noexcept {
    const at a = locate<Offset>(dynamic);
    if constexpr (Align >= 4 && Offset % 4 == 0)
      return a.p[0];
    else
      return funnel_shift(a.p[0], a.p[1], a.shift);
  }
  /// Eight bytes at Offset + dynamic; dynamic is a multiple of 8.
  template <int Offset>
  QUANTAL_HD word_pair u64(int dynamic = 0) const noexcept {
    const at a = locate<Offset>(dynamic);
    if constexpr (Align >= 8 && Offset % 8 == 0) {
      const std::uint64_t v = *reinterpret_cast<const std::uint64_t*>(a.p);
      return {static_cast<std::uint32_t>(v), static_cast<std::uint32_t>(v >> 32)};
    } else if constexpr (Align >= 4 && Offset % 4 == 0) {
      return {a.p[0], a.p[1]};
    } else {
      const std::uint32_t middle = a.p[1];
      return {funnel_shift(a.p[0], middle, a.shift), funnel_shift(middle, a.p[2], a.shift)};
    }
  }

 private:
  struct at {
    const std::uint32_t* p;
    int shift;
  };
  template <int Offset>
  QUANTAL_HD at locate(int dynamic) const noexcept {
    if constexpr (Align >= 4) return {words + Offset / 4 + dynamic / 4, 8 * (Offset % 4)};
    const int first = skew + Offset % 4;
    return {words + Offset / 4 + dynamic / 4 + first / 4, 8 * (first % 4)};
  }
};

}  // namespace quantal::cuda
