// Decoders of the formats with one half scale per 32 weights, and of the activation formats.
#pragma once

#include <cstddef>
#include <cstring>

#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/lookup.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {

template <class F>
concept half_scaled = std::same_as<F, q8_0> || std::same_as<F, q4_0> || std::same_as<F, q5_0> ||
    std::same_as<F, q6_0> || std::same_as<F, iq4_nl> || std::same_as<F, q4_1> || std::same_as<F, q5_1>;

template <half_scaled F, class A>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& b, float, float* scales, float* offsets,
                                 const simd::on<A>& tag) noexcept {
  scales[0] = simd::half_on(b.d, tag);
  if constexpr (F::layout.has_offset) offsets[0] = simd::half_on(b.m, tag);
}

template <class A>
QUANTAL_INLINE void block_codes(const q8_0&, const q8_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto x = simd::bytes32<A>::load(reinterpret_cast<const std::uint8_t*>(b.qs));
  (x ^ simd::bytes32<A>::all(128)).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q4_0&, const q4_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::nibbles16<A>(b.qs).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q4_1&, const q4_1::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::nibbles16<A>(b.qs).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_0&, const q5_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  (simd::nibbles16<A>(b.qs) | simd::bits32<A>(b.qh, 16)).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q5_1&, const q5_1::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  (simd::nibbles16<A>(b.qs) | simd::bits32<A>(b.qh, 16)).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const q6_0&, const q6_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  // Weights 8h .. 8h + 7 have their upper bits at 4 * (h % 2) + 2 * (h / 2) of the eight bytes.
  std::uint64_t high;
  std::memcpy(&high, b.qh, 8);
  const auto part = [&](int shift) { return (high >> shift & 0x0303030303030303u) << 4; };
  (simd::nibbles16<A>(b.qs) | simd::bytes32<A>::words(part(0), part(4), part(2), part(6))).store(codes);
}
template <class A>
QUANTAL_INLINE void block_codes(const iq4_nl&, const iq4_nl::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::lookup16<A>(level_codes<iq4_nl, 16>.data(), simd::nibbles16<A>(b.qs)).store(codes);
}

template <class F>
concept activation_format = std::same_as<F, q8_1> || std::same_as<F, q8_K>;

template <activation_format F, class A>
QUANTAL_INLINE void block_codes(const F&, const typename F::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  simd::unroll<F::layout.elements / 32>([&](auto i) QUANTAL_LAMBDA {
    const auto x = simd::bytes32<A>::load(reinterpret_cast<const std::uint8_t*>(b.qs) + 32 * i);
    (x ^ simd::bytes32<A>::all(128)).store(codes + 32 * i);
  });
}

}  // namespace quantal::kernel
