// Scales and offsets of a group of 256 weights, bit for bit those of F::scale() and F::offset().
//
// Most formats have one of three formulas (format/scale_plan.hpp) over a binary16 field `d` of the block and
// integers that the bit_plan of their sub-scales finds. Formats with another go through F::scale().
#pragma once

#include <cstddef>

#include "quantal/cuda/fragments/bits.hpp"
#include "quantal/format/iq3_k.hpp"
#include "quantal/format/nvfp4.hpp"
#include "quantal/format/scale_plan.hpp"

namespace quantal::cuda {
namespace detail {

/// The formulas that are read here: of the whole block, or of a sub-scale per group.
template <block_format F>
constexpr bool scaled_by_block() noexcept {
  return scale_formula_of<F> == scale_formula::half &&
         (offset_formula_of<F> == offset_formula::none || offset_formula_of<F> == offset_formula::half);
}
template <block_format F>
constexpr bool scaled_by_group() noexcept {
  if constexpr (plans_sub_scales<F>()) {
    if (scale_formula_of<F> == scale_formula::row_times) return !F::layout.has_offset;
    if (scale_formula_of<F> == scale_formula::half_times)
      return !F::layout.has_offset ||
             (offset_formula_of<F> == offset_formula::half_times && plans_sub_mins<F>());
  }
  return false;
}

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
    if constexpr (scale_formula_of<F> == scale_formula::half_times)
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
    constexpr int per_block = F::layout.groups();
    const int g = 4 * Run + t;
    if constexpr (detail::scaled_by_block<F>()) {
      const int block = g / per_block * F::layout.bytes;
      affine a{detail::low_half(bytes.template u16<offsetof(typename F::block, d)>(block)), 0};
      if constexpr (F::layout.has_offset)
        a.offset = detail::low_half(bytes.template u16<offsetof(typename F::block, m)>(block));
      return a;
    } else if constexpr (detail::scaled_by_group<F>()) {
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
