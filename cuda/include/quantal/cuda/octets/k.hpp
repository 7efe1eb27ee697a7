// Octets of the K formats: q2_K, q3_K, q4_K, q5_K, q6_K.
#pragma once

#include "quantal/cuda/octets/bits.hpp"

namespace quantal::cuda {

namespace detail {

/// Fields of two bits of a pair_plane at Plane, in place: the field of chunk C of byte i is bits
/// 2 * (C % 4) .. of byte i of the result, of the four weights 4 * t .. (Half = 0) or 16 + 4 * t ..
template <int Plane, int C, int Half, class Bytes>
QUANTAL_HD std::uint32_t pair_bytes(const Bytes& bytes, int t) noexcept {
  return bytes.template u32<Plane + 32 * (C / 4) + 16 * Half>(4 * t);
}

}  // namespace detail

template <>
struct octets<q2_K> : generic_octets<q2_K> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t a = detail::pair_bytes<16, C, 0>(bytes, t);
    const std::uint32_t b = detail::pair_bytes<16, C, 1>(bytes, t);
    return {a >> 2 * (C % 4) & 0x03030303u, b >> 2 * (C % 4) & 0x03030303u};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const std::uint32_t d = bytes.template u32<80>(), s = bytes.u8(g);
    return {detail::low_half(d) * detail::biased_float<0>(s & 15),
            -(detail::high_half(d) * detail::biased_float<0>(s >> 4))};
  }
};

template <>
struct octets<q3_K> : generic_octets<q3_K> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const auto join = [](std::uint32_t l, std::uint32_t h) {
      return (l >> 2 * (C % 4) & 0x03030303u) | (detail::shift_left<2 - C>(h) & 0x04040404u);
    };
    return {join(detail::pair_bytes<32, C, 0>(bytes, t), bytes.template u32<0>(4 * t)),
            join(detail::pair_bytes<32, C, 1>(bytes, t), bytes.template u32<16>(4 * t))};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const std::uint32_t low = bytes.u8(96 + (g & 7)) >> 4 * (g >> 3) & 15;
    const std::uint32_t high = bytes.u8(104 + (g & 3)) >> 2 * (g >> 2) & 3;
    return {detail::low_half(bytes.template u16<108>()) * detail::biased_float<32>(low | high << 4), 0};
  }
};

/// Formats with the scales and mins of q4_K.
template <block_format F>
struct scale_min_octets : generic_octets<F> {
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const std::uint32_t d = bytes.template u32<0>();
    const std::uint32_t a = bytes.u8(4 + (g & 3)), b = bytes.u8(8 + (g & 3));
    std::uint32_t scale = a & 63, min = b & 63;
    if (g >= 4) {
      const std::uint32_t c = bytes.u8(12 + (g & 3));
      scale = (c & 15) | (a >> 2 & 48);
      min = c >> 4 | (b >> 2 & 48);
    }
    return {detail::low_half(d) * detail::biased_float<0>(scale),
            -(detail::high_half(d) * detail::biased_float<0>(min))};
  }
};

template <>
struct octets<q4_K> : scale_min_octets<q4_K> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const word_pair w = bytes.template u64<16 + 32 * (C / 2)>(8 * t);
    return {w.low >> 4 * (C % 2) & 0x0f0f0f0fu, w.high >> 4 * (C % 2) & 0x0f0f0f0fu};
  }
};

template <>
struct octets<q5_K> : scale_min_octets<q5_K> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const word_pair low = bytes.template u64<48 + 32 * (C / 2)>(8 * t);
    const word_pair high = bytes.template u64<16>(8 * t);
    const auto join = [](std::uint32_t l, std::uint32_t h) {
      return (l >> 4 * (C % 2) & 0x0f0f0f0fu) | (detail::shift_left<4 - C>(h) & 0x10101010u);
    };
    return {join(low.low, high.low), join(low.high, high.high)};
  }
};

template <>
struct octets<q6_K> : codeword_octets<q6_K> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr int half = C / 4, j = C % 4;
    const word_pair low = bytes.template u64<64 * half + 32 * (j % 2)>(8 * t);
    const word_pair high = bytes.template u64<128 + 32 * half>(8 * t);
    const auto join = [](std::uint32_t l, std::uint32_t h) {
      return (l >> 4 * (j / 2) & 0x0f0f0f0fu) | (detail::shift_left<4 - 2 * j>(h) & 0x30303030u);
    };
    return {join(low.low, high.low), join(low.high, high.high)};
  }
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float, int g) noexcept {
    const std::uint32_t s = bytes.u8(192 + g) ^ 128;
    return {detail::low_half(bytes.template u16<208>()) * detail::biased_float<128>(s), 0};
  }
};

}  // namespace quantal::cuda
