// Scales and offsets of a block by their formula (format/scale_plan.hpp): the block's half, or that half or the row's
// scale times an integer whose bits lie in planes. Others are computed one by one by F::scale, or have overloads of their
// own.
#pragma once

#include "quantal/format/scale_plan.hpp"
#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/half.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {

/// One half scale for the block, and one half offset where there are offsets: several short blocks share a conversion.
template <class F>
concept half_scaled = block_format<F> &&(scale_formula_of<F> == scale_formula::half) &&
                      (offset_formula_of<F> == offset_formula::none ||
                       offset_formula_of<F> == offset_formula::half);

namespace detail {

using plane8 = bit_plane<2, 4>;

/// Eight integers whose fields follow each other without gaps, a byte each.
template <plane8 p>
QUANTAL_INLINE std::uint64_t read_packed(const std::uint8_t* b) noexcept {
  b += p.first[0];
  if constexpr (p.count == 1)
    return simd::spread_bits(*b) << p.low;
  else if constexpr (p.count == 2)
    return simd::spread_pairs(simd::load_word<std::uint16_t>(b)) << p.low;
  else
    return simd::spread_nibbles(simd::load_word<std::uint32_t>(b)) << p.low;
}

/// The part of run r in (bytes at `first`, shifted right) & mask.
struct run_part {
  int first, right, mask;
};
struct run_part_list {
  std::array<run_part, 4> part{};
  int count = 0;
};
/// The parts of run r of group h: planes that one shift serves are one part.
template <auto& plan, std::size_t h, std::size_t r>
inline constexpr auto run_parts = [] {
  run_part_list t;
  for (std::size_t p = 0; static_cast<int>(p) < plan.planes; ++p) {
    const plane8& q = plan.at[h][p];
    if (q.packed) continue;
    const run_part next{q.first[r], q.shift[r] - q.low, q.mask()};
    const auto last = static_cast<std::size_t>(t.count - 1);
    if (t.count && t.part[last].first == next.first && t.part[last].right == next.right)
      t.part[last].mask |= next.mask;
    else
      t.part[static_cast<std::size_t>(t.count++)] = next;
  }
  return t;
}();
/// Do both runs of a plan make one of eight bytes, in every plane?
template <auto& plan, std::size_t h>
inline constexpr bool one_run = [] {
  const auto &a = run_parts<plan, h, 0>, &b = run_parts<plan, h, 1>;
  if (a.count != b.count) return false;
  for (std::size_t i = 0; static_cast<int>(i) < a.count; ++i)
    if (b.part[i].first != a.part[i].first + 4 || b.part[i].right != a.part[i].right ||
        b.part[i].mask != a.part[i].mask)
      return false;
  return true;
}();

template <class U, auto& plan, std::size_t h, std::size_t r>
QUANTAL_INLINE std::uint64_t read_run(const std::uint8_t* b) noexcept {
  U v = 0;
  simd::unroll<run_parts<plan, h, r>.count>([&](auto i) QUANTAL_LAMBDA {
    constexpr run_part part = run_parts<plan, h, r>.part[i];
    v |= simd::shift_right(simd::load_word<U>(b + part.first), part.right) &
         static_cast<U>(simd::repeat8(static_cast<std::uint8_t>(part.mask)));
  });
  return v;
}

/// Integers 8 * h .. of a plan of sub-scales or sub-mins, a byte each.
template <auto& plan, int h>
QUANTAL_INLINE std::uint64_t eight_of(const std::uint8_t* b) noexcept {
  std::uint64_t v = simd::repeat8(static_cast<std::uint8_t>(plan.base));
  simd::unroll<plan.planes>([&](auto p) QUANTAL_LAMBDA {
    if constexpr (plan.at[std::size_t{h}][p].packed) v ^= read_packed<plan.at[std::size_t{h}][p]>(b);
  });
  if constexpr (one_run<plan, std::size_t{h}>)
    return v ^ read_run<std::uint64_t, plan, std::size_t{h}, 0>(b);
  else
    return v ^ (read_run<std::uint32_t, plan, std::size_t{h}, 0>(b) |
                read_run<std::uint32_t, plan, std::size_t{h}, 1>(b) << 32);
}

/// What sub_scales8 gives above sub_scale().
template <block_format F>
inline constexpr int sub_scale_bias = plans_sub_scales<F>() ? -lowest_sub_scale<F> : 128;
/// Sub-scales of groups 8 * h .., a byte each.
template <block_format F, int h>
QUANTAL_INLINE std::uint64_t sub_scales8(const std::uint8_t* b) noexcept {
  if constexpr (plans_sub_scales<F>()) {
    return eight_of<sub_scale_plan<F>, h>(b);
  } else {
    // 128 + size or 128 - size; no byte borrows from the next.
    const std::uint64_t size = eight_of<magnitude_plan<F>, h>(b),
                        negative = eight_of<sign_plan<F>, h>(b) * 255;
    return simd::repeat8(128) + size - 2 * (size & negative);
  }
}

/// Formats whose groups are what kernels give a scale: then the scales of a block are those of its groups.
template <class F>
concept scales_by_group = has_sub_scales<F> &&(F::layout.group == sub_group<F>);
template <class F>
concept block_scaled = (scale_formula_of<F> == scale_formula::half ||
                        scale_formula_of<F> == scale_formula::row);
template <class F>
concept group_scaled = scales_by_group<F> &&(plans_sub_scales<F>() || plans_signed_sub_scales<F>()) &&
                       (scale_formula_of<F> == scale_formula::row_times ||
                        scale_formula_of<F> == scale_formula::half_times ||
                        (scale_formula_of<F> == scale_formula::half_times_odd && plans_sub_scales<F>()));
template <class F>
concept common_offset = (offset_formula_of<F> == offset_formula::none ||
                         (block_scaled<F> && offset_formula_of<F> == offset_formula::half) ||
                         (scales_by_group<F> && plans_sub_mins<F>() &&
                          offset_formula_of<F> == offset_formula::half_times));

}  // namespace detail

