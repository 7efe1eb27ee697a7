// Codes of the formats whose bits lie in planes (format/bit_plan.hpp), 32 or 64 weights at a time in the portable
// registers: load, shift, mask, or; then a table where codes are levels. This is what a format gets for its code()
// alone.
#pragma once

#include "quantal/format/bit_plan.hpp"
#include "quantal/kernel/decode/codes.hpp"
#include "quantal/simd/lookup.hpp"
#include "quantal/simd/unpack.hpp"

namespace quantal::kernel {
namespace detail {

using plane32 = bit_plane<4, 8>;

/// Do runs 2h and 2h + 1 make one of sixteen?
constexpr bool sixteen_together(const plane32& p, std::size_t h) noexcept {
  return p.first[2 * h + 1] == p.first[2 * h] + 8 && p.shift[2 * h + 1] == p.shift[2 * h];
}

/// A plane whose fields follow each other without gaps.
template <class A, plane32 p>
QUANTAL_INLINE simd::bytes32<A> read_packed(const std::uint8_t* b) noexcept {
  b += p.first[0];
  if constexpr (p.count == 1) {
    return simd::bits32<A>(b, std::uint8_t{p.mask()});
  } else if constexpr (p.count == 2) {
    return simd::field<-p.low>(simd::pairs32<A>(b), std::uint8_t{p.mask()});
  } else {
    const auto eight = [&](int i) QUANTAL_LAMBDA {
      return simd::spread_nibbles(simd::load_word<std::uint32_t>(b + 4 * i));
    };
    return simd::field<-p.low>(simd::bytes32<A>::words(eight(0), eight(1), eight(2), eight(3)),
                               std::uint8_t{p.mask()});
  }
}

/// Two runs of sixteen: of the same bytes, or of others.
template <class A, plane32 p>
QUANTAL_INLINE simd::bytes32<A> read_runs_of_16(const std::uint8_t* b) noexcept {
  constexpr int first = p.shift[0], second = p.shift[2];
  constexpr std::uint8_t mask = std::uint8_t{p.mask()}, low_mask = mask >> p.low;
  if constexpr (p.first[0] == p.first[2] && first == 0 && second == 4 && mask == 15) {
    return simd::nibbles16<A>(b + p.first[0]);
  } else {
    const auto both = p.first[0] == p.first[2]
                          ? simd::bytes32<A>::load_twice(b + p.first[0])
                          : simd::bytes32<A>::load_halves(b + p.first[0], b + p.first[2]);
    if constexpr (first == second)
      return simd::field<first - p.low>(both, mask);
    else if constexpr (first >= p.low && second >= p.low)
      return simd::fields16<first - p.low, second - p.low>(both, mask);
    else
      return simd::field<-p.low>(simd::fields16<first, second>(both, low_mask), mask);
  }
}

/// Four runs of eight, in general registers.
template <class A, plane32 p>
QUANTAL_INLINE simd::bytes32<A> read_runs_of_8(const std::uint8_t* b) noexcept {
  const auto eight = [&](std::size_t r) QUANTAL_LAMBDA {
    return simd::shift_right(simd::load_word<std::uint64_t>(b + p.first[r]), p.shift[r] - p.low) &
           simd::repeat8(std::uint8_t{p.mask()});
  };
  return simd::bytes32<A>::words(eight(0), eight(1), eight(2), eight(3));
}

/// A plane's bits of 32 weights, in place.
template <class A, plane32 p>
QUANTAL_INLINE simd::bytes32<A> read_plane(const std::uint8_t* b) noexcept {
  if constexpr (p.packed)
    return read_packed<A, p>(b);
  else if constexpr (p.contiguous() && p.count == 8)
    return simd::bytes32<A>::load(b + p.first[0]);
  else if constexpr (p.contiguous())
    return simd::field<p.shift[0] - p.low>(simd::bytes32<A>::load(b + p.first[0]), std::uint8_t{p.mask()});
  else if constexpr (sixteen_together(p, 0) && sixteen_together(p, 1))
    return read_runs_of_16<A, p>(b);
  else
    return read_runs_of_8<A, p>(b);
}

/// The same of 64 weights.
template <class A, plane32 p, plane32 q>
QUANTAL_INLINE simd::bytes64<A> read_planes(const std::uint8_t* b) noexcept {
  if constexpr (p.packed && p.count == 1 && q.first[0] == p.first[0] + 4)
    return simd::bytes64<A>::bits(b + p.first[0], std::uint8_t{p.mask()});
  else if constexpr (p.contiguous() && q.contiguous() && p.count < 8 && p.first[0] == q.first[0])
    return simd::bytes64<A>::template fields<p.shift[0] - p.low, q.shift[0] - q.low>(b + p.first[0],
                                                                                     std::uint8_t{p.mask()});
  else if constexpr (p.contiguous() && q.contiguous() && q.first[0] == p.first[0] + 32 &&
                     p.shift == q.shift && p.shift[0] >= p.low)
    return simd::bytes64<A>::template field<p.shift[0] - p.low>(b + p.first[0], std::uint8_t{p.mask()});
  else
    return simd::bytes64<A>::of(read_plane<A, p>(b), read_plane<A, q>(b));
}

/// Plane p of group g, of codes or of indices.
template <planar F, int g, int p>
inline constexpr plane32 plane_at = [] {
  plane32 q = code_plan<F>.at[std::size_t{g}][std::size_t{p}];
  q.low += code_shift<F>;
  return q;
}();

/// What the planes give for weights 32 * g .. of a block.
template <planar F, class A, int g>
QUANTAL_INLINE simd::bytes32<A> read32(const std::uint8_t* b) noexcept {
  auto v = read_plane<A, plane_at<F, g, 0>>(b);
  simd::unroll<code_plan<F>.planes - 1>(
      [&](auto p) QUANTAL_LAMBDA { v = v | read_plane<A, plane_at<F, g, p + 1>>(b); });
  if constexpr (code_plan<F>.base != 0) v = v ^ simd::bytes32<A>::all(code_plan<F>.base << code_shift<F>);
  return v;
}
template <planar F, class A, int c>
QUANTAL_INLINE simd::bytes64<A> read64(const std::uint8_t* b) noexcept {
  auto v = read_planes<A, plane_at<F, 2 * c, 0>, plane_at<F, 2 * c + 1, 0>>(b);
  simd::unroll<code_plan<F>.planes - 1>([&](auto p) QUANTAL_LAMBDA {
    v = v | read_planes<A, plane_at<F, 2 * c, p + 1>, plane_at<F, 2 * c + 1, p + 1>>(b);
  });
  return v;
}

/// Indices to codes of the first table.
template <has_levels F, class A>
QUANTAL_INLINE simd::bytes32<A> look_up(const simd::bytes32<A>& index) noexcept {
  constexpr int n = F::levels <= 16 ? 16 : F::levels <= 32 ? 32 : 64;
  const std::uint8_t* const table = level_codes<F, F::levels>.data();
  if constexpr (n == 16)
    return simd::lookup16<A>(table, index);
  else if constexpr (n == 32)
    return simd::lookup32<A>(table, index);
  else
    return simd::lookup64<A>(table, index);
}

/// What the second table adds, by group: `step` where the group's bit is set. Empty for formats with one table.
template <class F>
struct table_steps {
  explicit QUANTAL_INLINE table_steps(const std::uint8_t*) noexcept {}
};
template <has_two_tables F>
struct table_steps<F> {
  static constexpr int groups = F::layout.groups(), first = table_plan<F>.bit[0],
                       apart = table_plan<F>.bit[1] - first;
  static_assert(groups == 8 || groups == 16);
  std::uint8_t add[16];

