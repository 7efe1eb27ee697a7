// Scales and offsets of a group of 256 weights, bit for bit those of F::scale() and F::offset().
//
// Most formats have one of three formulas over a binary16 field `d` of the block and integers that the
// bit_plan of their sub-scales finds. Which one is tried out at compile time, on blocks with random bytes;
// formats with another go through F::scale().
#pragma once

#include <cstddef>

#include "quantal/cuda/fragments/bits.hpp"
#include "quantal/format/bit_plan.hpp"
#include "quantal/format/iq3_k.hpp"
#include "quantal/format/nvfp4.hpp"

namespace quantal::cuda {
namespace detail {

using quantal::detail::half_bits;

template <class F>
concept has_half_scale = requires(typename F::block b) {
  { (b.d) } -> std::same_as<half_bits&>;
};
template <class F>
concept has_half_min = requires(typename F::block b) {
  { (b.dmin) } -> std::same_as<half_bits&>;
};
template <class F>
concept has_half_offset = requires(typename F::block b) {
  { (b.m) } -> std::same_as<half_bits&>;
};
/// F::scale() is a constant expression.
template <class F>
concept has_constant_scale = requires {
  typename std::bool_constant<(F::scale(typename F::block{}, 1.0f, 0), true)>;
};
/// Sub-scales, and sub-mins, that a plan finds.
template <class F>
constexpr bool plans_scales() noexcept {
  if constexpr (has_sub_scales<F>) return sub_scale_plan<F>.found;
  return false;
}
template <class F>
concept has_sub_mins = has_sub_scales<F> && requires(const typename F::block& b) {
  F::sub_min(b, 0);
};
template <class F>
constexpr bool plans_mins() noexcept {
  if constexpr (has_sub_mins<F>) return sub_min_plan<F>.found;
  return false;
}

/// The scale of group g, and its offset where there is one.
enum class scale_formula {
  other,
  block,  ///< d, m
  super,  ///< d * sub_scale(g), -(dmin * sub_min(g))
  row,    ///< row_scale * sub_scale(g)
};

/// Does a formula give scale and offset of group g of this block?
template <block_format F, scale_formula formula>
constexpr bool gives_scale(const typename F::block& b, float row_scale, int g) noexcept {
  const float scale = F::scale(b, row_scale, g);
  if constexpr (formula == scale_formula::block && has_half_scale<F>) {
    if constexpr (!F::layout.has_offset) return scale == b.d.get();
    if constexpr (has_half_offset<F>) return scale == b.d.get() && F::offset(b, row_scale, g) == b.m.get();
  } else if constexpr (plans_scales<F>()) {
    const auto sub = static_cast<float>(F::sub_scale(b, g));
    if constexpr (formula == scale_formula::row && !F::layout.has_offset) return scale == row_scale * sub;
    if constexpr (formula == scale_formula::super && has_half_scale<F>) {
      if constexpr (!F::layout.has_offset) return scale == b.d.get() * sub;
      if constexpr (has_half_min<F> && plans_mins<F>())
        return scale == b.d.get() * sub &&
               F::offset(b, row_scale, g) == -(b.dmin.get() * static_cast<float>(F::sub_min(b, g)));
    }
  }
  return false;
}

/// The same for blocks of random bytes.
template <block_format F, scale_formula formula>
constexpr bool follows() noexcept {
  const quantal::detail::probes<typename F::block> blocks;
  float d = 1.5f;
  for (typename F::block b : blocks.random) {
    d += 0.125f;
    // Finite fields, so that equal numbers compare so.
    if constexpr (has_half_scale<F>) b.d.set(d);
    if constexpr (has_half_min<F>) b.dmin.set(2 * d);
    if constexpr (has_half_offset<F>) b.m.set(3 * d);
    for (int g = 0; g < F::layout.groups(); ++g)
      if (!gives_scale<F, formula>(b, 0.625f * d, g)) return false;
  }
  return true;
}

template <block_format F>
inline constexpr scale_formula formula_of = [] {
  if constexpr (has_constant_scale<F>) {
    if (follows<F, scale_formula::block>()) return scale_formula::block;
    if (follows<F, scale_formula::super>()) return scale_formula::super;
    if (follows<F, scale_formula::row>()) return scale_formula::row;
  }
  return scale_formula::other;
}();

/// Bits of the four integers of a run: integer t has bits [low, low + count) in byte `first` + t from bit
/// `shift` on, or, packed, from bit `shift` + count * t of the block on.
struct run_field {
  int low, count, first, shift;
  bool packed;
};
struct run_fields {
  int n = 0;
  run_field at[4] = {};
};
/// Of run `run` of a plan; planes that follow each other in a byte become one field.
template <class Plan>
constexpr run_fields fields_of_run(const Plan& plan, int run) noexcept {
  run_fields f;
  for (int p = 0; p < plan.planes; ++p) {
    const auto& plane = plan.at[static_cast<std::size_t>(run / 2)][static_cast<std::size_t>(p)];
    const auto r = static_cast<std::size_t>(plane.packed ? 0 : run % 2);
    run_field next{plane.low, plane.count, plane.first[r], plane.shift[r], plane.packed};
    if (plane.packed) next.shift += 8 * next.first + 4 * plane.count * (run % 2);
    run_field* last = f.n ? &f.at[f.n - 1] : nullptr;
    if (last && !last->packed && !next.packed && last->first == next.first &&
        last->shift + last->count == next.shift && last->low + last->count == next.low)
      last->count += next.count;
    else
      f.at[f.n++] = next;
  }
  return f;
}

/// Where the integers of the groups of a format lie.
template <block_format F>
struct sub_scales {
  static constexpr run_fields fields(int run) noexcept { return fields_of_run(sub_scale_plan<F>, run); }
  static constexpr int base = sub_scale_plan<F>.base;
};
template <block_format F>
struct sub_mins {
  static constexpr run_fields fields(int run) noexcept { return fields_of_run(sub_min_plan<F>, run); }
  static constexpr int base = sub_min_plan<F>.base;
};

/// Field I of integer 4 * Run + t, in place; Block: the first byte of the block.
template <class Integers, int Run, int Block, int I, class Bytes>
QUANTAL_HD std::uint32_t read_field(const Bytes& bytes, int t) noexcept {
  constexpr run_fields fields = Integers::fields(Run);
  if constexpr (I >= fields.n) {
    return 0;
  } else {
    constexpr run_field f = fields.at[I];
    constexpr std::uint32_t mask = (1u << f.count) - 1;
    if constexpr (f.packed) {
      constexpr int bit = 8 * Block + f.shift;
      const std::uint32_t w =
          load_field<bit, 4 * f.count>(bytes) >> field_load<bit, 4 * f.count, Bytes::alignment>::shift;
      return (w >> f.count * t & mask) << f.low;
    } else {
      return shift_left<f.low - f.shift>(bytes.u8(Block + f.first + t)) & mask << f.low;
    }
  }
}
/// Integer 4 * Run + t.
template <class Integers, int Run, int Block, class Bytes>
QUANTAL_HD std::uint32_t read_integer(const Bytes& bytes, int t) noexcept {
  return (read_field<Integers, Run, Block, 0>(bytes, t) | read_field<Integers, Run, Block, 1>(bytes, t) |
          read_field<Integers, Run, Block, 2>(bytes, t) | read_field<Integers, Run, Block, 3>(bytes, t)) ^
         static_cast<std::uint32_t>(Integers::base);
}

/// Scales by a formula: Run counts fours of groups of the 256 weights.
template <block_format F, int Run>
struct planned_scale {
  static constexpr int per_block = F::layout.groups(), runs = per_block / 4;
  static constexpr int run = Run % runs, block = Run / runs * F::layout.bytes;