/// Formats whose scales and offsets the readers of this header give.
template <class F>
concept common_scales = block_format<F> &&
    (detail::block_scaled<F> || detail::group_scaled<F>)&&(detail::common_offset<F>);

template <common_scales F, class A>
QUANTAL_INLINE void block_scales(const F&, const typename F::block& block, float row_scale, float* scales,
                                 [[maybe_unused]] float* offsets,
                                 [[maybe_unused]] const simd::on<A>& tag) noexcept {
  constexpr scale_formula kind = scale_formula_of<F>;
  constexpr int n = F::layout.elements / sub_group<F>;
  [[maybe_unused]] const auto* const b = reinterpret_cast<const std::uint8_t*>(&block);
  if constexpr (detail::block_scaled<F>) {
    float d = row_scale;
    if constexpr (kind == scale_formula::half) d = simd::half_on(block.d, tag);
    for (int s = 0; s < n; ++s) scales[s] = d;
  } else if constexpr (kind == scale_formula::half_times_odd) {
    // d * scale_unit is exact, a power of two; the product is rounded once.
    const float unit = simd::half_on(block.d, tag) * F::scale_unit;
    simd::unroll<n / 8>([&](auto h) QUANTAL_LAMBDA {
      const std::uint64_t odd = 2 * detail::eight_of<sub_scale_plan<F>, h>(b) + simd::repeat8(1);
      simd::scale_bytes8<A>(unit, odd, 0, scales + 8 * h);
    });
  } else {
    float d = row_scale;
    if constexpr (kind == scale_formula::half_times) d = simd::half_on(block.d, tag);
    simd::unroll<n / 8>([&](auto h) QUANTAL_LAMBDA {
      simd::scale_bytes8<A>(d, detail::sub_scales8<F, h>(b), detail::sub_scale_bias<F>, scales + 8 * h);
    });
  }
  if constexpr (offset_formula_of<F> == offset_formula::half) {
    const float m = simd::half_on(block.m, tag);
    for (int s = 0; s < n; ++s) offsets[s] = m;
  } else if constexpr (offset_formula_of<F> == offset_formula::half_times) {
    const float m = -simd::half_on(block.dmin, tag);
    simd::unroll<n / 8>([&](auto h) QUANTAL_LAMBDA {
      simd::scale_bytes8<A>(m, detail::eight_of<sub_min_plan<F>, h>(b), 0, offsets + 8 * h);
    });
  }
}

}  // namespace quantal::kernel
