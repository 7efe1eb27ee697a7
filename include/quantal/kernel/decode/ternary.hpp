// Decoders of the formats with digits of base 3: iq1_bn and tq1_0. Their codes + 1 are the stored digits.
#pragma once

#include "quantal/kernel/decode/tables.hpp"

namespace quantal::kernel {
namespace detail {

/// Digits 4, 3, 2, 1, 0 of a byte of ternary digits, a byte each.
inline constexpr auto trits_of_byte = [] {
  std::array<std::uint64_t, 256> t{};
  for (std::size_t i = 0; i < 256; ++i)
    for (int k = 0; k < 5; ++k)
      t[i] |= static_cast<std::uint64_t>(quantal::detail::trit_byte{static_cast<std::uint8_t>(i)}.get(4 - k))
              << (8 * k);
  return t;
}();

/// 32 digits from each of 32 bytes of fractions, then from the fractions times 3, ...: `digits` groups of 32.
template <class A, int digits>
QUANTAL_INLINE void store_trits(simd::bytes32<A> x, std::uint8_t* codes) noexcept {
  simd::unroll<digits>([&](auto k) QUANTAL_LAMBDA {
    simd::leading_trit(x).store(codes + 32 * k);
    x = x + x + x;
  });
}

}  // namespace detail

template <class A>
QUANTAL_INLINE void block_codes(const iq1_bn&, const iq1_bn::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  // Stores of eight bytes, five of them meant; the next store puts the others right.
  const std::uint64_t last = detail::trits_of_byte[b.extra.code];
  for (int u = 0; u < 4; ++u) {
    for (int k = 0; k < 2; ++k)
      __builtin_memcpy(codes + 16 * u + 5 * k, &detail::trits_of_byte[b.ql[3 * u + k].code], 8);
    const std::uint64_t tail =
        (detail::trits_of_byte[b.ql[3 * u + 2].code] & 0xffffffffffull) | (last >> (8 * u) & 255) << 40;
    __builtin_memcpy(codes + 16 * u + 10, &tail, 6);
  }
}
template <class A>
QUANTAL_INLINE void block_codes(const tq1_0&, const tq1_0::block& b, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  const auto* bytes = reinterpret_cast<const std::uint8_t*>(b.qs);
  detail::store_trits<A, 5>(simd::bytes32<A>::load(bytes), codes);
  // Sixteen bytes and their triples at once; the fifth digit stands alone.
  auto x = simd::bytes32<A>::load_twice(bytes + 32);
  const auto high = x & simd::bytes32<A>::halves(0, 255);
  x = x + high + high;
  simd::unroll<2>([&](auto k) QUANTAL_LAMBDA {
    simd::leading_trit(x).store(codes + 160 + 32 * k);
    simd::unroll<2>([&](auto) QUANTAL_LAMBDA { x = x + x + x; });
  });
  std::uint8_t ends[32];
  simd::leading_trit(x).store(ends);
  __builtin_memcpy(codes + 224, ends, 16);
  for (int k = 0; k < 4; ++k)
    for (int j = 0; j < 4; ++j)
      codes[240 + 4 * k + j] = static_cast<std::uint8_t>(detail::trits_of_byte[b.qh[j].code] >> (32 - 8 * k));
}
}  // namespace quantal::kernel
