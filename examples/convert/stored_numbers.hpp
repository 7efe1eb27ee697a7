// Numbers as tensors of a checkpoint store them, decoded one by one.
#pragma once

#include <cstdint>
#include <cstring>

#include "quantal/format/bf16.hpp"
#include "quantal/format/detail/half.hpp"
#include "safetensors.hpp"

namespace quantal::hf {

/// The value of an e4m3 number (4 exponent bits of bias 7, 3 of mantissa, no infinities; 0x7f and 0xff are
/// NaN).
float e4m3_value(std::uint8_t bits) noexcept;
/// 2^(bits - 127); 255 is NaN.
float e8m0_value(std::uint8_t bits) noexcept;
/// The value of a 4-bit float: sign, two exponent bits, one of mantissa; 0 to 6.
float e2m1_value(int bits) noexcept;

/// A type that values can be decoded from on their own.
bool is_number(dtype t) noexcept;
/// Element `i` of numbers of type `t`.
float number_at(dtype t, const std::byte* data, std::int64_t i) noexcept;
/// The nearest value that type `t` has; itself for types that are no floats of 16 bits.
float rounded_to(dtype t, float v) noexcept;

/// Element `i` of little-endian integers of 32 bits.
inline std::uint32_t word_at(const std::byte* data, std::int64_t i) noexcept {
  std::uint32_t w;
  std::memcpy(&w, data + 4 * i, 4);
  return w;
}

}  // namespace quantal::hf
