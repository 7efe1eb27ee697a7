// The codes of a format as a sorted list of integer levels: what scale searches are written against.
#pragma once

#include <array>

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

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

template <class F>
struct codebook;

template <uniform_codes F>
struct codebook<F> {
  static constexpr int size = F::max_code - F::min_code + 1;
  static constexpr int level(int index) noexcept { return F::min_code + index; }
  static constexpr float boundary(int index) noexcept { return static_cast<float>(level(index)) + 0.5f; }
  /// Index of the level nearest to v; v must be finite.
  static int nearest(float v) noexcept {
    constexpr float lo = F::min_code, hi = F::max_code;
    v = v < lo ? lo : v > hi ? hi : v;
    // Adding 1.5 * 2^23 rounds to nearest and leaves the integer in the low bits.
    const float shifted = v + 12582912.0f;
    return (static_cast<int>(detail::bits_from_float(shifted)) & 0x7fffff) - 0x400000 - F::min_code;
  }
  static constexpr void store(typename F::block& b, int e, int index) noexcept { F::set_code(b, e, level(index)); }
};

template <table_codes F>
struct codebook<F> {
  static constexpr int size = F::levels;
  static constexpr int level(int index) noexcept { return F::level(index); }
  /// Midpoint above level `index`.
  static constexpr float boundary(int index) noexcept {
    return 0.5f * static_cast<float>(F::level(index) + F::level(index + 1));
  }
  /// Levels are integers, so midpoints are half integers and floor(2 v) decides.
  static int nearest(float v) noexcept {
    v = v < -128.0f ? -128.0f : v > 127.0f ? 127.0f : v;
    return lookup[static_cast<std::size_t>(static_cast<int>(2.0f * v + 256.0f))];
  }
  static constexpr void store(typename F::block& b, int e, int index) noexcept { F::set_index(b, e, index); }

 private:
  static constexpr std::array<std::uint8_t, 512> make_lookup() {
    std::array<std::uint8_t, 512> t{};
    for (int i = 0; i < 512; ++i) {
      const float v = (static_cast<float>(i) - 255.5f) * 0.5f;
      int best = 0;
      while (best + 1 < size && v > boundary(best)) ++best;
      t[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(best);
    }
    return t;
  }
  static constexpr std::array<std::uint8_t, 512> lookup = make_lookup();
};

}  // namespace quantal::quantize
