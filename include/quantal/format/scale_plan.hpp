// What a format's scales and offsets are made of, read off scale() and offset() at compile time.
//
// Nearly all formats compute them in one of few ways, from a half of the block or the row's scale and an integer whose
// bits lie in planes. Which of them a format has is tried on blocks of random bytes, so that a format says it once, in
// scale(), and every backend has a reader for each way. Formats with another way are asked weight group by weight group.
#pragma once

#include <bit>
#include <concepts>
#include <cstdint>

#include "quantal/format/bit_plan.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

/// The scale of group g. Products are of float32 numbers and rounded once.
enum class scale_formula : std::uint8_t {
  other,           ///< as scale() says
  row,             ///< the row's scale
  half,            ///< the block's half `d`
  row_times,       ///< row scale * sub_scale(g)
  half_times,      ///< d * sub_scale(g)
  half_times_odd,  ///< d * scale_unit * (2 * sub_scale(g) + 1); the unit is a power of two
  exponent,        ///< 2^(exponent(block) - 128)
  small_float,  ///< a byte that is half a UE4M3: seven bits of a binary16, 2^-7 times as large; 0x7f stands for zero
};
/// The offset of group g.
enum class offset_formula : std::uint8_t {
  none,        ///< the format has no offsets
  other,       ///< as offset() says
  half,        ///< the block's half `m`
  half_times,  ///< -(dmin * sub_min(g))
};

namespace detail {

template <class F>
concept has_half_d = requires(typename F::block b) {
  { (b.d) } -> std::same_as<half_bits&>;
};
template <class F>
concept has_half_m = requires(typename F::block b) {
  { (b.m) } -> std::same_as<half_bits&>;
};
template <class F>
concept has_half_dmin = has_sub_scales<F> && requires(typename F::block b) {
  { (b.dmin) } -> std::same_as<half_bits&>;
  F::sub_min(b, 0);
};
template <class F>
concept has_exponent = requires(const typename F::block& b) {
  { F::exponent(b) } -> std::same_as<int>;
};
template <class F>
concept has_scale_codes = requires(const typename F::block& b) {
  F::scale_value(F::scale_code(b, 0));
};
/// A unit that scales odd integers exactly.
template <class F>
constexpr bool has_exact_unit() noexcept {
  if constexpr (requires { F::scale_unit; }) return (bits_from_float(F::scale_unit) & 0x7fffffu) == 0;
  return false;
}
/// scale() and offset() that can be evaluated at compile time.
template <class F>
concept has_constant_scale = requires {
  typename std::bool_constant<(F::scale(typename F::block{}, 1.0f, 0), true)>;
};
template <class F>
concept has_constant_offset = requires {
  typename std::bool_constant<(F::offset(typename F::block{}, 1.0f, 0), true)>;
};

/// Do both functions of (block, row scale, group) give the same bits?
template <block_format F, class Said, class Made>
constexpr bool agree(Said said, Made made) noexcept {
  for (const auto& b : probe_blocks<typename F::block>.finite)
    for (int g = 0; g < F::layout.groups(); ++g)
      for (const float row_scale : {1.0f, 0.3f})
        if (bits_from_float(said(b, row_scale, g)) != bits_from_float(made(b, row_scale, g))) return false;
  return true;
}

template <scale_formula f>
struct formula;
template <>
struct formula<scale_formula::row> {
  template <class F>
  static constexpr bool applies = true;
  template <class F>
  static constexpr float get(const typename F::block&, float row_scale, int) noexcept {
    return row_scale;
  }
};
template <>
struct formula<scale_formula::half> {
  template <class F>
  static constexpr bool applies = has_half_d<F>;
  template <class F>
  static constexpr float get(const typename F::block& b, float, int) noexcept {
    return b.d.get();
  }
};
template <>
struct formula<scale_formula::row_times> {
  template <class F>
  static constexpr bool applies = has_sub_scales<F>;
  template <class F>
  static constexpr float get(const typename F::block& b, float row_scale, int g) noexcept {
    return row_scale * static_cast<float>(F::sub_scale(b, g));
  }
};
template <>
struct formula<scale_formula::half_times> {
  template <class F>
  static constexpr bool applies = has_sub_scales<F>&& has_half_d<F>;
  template <class F>
  static constexpr float get(const typename F::block& b, float, int g) noexcept {
    return b.d.get() * static_cast<float>(F::sub_scale(b, g));
  }
};
template <>
struct formula<scale_formula::half_times_odd> {
  template <class F>
  static constexpr bool applies = has_sub_scales<F>&& has_half_d<F>&& has_exact_unit<F>();
  template <class F>
  static constexpr float get(const typename F::block& b, float, int g) noexcept {
    return b.d.get() * (F::scale_unit * static_cast<float>(2 * F::sub_scale(b, g) + 1));
  }
};
template <>
struct formula<scale_formula::exponent> {
  template <class F>
  static constexpr bool applies = has_exponent<F>;
  template <class F>
  static constexpr float get(const typename F::block& b, float, int) noexcept {
    const auto e = static_cast<std::uint32_t>(F::exponent(b));
    return float_from_bits(e < 2 ? 0x00200000u << e : (e - 1) << 23);
  }
};
template <>
struct formula<scale_formula::small_float> {
  template <class F>
  static constexpr bool applies = has_scale_codes<F>;
  template <class F>
  static constexpr float get(const typename F::block& b, float, int g) noexcept {
    const int code = F::scale_code(b, g);
    return code == 0x7f ? 0.0f : 128.0f * half_to_float(static_cast<std::uint16_t>(code << 7 & 0x3f80));
  }
};

template <block_format F, scale_formula f>
constexpr bool follows() noexcept {
  if constexpr (formula<f>::template applies<F>)
    return agree<F>(
        [](const typename F::block& b, float r, int g) { return F::scale(b, r, g); },
        [](const typename F::block& b, float r, int g) { return formula<f>::template get<F>(b, r, g); });
  return false;
}
template <block_format F, scale_formula... tried>
constexpr scale_formula first_of() noexcept {
  scale_formula found = scale_formula::other;
  if constexpr (has_constant_scale<F>) (void)((follows<F, tried>() && (found = tried, true)) || ...);
  return found;
}
template <block_format F>
constexpr offset_formula find_offset_formula() noexcept {
  using block = typename F::block;
  if constexpr (!F::layout.has_offset) {
    return offset_formula::none;
  } else if constexpr (has_constant_offset<F>) {
    const auto said = [](const block& b, float r, int g) { return F::offset(b, r, g); };
    if constexpr (has_half_m<F>) {
      if (agree<F>(said, [](const block& b, float, int) { return b.m.get(); })) return offset_formula::half;
    }
    if constexpr (has_half_dmin<F>) {
      if (agree<F>(said, [](const block& b, float, int g) {
            return -(b.dmin.get() * static_cast<float>(F::sub_min(b, g)));
          }))
        return offset_formula::half_times;
    }
  }
  return offset_formula::other;
}

}  // namespace detail

template <block_format F>
inline constexpr scale_formula scale_formula_of = detail::first_of<
    F, scale_formula::row, scale_formula::half, scale_formula::row_times, scale_formula::half_times,
    scale_formula::half_times_odd, scale_formula::exponent, scale_formula::small_float>();
template <block_format F>
inline constexpr offset_formula offset_formula_of = detail::find_offset_formula<F>();

}  // namespace quantal
