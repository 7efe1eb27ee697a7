// The loops behind the arithmetic ceilings.
#pragma once

#include "ceiling.hpp"
#include "quantal/simd/dot4.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::bench {

template <class A>
inline constexpr int peak_chains = xsimd::batch<float, A>::size == 8 ? 12 : 14;

template <class A>
void fma_loop(std::int64_t rounds, float* sink) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int n = peak_chains<A>;
  const batch x(0.999f), y(0.001f);
  batch acc[n];
  simd::unroll<n>([&](auto i) QUANTAL_LAMBDA { acc[i] = batch(static_cast<float>(i)); });
  for (std::int64_t r = 0; r < rounds; ++r)
    simd::unroll<n>([&](auto i) QUANTAL_LAMBDA { acc[i] = xsimd::fma(acc[i], x, y); });
  batch total(0.0f);
  simd::unroll<n>([&](auto i) QUANTAL_LAMBDA { total += acc[i]; });
  *sink = xsimd::reduce_add(total);
}

/// As the product kernels use it: one register of weights, activations broadcast from memory.
template <class A>
void dot_loop(std::int64_t rounds, std::int32_t* sink) noexcept {
  constexpr int n = peak_chains<A>;
  alignas(64) std::uint8_t u[64];
  alignas(64) std::int8_t s[4 * n];
  for (int i = 0; i < 64; ++i) u[i] = static_cast<std::uint8_t>(i);
  for (int i = 0; i < 4 * n; ++i) s[i] = static_cast<std::int8_t>(i - 20);
  simd::i32<A> acc[n];
  simd::unroll<n>([&](auto i) QUANTAL_LAMBDA { acc[i] = simd::i32<A>(i); });
  for (std::int64_t r = 0; r < rounds; ++r) {
    asm volatile("" : : "r"(u), "r"(s) : "memory");  // the operands are read again in every round
    const auto w = simd::u8<A>::load_aligned(u);
    simd::unroll<n>([&](auto i) QUANTAL_LAMBDA {
      acc[i] = simd::dot4_of < A, simd::dot_takes_u8<A>
                                      ? simd::code_kind::u8
                                      : simd::code_kind::u7 > (acc[i], w, simd::broadcast4<A>(s + 4 * i));
    });
  }
  simd::i32<A> total(0);
  simd::unroll<n>([&](auto i) QUANTAL_LAMBDA { total += acc[i]; });
  *sink = xsimd::reduce_add(total);
}

template <class A>
peak_loops peak_of();

}  // namespace quantal::bench
