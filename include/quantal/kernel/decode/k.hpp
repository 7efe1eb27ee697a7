// Decoders of the K formats: sub-scales under a half super-scale.
#pragma once

#include <cstring>

#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {

namespace detail {

/// Scales and mins of q4_K and q5_K, four fields to a 32-bit operation.
template <class Block, class A>
QUANTAL_INLINE void k4_scales(const Block& b, float* scales, float* offsets,
                              const simd::on<A>& tag) noexcept {
  std::uint32_t p[3];
  std::memcpy(p, b.scales.packed, 12);
  const auto pair = [](std::uint32_t low, std::uint32_t high) {
    return low | static_cast<std::uint64_t>(high) << 32;
  };
  const std::uint64_t sc = pair(p[0] & 0x3f3f3f3fu, (p[2] & 0x0f0f0f0fu) | (p[0] >> 2 & 0x30303030u));
  const std::uint64_t mn = pair(p[1] & 0x3f3f3f3fu, (p[2] >> 4 & 0x0f0f0f0fu) | (p[1] >> 2 & 0x30303030u));
  simd::scale_bytes8<A>(simd::half_on(b.d, tag), sc, 0, scales);
  simd::scale_bytes8<A>(-simd::half_on(b.dmin, tag), mn, 0, offsets);
}

/// 32 bytes whose nibbles are 64 codes, with the fifth bits 2c and 2c + 1 of `high`.
template <int c, class A>
QUANTAL_INLINE void nibbles64(const std::uint8_t* qs, const simd::bytes32<A>* high,
                              std::uint8_t* out) noexcept {
  const auto x = simd::bytes32<A>::load(qs);
  auto low = simd::field<0>(x, 15), top = simd::field<4>(x, 15);
  if (high) {
    low = low | simd::field<2 * c - 4>(*high, 16);
    top = top | simd::field<2 * c - 3>(*high, 16);
  }
  simd::store64<A>(out, low, top);
}

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_scales(const q4_K&, const q4_K::block& b, float, float* s, float* o,
                                 const simd::on<A>& t) noexcept {
  detail::k4_scales(b, s, o, t);
}
template <class A>
QUANTAL_INLINE void block_scales(const q5_K&, const q5_K::block& b, float, float* s, float* o,
                                 const simd::on<A>& t) noexcept {
  detail::k4_scales(b, s, o, t);
}
template <class A>
QUANTAL_INLINE void block_scales(const q6_K&, const q6_K::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t);
  for (int h = 0; h < 2; ++h)
    simd::scale_bytes8<A>(d, simd::load_word<std::uint64_t>(b.scales + 8 * h) ^ simd::repeat8(128), 128,
                          s + 8 * h);
}
template <class A>
QUANTAL_INLINE void block_scales(const q2_K&, const q2_K::block& b, float, float* s, float* o,
                                 const simd::on<A>& t) noexcept {
  const float d = simd::half_on(b.d, t), m = -simd::half_on(b.dmin, t);
  std::uint64_t p[2];
  std::memcpy(p, b.scales, 16);
  for (int h = 0; h < 2; ++h) {
    simd::scale_bytes8<A>(d, p[h] & 0x0f0f0f0f0f0f0f0fu, 0, s + 8 * h);
    simd::scale_bytes8<A>(m, p[h] >> 4 & 0x0f0f0f0f0f0f0f0fu, 0, o + 8 * h);
  }
}
template <class A>
QUANTAL_INLINE void block_scales(const q3_K&, const q3_K::block& b, float, float* s, float*,
                                 const simd::on<A>& t) noexcept {
  std::uint64_t low;
  std::uint32_t high;
  std::memcpy(&low, b.scales, 8);
  std::memcpy(&high, b.scales + 8, 4);
  const float d = simd::half_on(b.d, t);
  for (int h = 0; h < 2; ++h) {
    const std::uint64_t top = static_cast<std::uint64_t>(high >> (4 * h) & 0x03030303u) |
                              static_cast<std::uint64_t>(high >> (4 * h + 2) & 0x03030303u) << 32;
    const std::uint64_t fields = (low >> (4 * h) & 0x0f0f0f0f0f0f0f0fu) | top << 4;
    simd::scale_bytes8<A>(d, fields, 32, s + 8 * h);
  }
}

template <class A>
QUANTAL_INLINE void block_codes(const q4_K&, const q4_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<4>([&](auto c)
                      QUANTAL_LAMBDA { detail::nibbles64<c, A>(b.qs + 32 * c, nullptr, codes + 64 * c); });
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_K&, const q5_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto high = simd::bytes32<A>::load(b.qh);
  simd::unroll<4>([&](auto c)
                      QUANTAL_LAMBDA { detail::nibbles64<c, A>(b.qs + 32 * c, &high, codes + 64 * c); });
}
template <class A>
QUANTAL_INLINE void block_codes(const q2_K&, const q2_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(b.qs + 32 * n);
    simd::store64<A>(codes + 128 * n, simd::field<0>(x, 3), simd::field<2>(x, 3));
    simd::store64<A>(codes + 128 * n + 64, simd::field<4>(x, 3), simd::field<6>(x, 3));
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q3_K&, const q3_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto high = simd::bytes32<A>::load(b.hmask);
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(b.qs + 32 * n);
    const auto part = [&](auto j) QUANTAL_LAMBDA {
      return simd::field<2 * decltype(j)::value>(x, 3) |
             simd::field<4 * decltype(n)::value + decltype(j)::value - 2>(high, 4);
    };
    using std::integral_constant;
    simd::store64<A>(codes + 128 * n, part(integral_constant<int, 0>{}), part(integral_constant<int, 1>{}));
    simd::store64<A>(codes + 128 * n + 64, part(integral_constant<int, 2>{}),
                     part(integral_constant<int, 3>{}));
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q6_K&, const q6_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(b.ql + 64 * n), y = simd::bytes32<A>::load(b.ql + 64 * n + 32);
    const auto h = simd::bytes32<A>::load(b.qh + 32 * n);
    simd::store64<A>(codes + 128 * n, simd::field<0>(x, 15) | simd::field<-4>(h, 48),
                     simd::field<0>(y, 15) | simd::field<-2>(h, 48));
    simd::store64<A>(codes + 128 * n + 64, simd::field<4>(x, 15) | simd::field<0>(h, 48),
                     simd::field<4>(y, 15) | simd::field<2>(h, 48));
  });
}

}  // namespace quantal::kernel
