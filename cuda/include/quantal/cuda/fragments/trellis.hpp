// Codes of the trellis formats: eight outputs of a multiplicative sequence from one seed, or four from each
// of two.
//
// Outputs are sums of four masked bytes, 0..252; that sum is the code with a bias of 126.
#pragma once

#include "quantal/cuda/fragments/basics.hpp"
#include "quantal/format/iq1_kt.hpp"
#include "quantal/format/iq2_kt.hpp"
#include "quantal/format/iq3_kt.hpp"
#include "quantal/format/iq4_kt.hpp"

namespace quantal::cuda {
namespace detail {

/// Sum (0..252) of output k of the sequence of a seed, in the upper byte; below it lies what the carries
/// left.
template <int k>
QUANTAL_HD std::uint32_t trellis_sum(std::uint32_t seed) noexcept {
  constexpr std::uint32_t power = quantal::detail::trellis_power(k);
  return (seed * power & 0x3f3f3f3fu) * 0x01010101u;
}

/// The upper bytes of four words.
QUANTAL_HD std::uint32_t upper_bytes(std::uint32_t a, std::uint32_t b, std::uint32_t c,
                                     std::uint32_t d) noexcept {
  return byte_permute(byte_permute(a, b, 0x0073), byte_permute(c, d, 0x0073), 0x5410);
}

/// Outputs First .. First + 3.
template <int First>
QUANTAL_HD std::uint32_t trellis4(std::uint32_t seed) noexcept {
  return upper_bytes(trellis_sum<First>(seed), trellis_sum<First + 1>(seed), trellis_sum<First + 2>(seed),
                     trellis_sum<First + 3>(seed));
}

template <block_format F>
struct trellis_reader : code_reader<F> {
  static constexpr int bias = 126;
  static constexpr bool narrow = false;
};

/// Magnitudes about 126 (126 + |x| for 126 + x), negated where the byte of `negative` is 1.
QUANTAL_HD std::uint32_t signed_magnitudes(std::uint32_t sums, std::uint32_t negative) noexcept {
  std::uint32_t m = 0;
#if defined(__CUDA_ARCH__)
  m = __vmaxu4(sums, 0xfcfcfcfcu - sums);
#else
  for (int i = 0; i < 4; ++i) {
    const std::uint32_t s = sums >> (8 * i) & 255;
    m |= (s > 126 ? s : 252 - s) << (8 * i);
  }
#endif
  // 252 - m where negative; every byte of the result is in range.
  return m - 2 * (m & negative * 255u) + negative * 252u;
}

}  // namespace detail

template <>
struct fragment_reader<iq1_kt> : detail::trellis_reader<iq1_kt> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t high = bytes.u8(40 + 4 * (C % 4) + t) >> 4 * (C / 4) & 15u;
    const std::uint32_t seed =
        4096u + bytes.u8(8 + 4 * C + t) + 256u * high + (bytes.u8(C) >> (4 + t) & 1u) * 4096u;
    return {detail::trellis4<0>(seed), detail::trellis4<4>(seed)};
  }
};

template <>
struct fragment_reader<iq2_kt> : detail::trellis_reader<iq2_kt> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t seed = 4096u + bytes.template u16<4 + 8 * C>(2 * t);
    return {detail::trellis4<0>(seed), detail::trellis4<4>(seed)};
  }
};

template <>
struct fragment_reader<iq3_kt> : detail::trellis_reader<iq3_kt> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t seed = 4096u + bytes.template u16<4 + 8 * C>(2 * t);
    const word_pair signs = bytes.template u64<68>(8 * t);
    return {detail::signed_magnitudes(detail::trellis4<0>(seed), signs.low >> C & 0x01010101u),
            detail::signed_magnitudes(detail::trellis4<4>(seed), signs.high >> C & 0x01010101u)};
  }
};

template <>
struct fragment_reader<iq4_kt> : detail::trellis_reader<iq4_kt> {
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    const std::uint32_t head = bytes.template u32<4 * C>(), low = bytes.template u16<32 + 8 * C>(2 * t);
    const std::uint32_t middle = bytes.template u16<96 + 8 * (C % 4)>(2 * t) >> 4 * (C / 4);
    const std::uint32_t high = head >> (8 + 6 * t), base = 4096u + (head & 1u) * 32768u;
    const std::uint32_t first = base + (low & 255u) + (middle & 15u) * 256u + (high & 7u) * 4096u;
    const std::uint32_t second = base + (low >> 8) + (middle >> 8 & 15u) * 256u + (high >> 3 & 7u) * 4096u;
    return {detail::trellis4<0>(first), detail::trellis4<0>(second)};
  }
};

}  // namespace quantal::cuda
