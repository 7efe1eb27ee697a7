// Octets of the legacy formats: q4_0, q8_0.
#pragma once

#include "quantal/cuda/octets.hpp"

namespace quantal::cuda {

template <>
struct octets<q4_0> : generic_octets<q4_0> {
  static constexpr octet_order order = octet_order::halves;

  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t w = bytes.template u32<18 * C + 2>(4 * t);
    return {w & 0x0f0f0f0fu, w >> 4 & 0x0f0f0f0fu};
  }
};

template <>
struct octets<q8_0> : generic_octets<q8_0> {
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    const word_pair w = bytes.template u64<34 * C + 2>(8 * t);
    return {w.low ^ 0x80808080u, w.high ^ 0x80808080u};
  }
};

}  // namespace quantal::cuda