  explicit QUANTAL_INLINE table_steps(const std::uint8_t* b) noexcept {
    std::uint64_t v[2] = {};
    simd::unroll<groups / 8>([&](auto h) QUANTAL_LAMBDA {
      constexpr int at = first + 8 * h * apart;
      if constexpr (apart == 1)
        v[h] = simd::spread_bits(simd::load_word<std::uint16_t>(b + at / 8) >> at % 8) * table_plan<F>.step;
      else
        v[h] = (simd::load_word<std::uint64_t>(b + at / 8) >> at % 8 & simd::repeat8(1)) * table_plan<F>.step;
    });
    __builtin_memcpy(add, v, 16);
  }
  /// Of weights 32 * g ..
  template <class A>
  QUANTAL_INLINE simd::bytes32<A> of(int g) const noexcept {
    if constexpr (F::layout.group == 16)
      return simd::bytes32<A>::halves(add[2 * g], add[2 * g + 1]);
    else
      return simd::bytes32<A>::all(add[g]);
  }
};

/// Are the bits that choose tables where table_steps finds them?
template <class F>
inline constexpr bool steps_in_reach = true;
template <has_two_tables F>
inline constexpr bool steps_in_reach<F> = [] {
  const auto& t = table_plan<F>;
  if (!t.found || t.step < 0 || (F::layout.groups() != 8 && F::layout.groups() != 16) || F::layout.group > 32)
    return false;
  const int apart = t.bit[1] - t.bit[0];
  for (std::size_t g = 1; g < t.bit.size(); ++g)
    if (t.bit[g] - t.bit[g - 1] != apart) return false;
  // A word of two or eight bytes is read from the bit's byte on.
  const int last = t.bit[t.bit.size() - 8] / 8 + (apart == 1 ? 2 : 8);
  return (apart == 8 || (apart == 1 && t.bit[0] % 8 == 0)) && last <= F::layout.bytes;
}();

}  // namespace detail

/// Formats whose codes the readers of this header give.
template <class F>
concept decoded_by_plan = planar<F> && detail::steps_in_reach<F> && levels_in_reach<F>;

namespace detail {

/// Codes of weights 32 * g .. through the table of levels.
template <class F, class A, int g>
QUANTAL_INLINE simd::bytes32<A> levels32(const std::uint8_t* b, const table_steps<F>& steps) noexcept {
  auto v = look_up<F, A>(read32<F, A, g>(b));
  if constexpr (has_two_tables<F>) v = v + steps.template of<A>(g);
  return v;
}

}  // namespace detail

template <decoded_by_plan F, class A>
QUANTAL_INLINE void block_codes(const F&, const typename F::block& block, std::uint8_t* codes,
                                const simd::on<A>&) noexcept {
  constexpr int n = F::layout.elements;
  const auto* const b = reinterpret_cast<const std::uint8_t*>(&block);
  if constexpr (looks_up<F>) {
    const detail::table_steps<F> steps(b);
    simd::unroll<n / 64>([&](auto c) QUANTAL_LAMBDA {
      simd::store64<A>(codes + 64 * c, detail::levels32<F, A, 2 * c>(b, steps),
                       detail::levels32<F, A, 2 * c + 1>(b, steps));
    });
    if constexpr (n % 64 != 0) detail::levels32<F, A, n / 64 * 2>(b, steps).store(codes + n / 64 * 64);
  } else if constexpr (n % 64 != 0 || code_plan<F>.base != 0) {
    simd::unroll<n / 32>([&](auto g) QUANTAL_LAMBDA { detail::read32<F, A, g>(b).store(codes + 32 * g); });
  } else {
    simd::unroll<n / 64>([&](auto c) QUANTAL_LAMBDA { detail::read64<F, A, c>(b).store(codes + 64 * c); });
  }
}

}  // namespace quantal::kernel
