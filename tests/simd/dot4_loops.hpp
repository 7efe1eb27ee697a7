// Loops over the operands of dot4 on one arch, compared with integers.
#pragma once

#include "quantal/simd/dot4.hpp"

namespace quantal::test {

/// What went wrong in each of the three forms: unsigned, seven bits, signed.
struct dot4_failures {
  int wide, narrow, with_sign;
};

template <class A>
dot4_failures dot4_errors() noexcept;

/// The sum that lane i should hold for operands that repeat with period 4.
inline int expected_dot(int start, const int (&x)[4], const int (&y)[4]) noexcept {
  return start + x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
}

/// One call in every form that allows the operands: byte 4i + j is (x, x2)[j % 2], activations likewise.
template <class A>
void check_dot4(int x, int x2, int y, int y2, dot4_failures& failures) noexcept {
  using simd::i32, simd::u8, simd::s8, simd::code_kind;
  constexpr int n = static_cast<int>(u8<A>::size);
  alignas(64) std::uint8_t codes[u8<A>::size];
  alignas(64) std::int8_t activations[u8<A>::size];
  for (int i = 0; i < n; ++i) {
    codes[i] = static_cast<std::uint8_t>(i % 2 ? x2 : x);
    activations[i] = static_cast<std::int8_t>(i % 2 ? y2 : y);
  }
  const auto u = u8<A>::load_aligned(codes);
  const auto s = s8<A>::load_aligned(activations);
  const auto differ = [](const i32<A>& r, int want) {
    alignas(64) std::int32_t v[i32<A>::size];
    r.store_aligned(v);
    for (const int got : v)
      if (got != want) return true;
    return false;
  };
  const int ys[4] = {y, y2, y, y2}, us[4] = {x, x2, x, x2}, ss[4] = {x - 128, x2 - 128, x - 128, x2 - 128};
  failures.wide += differ(simd::dot4_of<A, code_kind::u8>(i32<A>(7), u, s), expected_dot(7, us, ys));
  if (y == -128 || y2 == -128) return;  // the other two forms exclude it
  if (x < 128 && x2 < 128)
    failures.narrow += differ(simd::dot4_of<A, code_kind::u7>(i32<A>(7), u, s), expected_dot(7, us, ys));
  failures.with_sign += differ(simd::dot4_of<A, code_kind::s8>(i32<A>(7), u, s), expected_dot(7, ss, ys));
}

}  // namespace quantal::test
