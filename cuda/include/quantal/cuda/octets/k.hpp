// Octets of the K formats: q4_K, q6_K.
#pragma once

#include "quantal/cuda/octets.hpp"

namespace quantal::cuda {

template <>
struct octets<q4_K> : generic_octets<q4_K> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const word_pair w = bytes.template u64<16 + 32 * (C / 2)>(8 * t);
    return {w.low >> 4 * (C % 2) & 0x0f0f0f0fu, w.high >> 4 * (C % 2) & 0x0f0f0f0fu};
  }
};

template <>
struct octets<q6_K> : generic_octets<q6_K> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr int half = C / 4, j = C % 4;
    const word_pair low = bytes.template u64<64 * half + 32 * (j % 2)>(8 * t);
    const word_pair high = bytes.template u64<128 + 32 * half>(8 * t);
    const auto join = [](std::uint32_t l, std::uint32_t h) {
      // Upper two bits to bits 4 and 5.
      const std::uint32_t top = j < 2 ? h << (4 - 2 * j) : h >> (2 * j - 4);
      return (l >> 4 * (j / 2) & 0x0f0f0f0fu) | (top & 0x30303030u);
    };
    return {join(low.low, high.low), join(low.high, high.high)};
  }
};

}  // namespace quantal::cuda
