// Codes of formats that pack digits of base 3: tq1_0, iq1_bn.
#pragma once

#include "quantal/cuda/fragments/bits.hpp"
#include "quantal/format/iq1_bn.hpp"
#include "quantal/format/tq1_0.hpp"

namespace quantal::cuda {

namespace detail {

/// A ternary digit's place in a byte is chosen by a multiplication with a power of three (trit_byte).
constexpr std::uint32_t power_of_3(int n) noexcept { return n == 0 ? 1 : 3 * power_of_3(n - 1); }

/// Digits of four bytes, of which `even` has 0 and 2 in its bytes 0 and 2 and `odd` 1 and 3, times a power.
QUANTAL_HD std::uint32_t digits(std::uint32_t even, std::uint32_t odd) noexcept {
  return byte_permute((even & 0x00ff00ffu) * 3, (odd & 0x00ff00ffu) * 3, 0x7351);
}
/// Digit of every byte of w; power is 3 to the digit's position.
QUANTAL_HD std::uint32_t digits_of_bytes(std::uint32_t w, std::uint32_t power) noexcept {
  return digits((w & 0x00ff00ffu) * power, (w >> 8 & 0x00ff00ffu) * power);
}

}  // namespace detail

template <>
struct fragment_reader<tq1_0> : code_reader<tq1_0> {
  static constexpr fragment_order order = fragment_order::halves;
  static constexpr bool quick = true;

  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    using detail::digits_of_bytes, detail::power_of_3;
    if constexpr (C < 5) {
      constexpr std::uint32_t power = power_of_3(C);
      return {digits_of_bytes(bytes.template u32<0>(4 * t), power),
              digits_of_bytes(bytes.template u32<16>(4 * t), power)};
    } else {
      constexpr std::uint32_t first = power_of_3(2 * C - 10);
      const std::uint32_t w = bytes.template u32<32>(4 * t);
      if constexpr (C < 7) return {digits_of_bytes(w, first), digits_of_bytes(w, 3 * first)};
      // The last sixteen weights: digit t of each of four bytes.
      const std::uint32_t power = 0x1b090301u >> 8 * t & 255;
      return {digits_of_bytes(w, first), digits_of_bytes(bytes.template u32<48>(), power)};
    }
  }
};

template <>
struct fragment_reader<iq1_bn> : code_reader<iq1_bn> {
  static constexpr fragment_order order = fragment_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    constexpr int block = 13 * (C / 2), u = 2 * (C % 2);
    // Bytes of the first run of 16 weights, then of the second.
    const word_pair w = bytes.template u64<block + 3 * u>();
    const std::uint32_t last = bytes.u8(block + 12);
    return {run<u>(byte_permute(w.low, last, 0x4210), t),
            run<u + 1>(byte_permute(byte_permute(w.low, w.high, 0x0543), last, 0x4210), t)};
  }

 private:
  /// Weights 4 * t .. of run U of 16, of which three bytes of `w` hold five each and the last byte one.
  template <int U>
  QUANTAL_HD static std::uint32_t run(std::uint32_t w, int t) noexcept {
    return detail::digits(pick<U, 0, 2>(w, t), pick<U, 1, 3>(w, t));
  }
  /// The bytes of weights 4 * t + I and 4 * t + J times their powers of three, as bytes 0 and 2.
  template <int U, int I, int J>
  QUANTAL_HD static std::uint32_t pick(std::uint32_t w, int t) noexcept {
    return byte_permute(detail::dot_bytes(w, power<U, I>(t)), detail::dot_bytes(w, power<U, J>(t)), 0x3430);
  }
  template <int U, int I>
  QUANTAL_HD static std::uint32_t power(int t) noexcept {
    constexpr std::uint32_t p[4] = {power_at(U, I), power_at(U, 4 + I), power_at(U, 8 + I),
                                    power_at(U, 12 + I)};
    return t < 2 ? (t == 0 ? p[0] : p[1]) : (t == 2 ? p[2] : p[3]);
  }
  /// The power of weight r of a run, in the place of its byte.
  static constexpr std::uint32_t power_at(int u, int r) noexcept {
    return detail::power_of_3(r < 15 ? 4 - r % 5 : 4 - u) << (8 * (r / 5));
  }
};

}  // namespace quantal::cuda