  template <class Bytes>
  QUANTAL_HD static affine get(const Bytes& bytes, float row_scale, int t) noexcept {
    const std::uint32_t sub = read_integer<sub_scales<F>, run, block>(bytes, t);
    affine a{row_scale, 0};
    if constexpr (formula_of<F> == scale_formula::super)
      a.scale = load_half<block + offsetof(typename F::block, d)>(bytes);
    a.scale *= biased_float<-lowest_sub_scale<F>>(sub);
    if constexpr (F::layout.has_offset) {
      const std::uint32_t min = read_integer<sub_mins<F>, run, block>(bytes, t);
      a.offset = -(load_half<block + offsetof(typename F::block, dmin)>(bytes) * biased_float<0>(min));
    }
    return a;
  }
};

}  // namespace detail

/// Scale and offset of group 4 * Run + t of the 256 weights, t < 4; called once per scale by one lane.
template <block_format F>
struct scale_reader {
  template <int Run, class Bytes>
  QUANTAL_HD static affine get(const Bytes& bytes, float row_scale, int t) noexcept {
    using detail::scale_formula;
    constexpr int per_block = F::layout.groups();
    const int g = 4 * Run + t;
    if constexpr (detail::formula_of<F> == scale_formula::block) {
      const int block = g / per_block * F::layout.bytes;
      affine a{detail::low_half(bytes.template u16<offsetof(typename F::block, d)>(block)), 0};
      if constexpr (F::layout.has_offset)
        a.offset = detail::low_half(bytes.template u16<offsetof(typename F::block, m)>(block));
      return a;
    } else if constexpr (detail::formula_of<F> != scale_formula::other) {
      return detail::planned_scale<F, Run>::get(bytes, row_scale, t);
    } else {
      const auto& block = bytes.template block<F>(g / per_block);
      affine a{F::scale(block, row_scale, g % per_block), 0};
      if constexpr (F::layout.has_offset) a.offset = F::offset(block, row_scale, g % per_block);
      return a;
    }
  }
};

/// The sign of an odd magnitude has a bit of its own.
template <>
struct scale_reader<iq3_k> {
  template <int Run, class Bytes>
  QUANTAL_HD static affine get(const Bytes& bytes, float, int t) noexcept {
    const std::uint32_t nibbles = bytes.template u16<6 + 2 * Run>() >> 4 * t & 15;
    const float magnitude = detail::biased_float<-1>(2 * nibbles);
    const float s = bytes.template u16<4>() >> (4 * Run + t) & 1 ? -magnitude : magnitude;
    return {detail::low_half(bytes.template u16<0>()) * s, 0};
  }
};

/// UE4M3.
template <>
struct scale_reader<nvfp4> {
  template <int Run, class Bytes>
  QUANTAL_HD static affine get(const Bytes& bytes, float, int t) noexcept {
    // Seven bits of a UE4M3 are those of a binary16 2^-8 times as large; the format wants half the value.
    const std::uint32_t s = bytes.u8(36 * Run + t), half = s == 127 ? 0 : (s & 127) << 7;
    return {128 * detail::low_half(half), 0};
  }
};

}  // namespace quantal::cuda
