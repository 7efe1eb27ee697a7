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
  simd::scale_signed16<A>(simd::half_on(b.d, t), b.scales, s);
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
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    simd::bytes64<A>::template fields<0, 4>(b.qs + 32 * c, 15).store(codes + 64 * c);
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_K&, const q5_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  using bytes = simd::bytes64<A>;
  simd::unroll<4>([&](auto c) QUANTAL_LAMBDA {
    (bytes::template fields<0, 4>(b.qs + 32 * c, 15) | bytes::template fields<2 * c - 4, 2 * c - 3>(b.qh, 16))
        .store(codes + 64 * c);
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q2_K&, const q2_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  using bytes = simd::bytes64<A>;
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    bytes::template fields<0, 2>(b.qs + 32 * n, 3).store(codes + 128 * n);
    bytes::template fields<4, 6>(b.qs + 32 * n, 3).store(codes + 128 * n + 64);
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q3_K&, const q3_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  using bytes = simd::bytes64<A>;
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    (bytes::template fields<0, 2>(b.qs + 32 * n, 3) |
     bytes::template fields<4 * n - 2, 4 * n - 1>(b.hmask, 4))
        .store(codes + 128 * n);
    (bytes::template fields<4, 6>(b.qs + 32 * n, 3) | bytes::template fields<4 * n, 4 * n + 1>(b.hmask, 4))
        .store(codes + 128 * n + 64);
  });
}
template <class A>
QUANTAL_INLINE void block_codes(const q6_K&, const q6_K::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  using bytes = simd::bytes64<A>;
  simd::unroll<2>([&](auto n) QUANTAL_LAMBDA {
    const std::uint8_t *const low = b.ql + 64 * n, *const high = b.qh + 32 * n;
    (bytes::template field<0>(low, 15) | bytes::template fields<-4, -2>(high, 48)).store(codes + 128 * n);
    (bytes::template field<4>(low, 15) | bytes::template fields<0, 2>(high, 48)).store(codes + 128 * n + 64);
  });
}

}  // namespace quantal::kernel
