// The codes of a format as a sorted list of integer levels: what scale searches are written against.
#pragma once

#include <array>

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/quantize/lanes.hpp"

namespace quantal::quantize {

/// Consecutive integers F::min_code..F::max_code.
template <class F>
concept uniform_codes = requires(typename F::block& b) {
  { F::min_code + F::max_code } -> std::convertible_to<int>;
  F::set_code(b, 0, 0);
};

/// F::levels values F::level(i), ascending.
template <class F>
concept table_codes = requires(typename F::block& b) {
  { F::levels } -> std::convertible_to<int>;
  { F::level(0) } -> std::same_as<int>;
  F::set_index(b, 0, 0);
};

/// Two tables F::level(i, 0) and F::level(i, 1), ascending, the second the first plus a constant.
template <class F>
concept two_table_codes = requires(typename F::block& b) {
  { F::levels } -> std::convertible_to<int>;
  { F::level(0, 0) } -> std::same_as<int>;
  F::set_table(b, 0, 0);
};

/// The sixteen E2M1 elements, sign and magnitude.
template <class F>
concept fp4_codes = table_codes<F> &&(
    requires(typename F::block& b) { F::set_exponent(b, 0); } ||
    requires(typename F::block & b) { F::set_scale_code(b, 0, 0); });

template <class F>
struct codebook;

template <uniform_codes F>
struct codebook<F> {
  static constexpr int size = F::max_code - F::min_code + 1;
  static constexpr int tables = 1, shift = 0;
  static constexpr int level(int index) noexcept { return F::min_code + index; }
  static constexpr float boundary(int index) noexcept { return static_cast<float>(level(index)) + 0.5f; }
  /// Index of the level nearest to v; v must be finite.
  static int nearest(float v) noexcept {
    constexpr float lo = F::min_code, hi = F::max_code;
    v = v < lo ? lo : v > hi ? hi : v;
    // Adding 1.5 * 2^23 rounds to nearest and leaves the integer in the low bits.
    const float shifted = v + 12582912.0f;
    return (static_cast<int>(quantal::detail::bits_from_float(shifted)) & 0x7fffff) - 0x400000 - F::min_code;
  }
  /// The nearest level itself, for many values.
  template <class B>
  static QUANTAL_INLINE B nearest_level(B v) noexcept {
    return simd::nearest(
        xsimd::max(xsimd::min(v, B(static_cast<float>(F::max_code))), B(static_cast<float>(F::min_code))));
  }
  static constexpr void store(typename F::block& b, int e, int index) noexcept {
    F::set_code(b, e, level(index));
  }
};

namespace detail {

/// Nearest level of an ascending table of integers: midpoints are half integers, so floor(2 v) decides.
template <class Levels>
struct table_search {
  static constexpr int size = Levels::size;
  static constexpr float boundary(int index) noexcept {
    return 0.5f * static_cast<float>(Levels::level(index) + Levels::level(index + 1));
  }
  static int nearest(float v) noexcept { return index_at[slot(v)]; }
  template <class B>
  static QUANTAL_INLINE B nearest_level(B v) noexcept {
    if constexpr (size <= 8) {
      B q(static_cast<float>(Levels::level(0)));
      [&]<std::size_t... I>(std::index_sequence<I...>) QUANTAL_LAMBDA {
        ((q = xsimd::select(v >= B(boundary(static_cast<int>(I))),
                            B(static_cast<float>(Levels::level(static_cast<int>(I) + 1))), q)),
         ...);
      }
      (std::make_index_sequence<static_cast<std::size_t>(size - 1)>{});
      return q;
    } else {
      const B in = xsimd::max(xsimd::min(v, B(127.0f)), B(-128.0f));
      return B::gather(level_at.data(), xsimd::to_int(in * B(2.0f) + B(256.0f)));
    }
  }

 private:
  static std::size_t slot(float v) noexcept {
    v = v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v;
    return static_cast<std::size_t>(static_cast<int>(mul(2.0f, v) + 256.0f));
  }
  static constexpr std::array<std::uint8_t, 512> make_indices() {
    std::array<std::uint8_t, 512> t{};
    for (int i = 0; i < 512; ++i) {
      const float v = (static_cast<float>(i) - 255.5f) * 0.5f;
      int best = 0;
      while (best + 1 < size && v > boundary(best)) ++best;
      t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(best);
    }
    return t;
  }
  static constexpr std::array<std::uint8_t, 512> index_at = make_indices();
  static constexpr std::array<float, 512> make_levels() {
    std::array<float, 512> t{};
    for (std::size_t i = 0; i < 512; ++i) t[i] = static_cast<float>(Levels::level(index_at[i]));
    return t;
  }
  alignas(64) static constexpr std::array<float, 512> level_at = make_levels();
};

template <class F>
struct one_table {
  static constexpr int size = F::levels;
  static constexpr int level(int index) noexcept { return F::level(index); }
};
/// Ascending, one zero.
template <class F>
struct fp4_table {
  static constexpr int size = 15;
  static constexpr int original(int index) noexcept { return index < 7 ? 15 - index : index - 7; }
  static constexpr int level(int index) noexcept { return F::level(original(index)); }
};
template <class F>
struct first_table {
  static constexpr int size = F::levels;
  static constexpr int level(int index) noexcept { return F::level(index, 0); }
};

}  // namespace detail

template <table_codes F>
struct codebook<F> : detail::one_table<F>, detail::table_search<detail::one_table<F>> {
  using detail::one_table<F>::size;
  static constexpr int tables = 1, shift = 0;
  static constexpr void store(typename F::block& b, int e, int index) noexcept { F::set_index(b, e, index); }
};

template <fp4_codes F>
struct codebook<F> : detail::fp4_table<F>, detail::table_search<detail::fp4_table<F>> {
  using detail::fp4_table<F>::size;
  static constexpr int tables = 1, shift = 0;
  static constexpr void store(typename F::block& b, int e, int index) noexcept {
    F::set_index(b, e, codebook::original(index));
  }
};

/// The first table; table 1 is nearest(v - shift) + shift.
template <two_table_codes F>
struct codebook<F> : detail::first_table<F>, detail::table_search<detail::first_table<F>> {
  using detail::first_table<F>::size;
  static constexpr int tables = 2, shift = F::level(0, 1) - F::level(0, 0);
  static constexpr bool shifted_throughout() noexcept {
    for (int i = 0; i < size; ++i)
      if (F::level(i, 1) - F::level(i, 0) != shift) return false;
    return true;
  }
  static_assert(shifted_throughout());
  static constexpr void store(typename F::block& b, int e, int index) noexcept { F::set_index(b, e, index); }
};

}  // namespace quantal::quantize
