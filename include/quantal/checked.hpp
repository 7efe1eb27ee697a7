// Arithmetic on sizes that come from files and command lines: no answer instead of one that wrapped.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>

namespace quantal {

/// a * b, or nothing on overflow or negative input.
inline std::optional<std::int64_t> checked_multiply(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t r;
  if (a < 0 || b < 0 || __builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

/// a + b, or nothing on overflow or negative input.
inline std::optional<std::int64_t> checked_add(std::int64_t a, std::int64_t b) noexcept {
  std::int64_t r;
  if (a < 0 || b < 0 || __builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

/// The product, or nothing if it overflows or a factor is negative. A factor of 0 does not excuse the others: code that
/// multiplies only some of them must not overflow either.
template <class Factors = std::initializer_list<std::int64_t>>
std::optional<std::int64_t> checked_product(const Factors& factors) noexcept {
  std::optional<std::int64_t> without_zeros = 1;
  bool zero = false;
  for (const std::int64_t f : factors) {
    zero = zero || f == 0;
    if (without_zeros && f != 0) without_zeros = checked_multiply(*without_zeros, f);
  }
  return zero && without_zeros ? std::optional<std::int64_t>(0) : without_zeros;
}

/// x rounded up to a multiple of a power of two, or nothing on overflow.
inline std::optional<std::uint64_t> checked_round_up(std::uint64_t x, std::uint64_t alignment) noexcept {
  std::uint64_t r;
  if (__builtin_add_overflow(x, alignment - 1, &r)) return std::nullopt;
  return r & ~(alignment - 1);
}

}  // namespace quantal
