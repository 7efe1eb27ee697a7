// Bit and byte arithmetic that decoders share.
#pragma once

#include "quantal/cuda/fragments/basics.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal::cuda::detail {

/// As byte_permute, with selectors 8..15 picking the sign of a byte: 0 or 255. One instruction.
QUANTAL_HD std::uint32_t byte_or_sign(std::uint32_t a, std::uint32_t b, std::uint32_t selector) noexcept {
#if defined(__CUDA_ARCH__)
  std::uint32_t out;
  asm("prmt.b32 %0, %1, %2, %3;" : "=r"(out) : "r"(a), "r"(b), "r"(selector));
  return out;
#else
  const std::uint64_t bytes = static_cast<std::uint64_t>(b) << 32 | a;
  std::uint32_t out = 0;
  for (int i = 0; i < 4; ++i) {
    std::uint32_t byte = static_cast<std::uint32_t>(bytes >> (8 * (selector >> (4 * i) & 7)) & 255);
    if (selector >> (4 * i) & 8) byte = byte & 128 ? 255 : 0;
    out |= byte << (8 * i);
  }
  return out;
#endif
}

/// sum + the dot product of the four bytes of a and of b. One instruction.
QUANTAL_HD std::uint32_t dot_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t sum = 0) noexcept {
#if defined(__CUDA_ARCH__)
  return __dp4a(a, b, sum);
#else
  for (int i = 0; i < 32; i += 8) sum += (a >> i & 255) * (b >> i & 255);
  return sum;
#endif
}

/// float(u - bias) for u < 2^22 and |bias| < 2^22, without the slow conversion instruction.
template <int bias>
QUANTAL_HD float biased_float(std::uint32_t u) noexcept {
  return quantal::detail::float_from_bits(0x4b000000u | u) - static_cast<float>((1 << 23) + bias);
}

/// binary16 in the low or the high half of a word.
QUANTAL_HD float low_half(std::uint32_t w) noexcept {
  return quantal::detail::half_to_float(static_cast<std::uint16_t>(w));
}
QUANTAL_HD float high_half(std::uint32_t w) noexcept { return low_half(w >> 16); }

/// Nibble 2 * i is the low (half = 0) or high (half = 1) nibble of byte i of a, nibble 2 * i + 1 that of b.
template <int half>
QUANTAL_HD std::uint32_t merge_nibbles(std::uint32_t a, std::uint32_t b) noexcept {
  constexpr std::uint32_t low = 0x0f0f0f0fu;
  if constexpr (half == 0) return (a & low) | (b << 4 & ~low);
  return (a >> 4 & low) | (b & ~low);
}

/// x << n, or x >> -n.
template <int n>
QUANTAL_HD std::uint32_t shift_left(std::uint32_t x) noexcept {
  if constexpr (n < 0)
    return x >> -n;
  else
    return x << n;
}

/// From words of which bytes alternate between two fours of weights, the fours.
QUANTAL_HD fragment_codes unmix(const fragment_codes& o) noexcept {
  return {byte_permute(o.low, o.high, 0x6420), byte_permute(o.low, o.high, 0x7531)};
}

/// x rotated left by n bits, which may be negative.
QUANTAL_HD std::uint32_t rotate_left(std::uint32_t x, int n) noexcept { return funnel_shift(x, x, -n & 31); }

/// A word of four equal bytes.
constexpr std::uint32_t every_byte(int byte) noexcept {
  return 0x01010101u * static_cast<std::uint32_t>(byte & 255);
}

/// A load with bits Bit .. Bit + Width - 1 of the group in it: where they begin in the word that it gives,
/// and how many bytes it reads. Aligned words cost one instruction, others two and a shift.
template <int Bit, int Width, int Align>
struct field_load {
  static constexpr bool within(int bits) noexcept { return Bit / bits == (Bit + Width - 1) / bits; }
  static constexpr int unit = Align >= 4 && within(32) ? 4 : Align >= 2 && within(16) ? 2 : within(8) ? 1 : 4;
  static constexpr bool aligned = within(8 * unit);
  static constexpr int offset = aligned ? Bit / (8 * unit) * unit : Bit / 8;
  static constexpr int shift = Bit - 8 * offset;
  static_assert(shift + Width <= 32);
};
/// Those bits, and what lies above and below them: the field begins at bit field_load<>::shift.
template <int Bit, int Width, class Bytes>
QUANTAL_HD std::uint32_t load_field(const Bytes& bytes) noexcept {
  using load = field_load<Bit, Width, Bytes::alignment>;
  if constexpr (load::unit == 4) return bytes.template u32<load::offset>();
  if constexpr (load::unit == 2) return bytes.template u16<load::offset>();
  return bytes.u8(load::offset);
}
/// The binary16 at byte Offset.
template <int Offset, class Bytes>
QUANTAL_HD float load_half(const Bytes& bytes) noexcept {
  using load = field_load<8 * Offset, 16, Bytes::alignment>;
  if constexpr (!load::aligned) return low_half(bytes.template u16<Offset>());
  return low_half(load_field<8 * Offset, 16>(bytes) >> load::shift);
}

/// Bit i of x < 16 in bit `to` of byte i.
template <int to>
QUANTAL_HD std::uint32_t spread_bits(std::uint32_t x) noexcept {
  return x * (0x00204081u << to) & (0x01010101u << to);
}

/// Bits 2 * i and 2 * i + 1 of x in the lowest of byte i, i < 4.
QUANTAL_HD std::uint32_t spread_pairs(std::uint32_t x) noexcept {
  const std::uint32_t fours = (x | x << 12) & 0x000f000fu;
  return (fours | fours << 6) & 0x03030303u;
}
/// Nibble i of x in the low one of byte i, i < 4.
QUANTAL_HD std::uint32_t spread_nibbles(std::uint32_t x) noexcept {
  const std::uint32_t halves = (x | x << 8) & 0x00ff00ffu;
  return (halves | halves << 4) & 0x0f0f0f0fu;
}

/// Entries first..first + 3 of a table of bytes as a word; entry(i) is in 0..255.
template <class Entry>
constexpr std::uint32_t table_word(int first, Entry entry) noexcept {
  std::uint32_t w = 0;
  for (int i = 0; i < 4; ++i) w |= static_cast<std::uint32_t>(entry(first + i)) << (8 * i);
  return w;
}

}  // namespace quantal::cuda::detail
