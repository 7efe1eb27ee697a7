// Byte-aligned little-endian fields and bit extraction, on host and device.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantal/config.hpp"

namespace quantal::detail {

/// Unsigned little-endian field of sizeof(U) bytes with alignment 1; blocks may start at any byte address.
template <class U>
struct le {
  std::uint8_t bytes[sizeof(U)];

  QUANTAL_HD constexpr U get() const noexcept {
    U v = 0;
    for (unsigned i = 0; i < sizeof(U); ++i) v = static_cast<U>(v | static_cast<U>(bytes[i]) << (8 * i));
    return v;
  }
  QUANTAL_HD constexpr void set(U v) noexcept {
    for (unsigned i = 0; i < sizeof(U); ++i) bytes[i] = static_cast<std::uint8_t>(v >> (8 * i));
  }
};
using le_u16 = le<std::uint16_t>;
using le_u32 = le<std::uint32_t>;

/// The n-bit field of x whose lowest bit is bit p (formats.md section 1.2).
QUANTAL_HD constexpr int bits(std::uint32_t x, int p, int n) noexcept {
  return static_cast<int>((x >> p) & ((1u << n) - 1u));
}
QUANTAL_HD constexpr int bit(std::uint32_t x, int p) noexcept { return bits(x, p, 1); }
/// Low (k = 0) or high (k = 1) nibble.
QUANTAL_HD constexpr int nib(std::uint32_t x, int k) noexcept { return bits(x, 4 * k, 4); }

/// Replaces the n-bit field of `byte` at bit p by v.
QUANTAL_HD constexpr void set_bits(std::uint8_t& byte, int p, int n, int v) noexcept {
  const unsigned mask = ((1u << n) - 1u) << p;
  byte = static_cast<std::uint8_t>((byte & ~mask) | ((static_cast<unsigned>(v) << p) & mask));
}

/// The same for a multi-byte field.
template <class U>
QUANTAL_HD constexpr void set_bits(le<U>& field, int p, int n, int v) noexcept {
  const U mask = static_cast<U>(((U{1} << n) - 1) << p);
  field.set(static_cast<U>((field.get() & static_cast<U>(~mask)) |
                           (static_cast<U>(static_cast<U>(v) << p) & mask)));
}

}  // namespace quantal::detail
