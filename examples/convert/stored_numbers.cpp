#include "stored_numbers.hpp"

#include <array>
#include <limits>

namespace quantal::hf {
namespace {

constexpr std::array<float, 256> e4m3_table() {
  std::array<float, 256> out{};
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    const std::uint32_t exponent = bits >> 3 & 15, mantissa = bits & 7;
    float v = exponent ? __builtin_bit_cast(float, (exponent + 120) << 23 | mantissa << 20)
                       : static_cast<float>(mantissa) / 512;
    if ((bits & 0x7f) == 0x7f) v = std::numeric_limits<float>::quiet_NaN();
    out[bits] = bits & 0x80 ? -v : v;
  }
  return out;
}

constexpr auto e4m3 = e4m3_table();
constexpr std::array<float, 16> e2m1{0, .5f, 1, 1.5f, 2, 3, 4, 6, -0.f, -.5f, -1, -1.5f, -2, -3, -4, -6};

template <class T>
T load(const std::byte* data, std::int64_t i) noexcept {
  T v;
  std::memcpy(&v, data + i * static_cast<std::int64_t>(sizeof v), sizeof v);
  return v;
}

}  // namespace

float e4m3_value(std::uint8_t bits) noexcept { return e4m3[bits]; }

float e8m0_value(std::uint8_t bits) noexcept {
  const std::uint32_t x = bits;
  return __builtin_bit_cast(float, x == 255 ? 0x7fc00000u : x == 0 ? 0x00400000u : x << 23);
}

float e2m1_value(int bits) noexcept { return e2m1[static_cast<std::size_t>(bits & 15)]; }

bool is_number(dtype t) noexcept {
  return t == dtype::bf16 || t == dtype::f16 || t == dtype::f32 || t == dtype::f8_e4m3 || t == dtype::f8_e8m0;
}

float number_at(dtype t, const std::byte* data, std::int64_t i) noexcept {
  if (t == dtype::bf16) return detail::bfloat16_to_float(load<std::uint16_t>(data, i));
  if (t == dtype::f16) return detail::half_to_float(load<std::uint16_t>(data, i));
  if (t == dtype::f8_e4m3) return e4m3_value(load<std::uint8_t>(data, i));
  if (t == dtype::f8_e8m0) return e8m0_value(load<std::uint8_t>(data, i));
  return load<float>(data, i);
}

float rounded_to(dtype t, float v) noexcept {
  if (t == dtype::bf16) return detail::bfloat16_to_float(detail::float_to_bfloat16(v));
  if (t == dtype::f16) return detail::half_to_float(detail::float_to_half(v));
  return v;
}

}  // namespace quantal::hf
