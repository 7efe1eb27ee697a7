// Codes of formats that only select bits, read by their bit_plan: every plane is a load at an offset of the
// plan, a shift and a mask. Where codes are levels of a table, the bits are an index that is looked up.
#pragma once

#include "quantal/cuda/fragments/lookup.hpp"
#include "quantal/format/bit_plan.hpp"
#include "quantal/format/q6_K.hpp"

namespace quantal::cuda {
namespace detail {

/// Bits of an index into the levels.
template <block_format F>
constexpr int index_bits() noexcept {
  if constexpr (has_levels<F>) return static_cast<int>(std::bit_width(static_cast<unsigned>(F::levels - 1)));
  return 0;
}
/// What is added to levels in a table of bytes: the bias or, where two halves of a table must have signs of
/// their own (lookup_32, lookup_64), something close to it. -1: there is nothing that does.
template <block_format F>
constexpr int table_bias() noexcept {
  if constexpr (!looks_up<F>) return 0;
  constexpr int n = F::levels, most = 255;
  for (int distance = 0; distance < 128; ++distance)
    for (const int add : {code_bias<F> + distance, code_bias<F> - distance}) {
      bool fits = true;
      for (int i = 0; i < n; ++i) {
        const int v = first_level<F>(i ^ code_plan<F>.base) + add;
        fits = fits && v >= 0 && v <= most && (n <= 16 || (v < 128) == (i < n / 2));
      }
      if (fits) return add;
    }
  return -1;
}
/// The table, by the bits of the index as they are stored; `add` is added to every level.
template <block_format F, int N>
constexpr level_words<N> stored_table(int add, int table = 0) noexcept {
  const auto level = [&](int i) {
    const int index = (i ^ code_plan<F>.base) & (F::levels - 1);
    if constexpr (has_two_tables<F>)
      return F::level(index, i < F::levels ? table : 1);
    else
      return F::level(index);
  };
  return level_words<N>::of(level, add);
}
/// All entries fit in seven bits.
template <block_format F>
constexpr bool low_table() noexcept {
  for (int i = 0; i < F::levels; ++i)
    if (first_level<F>(i) + table_bias<F>() > 127) return false;
  return true;
}

/// Does lane t find the four runs of every plane at 8 * t from the first one's begin?
template <block_format F>
constexpr bool consecutive_planes() noexcept {
  for (const auto& chunk : code_plan<F>.at)
    for (int p = 0; p < code_plan<F>.planes; ++p)
      if (!chunk[static_cast<std::size_t>(p)].packed && !chunk[static_cast<std::size_t>(p)].contiguous())
        return false;
  return true;
}

/// Formats whose groups of 16 are read in consecutive order although the halves of a chunk have scales of
/// their own. Scales are exchanged once for both then, and wide unaligned reads are cheaper; int8 mma works
/// with half of its input zero. Of q6_K that is 9 % fewer instructions for one vector, 3 % for many, 2 % more
/// for few.
template <block_format F>
inline constexpr bool keeps_chunks = false;
template <>
inline constexpr bool keeps_chunks<q6_K> = true;

template <block_format F>
constexpr fragment_order plane_order() noexcept {
  if (looks_up<F>) return F::layout.group < 32 ? fragment_order::halves : fragment_order::interleaved;
  if (consecutive_planes<F>() && (F::layout.group >= 32 || keeps_chunks<F>))
    return fragment_order::consecutive;
  return fragment_order::halves;
}

/// Formats that plane_reader can read: lookups exist, tables differ by a constant.
template <block_format F>
constexpr bool has_readable_planes() noexcept {
  if constexpr (!planar<F> || (F::layout.group % 32 != 0 && F::layout.group != 16)) {
    return false;
  } else {
    if constexpr (has_two_tables<F>)
      if (!table_plan<F>.found || F::levels < 4) return false;
    if constexpr (looks_up<F>)
      return (F::levels & (F::levels - 1)) == 0 && F::levels <= 64 && table_bias<F>() >= 0;
    return true;
  }
}

/// Plane P of chunk C of the 256 weights.
template <block_format F, int C, int P>
struct chunk_plane {
  static constexpr int n = F::layout.elements;
  static constexpr auto plane = code_plan<F>.at[32 * C % n / 32][P];
  static constexpr int low = plane.low, count = plane.count;
  static constexpr bool packed = plane.packed;

  /// The first byte of run r.
  static constexpr int first(int r) noexcept {
    return 32 * C / n * F::layout.bytes + plane.first[static_cast<std::size_t>(r)];
  }
  static constexpr int shift(int r) noexcept { return plane.shift[static_cast<std::size_t>(r)]; }
  /// Of the two runs of half H of a chunk: how far the second begins from where the first ends, and how many
  /// bits higher it lies.
  static constexpr int skip(int h) noexcept { return first(2 * h + 1) - first(2 * h) - 8; }
  static constexpr int turn(int h) noexcept { return shift(2 * h + 1) - shift(2 * h); }
  /// Are both halves read from the same bytes, with shifts that are constants, or the same variable?
  static constexpr bool same_bytes() noexcept { return first(0) == first(2) && skip(0) == skip(1); }
  static constexpr bool fixed() noexcept { return turn(0) == 0 && turn(1) == 0; }

  /// Is half 1 of the integers, from bit From on, in the same bytes once half 0 is at Place?
  template <int From, int Place>
  static constexpr bool turned_alike() noexcept {
    const int at = Place + shift(2) - shift(0);
    return same_bytes() && turn(0) == turn(1) && at >= 0 && at + low + count - From <= 8;
  }

  /// Four bytes of half H of the chunk that are lane t's in the orders `halves` and `interleaved`.
  template <int H, class Bytes>
  QUANTAL_HD static std::uint32_t load(const Bytes& bytes, int t) noexcept {
    constexpr int at = first(2 * H), more = skip(H);
    if constexpr (more % 4 == 0)
      return bytes.template u32<at>(4 * t + more * (t >> 1));
    else
      return t & 2 ? bytes.template u32<at + more>(4 * t) : bytes.template u32<at>(4 * t);
  }
  /// The same, with bit From of the integers at bit Place of each byte; all other bits are anything.
  template <int H, int From, int Place, class Bytes>
  QUANTAL_HD static std::uint32_t placed(const Bytes& bytes, int t) noexcept {
    constexpr int by = Place - (shift(2 * H) + From - low);  // to the left
    if constexpr (packed) {
      return shift_left<Place - (From - low)>(unpacked<H>(bytes, t));
    } else if constexpr (turn(H) == 0) {
      return shift_left<by>(load<H>(bytes, t));
    } else if constexpr (H == 1 && turned_alike<From, Place>()) {
      return shift_left<shift(0) - shift(2)>(placed<0, From, Place>(bytes, t));
    } else {
      return rotate_left(load<H>(bytes, t), by - turn(H) * (t >> 1));
    }
  }
  /// Lane t's integers of a packed plane in the lowest bits of the bytes, in those orders.
  template <int H, class Bytes>
  QUANTAL_HD static std::uint32_t unpacked(const Bytes& bytes, int t) noexcept {
    constexpr int at = first(0) + 2 * count * H;
    if constexpr (count == 1) {
      // The sixteen bits of a half: four to a lane.
      return spread_bits<0>(
          load_field<8 * at, 16>(bytes) >> (field_load<8 * at, 16, Bytes::alignment>::shift + 4 * t) & 15);
    } else if constexpr (count == 2) {
      return spread_pairs(bytes.u8(at + t));
    } else {
      return spread_nibbles(bytes.template u16<at>(2 * t));
    }
  }
  /// The eight of lane t in consecutive order, the lowest bit at bit Place of each byte; all other bits are
  /// anything.
  template <int Place, class Bytes>
  QUANTAL_HD static fragment_codes consecutive(const Bytes& bytes, int t) noexcept {
    constexpr int at = first(0);
    if constexpr (!packed) {
      const word_pair w = bytes.template u64<at>(8 * t);
      return {shift_left<Place - shift(0)>(w.low), shift_left<Place - shift(0)>(w.high)};
    } else if constexpr (count == 1) {
      const std::uint32_t b = bytes.u8(at + t);
      return {spread_bits<Place>(b & 15), spread_bits<Place>(b >> 4)};
    } else if constexpr (count == 2) {
      const std::uint32_t w = bytes.template u16<at>(2 * t);
      return {spread_pairs(w) << Place, spread_pairs(w >> 8) << Place};
    } else {
      const std::uint32_t w = bytes.template u32<at>(4 * t);
      return {spread_nibbles(w) << Place, spread_nibbles(w >> 16) << Place};
    }
  }

  /// Bits From .. From + Count - 1 of both halves, at bit Place of nibbles that alternate between the two;
  /// all other bits are anything.
  template <int From, int Count, int Place, class Bytes>
  QUANTAL_HD static std::uint32_t merged(const Bytes& bytes, int t) noexcept {
    constexpr int a = shift(0) + From - low, b = shift(2) + From - low;
    if constexpr (!packed && fixed() && same_bytes() && b == a + 4) {
      return shift_left<Place - a>(load<0>(bytes, t));
    } else if constexpr (!packed && fixed() && a == b && a % 4 + Count <= 4) {
      return shift_left<Place - a % 4>(merge_nibbles<a / 4>(load<0>(bytes, t), load<1>(bytes, t)));
    } else {
      constexpr std::uint32_t mask = every_byte(((1 << Count) - 1) << Place);
      return (placed<0, From, Place>(bytes, t) & mask) | (placed<1, From, Place + 4>(bytes, t) & mask << 4);
    }
  }
};

/// Codes without a lookup.
template <block_format F, int C>
struct plain_codes {
  template <class Bytes>
  QUANTAL_HD static fragment_codes get(const Bytes& bytes, int t) noexcept {
    fragment_codes o = plane<0>(bytes, t);
    add<1>(o, bytes, t);
    add<2>(o, bytes, t);
    add<3>(o, bytes, t);
    constexpr std::uint32_t base = every_byte(code_plan<F>.base << code_shift<F>);
    return {o.low ^ base, o.high ^ base};
  }

 private:
  template <int P, class Bytes>
  QUANTAL_HD static fragment_codes plane(const Bytes& bytes, int t) noexcept {
    using at = chunk_plane<F, C, P>;
    constexpr int place = at::low + code_shift<F>;
    constexpr std::uint32_t mask = every_byte(((1 << at::count) - 1) << place);
    fragment_codes o{};
    if constexpr (plane_order<F>() == fragment_order::consecutive)
      o = at::template consecutive<place>(bytes, t);
    else
      o = {at::template placed<0, at::low, place>(bytes, t),
           at::template placed<1, at::low, place>(bytes, t)};
    return {o.low & mask, o.high & mask};
  }
  template <int P, class Bytes>
  QUANTAL_HD static void add(fragment_codes& o, const Bytes& bytes, int t) noexcept {
    if constexpr (P < code_plan<F>.planes) {
      const fragment_codes next = plane<P>(bytes, t);
      o = {o.low | next.low, o.high | next.high};
    }
  }
};

/// Codes that are looked up.
template <block_format F, int C>
struct level_codes {
  static constexpr int n = F::layout.elements, bits = index_bits<F>(), add = table_bias<F>();
  static constexpr bool split = F::layout.group < 32;

  /// Bits From .. From + Count - 1 of the indices at bit Place of nibbles. Other bits are zero if Clear, or
  /// anything.
  template <int From, int Count, int Place, bool Clear, class Bytes>
  QUANTAL_HD static std::uint32_t index(const Bytes& bytes, int t) noexcept {
    constexpr std::uint32_t mask = 0x11111111u * static_cast<std::uint32_t>(((1 << Count) - 1) << Place);
    const std::uint32_t w = part<0, From, Count, Place>(bytes, t) | part<1, From, Count, Place>(bytes, t) |
                            part<2, From, Count, Place>(bytes, t) | part<3, From, Count, Place>(bytes, t);
    return Clear ? w & mask : w;
  }
  template <class Bytes>
  QUANTAL_HD static std::uint32_t nibbles(const Bytes& bytes, int t) noexcept {
    return index<0, 4, 0, false>(bytes, t);
  }

  /// Entries of the table that the chunk has: of both, if they fit and its halves choose for themselves.
  template <class Bytes>
  QUANTAL_HD static fragment_codes get(const Bytes& bytes, int t) noexcept {
    if constexpr (bits == 6)
      return chosen(bytes, lookup_64(stored_table<F, 64>(add), nibbles(bytes, t),
                                     index<4, 1, 3, false>(bytes, t), index<5, 1, 2, false>(bytes, t)));
    else if constexpr (bits == 5)
      return chosen(bytes,
                    lookup_32(stored_table<F, 32>(add), nibbles(bytes, t), index<4, 1, 2, false>(bytes, t)));
    else if constexpr (bits == 4)
      return chosen(bytes, lookup_nibbles(nibbles(bytes, t)));
    else
      return few(bytes, index<0, bits, 0, true>(bytes, t));
  }

 private:
  template <int P, int From, int Count, int Place, class Bytes>
  QUANTAL_HD static std::uint32_t part(const Bytes& bytes, int t) noexcept {
    if constexpr (P >= code_plan<F>.planes) {
      return 0;
    } else {
      using at = chunk_plane<F, C, P>;
      constexpr int first = From > at::low ? From : at::low;
      constexpr int last = From + Count < at::low + at::count ? From + Count : at::low + at::count;
      constexpr std::uint32_t mask =
          0x11111111u * static_cast<std::uint32_t>(((1 << (last > first ? last - first : 0)) - 1)
                                                   << (Place + first - From));
      if constexpr (first >= last)
        return 0;
      else if constexpr (last - first == Count)
        return at::template merged<first, Count, Place>(bytes, t);
      else
        return at::template merged<first, last - first, Place + first - From>(bytes, t) & mask;
    }
  }
  QUANTAL_HD static fragment_codes lookup_nibbles(std::uint32_t w) noexcept {
    constexpr level_words<16> table = stored_table<F, 16>(add);
    if constexpr (low_table<F>())
      return lookup_16_narrow(table, w);
    else
      return lookup_16(table, w);
  }
  /// Tables of up to eight levels.
  template <class Bytes>
  QUANTAL_HD static fragment_codes few(const Bytes& bytes, std::uint32_t w) noexcept {
    if constexpr (!has_two_tables<F> || bits == 3) {
      return chosen(bytes, lookup_8(stored_table<F, 8>(add), w));
    } else {
      constexpr level_words<8> table = stored_table<F, 8>(code_bias<F>);
      if constexpr (split) {
        // Bit 2 of an index chooses the table.
        const std::uint32_t first = second_table<0>(bytes) ? 0x04040404u : 0;
        const std::uint32_t second = second_table<1>(bytes) ? 0x40404040u : 0;
        return unmix(lookup_8(table, w | first | second));
      } else {
        const std::uint32_t levels = second_table<0>(bytes) ? table.words[1] : table.words[0];
        return {byte_permute(levels, 0, w), byte_permute(levels, 0, w >> 16)};
      }
    }
  }
  /// The block bit that chooses the table of half H of the chunk, in the 256 weights.
  template <int H>
  static constexpr int table_bit() noexcept {
    constexpr int g = (32 * C % n + 16 * H) / F::layout.group;
    return 8 * (32 * C / n * F::layout.bytes) + table_plan<F>.bit[g];
  }
  template <int H, class Bytes>
  QUANTAL_HD static bool second_table(const Bytes& bytes) noexcept {
    constexpr int bit = table_bit<H>();
    return load_field<bit, 1>(bytes) >> field_load<bit, 1, Bytes::alignment>::shift & 1;
  }
  /// What entries of half H lack to be code + bias.
  template <int H, class Bytes>
  QUANTAL_HD static std::uint32_t missing(const Bytes& bytes) noexcept {
    constexpr int more = code_bias<F> - add;
    if constexpr (has_two_tables<F>)
      return second_table<H>(bytes) ? every_multiple(more + table_plan<F>.step) : every_multiple(more);
    else
      return every_multiple(more);
  }
  static constexpr std::uint32_t every_multiple(int v) noexcept {
    return 0x01010101u * static_cast<std::uint32_t>(v);
  }

  /// Codes from the entries of the first table. Bytes of the halves alternate.
  template <class Bytes>
  QUANTAL_HD static fragment_codes chosen(const Bytes& bytes, const fragment_codes& o) noexcept {
    const std::uint32_t first = missing<0>(bytes);
    if constexpr (!split) return {o.low + first, o.high + first};
    const std::uint32_t second = missing<1>(bytes);
    const fragment_codes fours = unmix(o);
    return {fours.low + first, fours.high + second};
  }
};

}  // namespace detail

template <class F>
concept readable_by_plan = block_format<F> && detail::has_readable_planes<F>();

/// Codes by the plan of a format.
template <readable_by_plan F>
struct plane_reader {
  static constexpr fragment_order order = detail::plane_order<F>();
  static constexpr int bias = code_bias<F>;
  static constexpr bool narrow = bias != 128;  ///< code + bias fits in 7 bits
  /// As in code_reader. The bytes of a lookup in `halves` have to be sorted once more.
  static constexpr bool quick = narrow && !detail::keeps_chunks<F> &&
                                !(looks_up<F> && (has_two_tables<F> || order == fragment_order::halves));

  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    if constexpr (looks_up<F>)
      return detail::level_codes<F, C>::get(bytes, t);
    else
      return detail::plain_codes<F, C>::get(bytes, t);
  }
};

namespace detail {

/// Levels that take eight bits, of one table of sixteen, read in interleaved order.
template <block_format F>
constexpr bool has_wide_levels() noexcept {
  return looks_up<F> && index_bits<F>() == 4 && code_bias<F> == 128 && !has_two_tables<F> &&
         plane_order<F>() == fragment_order::interleaved;
}

}  // namespace detail

/// Offers levels as bf16 besides, exactly: cheaper than through such codes.
template <readable_by_plan F>
struct level_reader : plane_reader<F> {
  /// Pairs of weights.
  template <int C, class Bytes>
  QUANTAL_HD static void levels(const Bytes& bytes, int t, std::uint32_t (&pairs)[4]) noexcept {
    constexpr auto low_bytes = detail::level_words<16>::of([](int i) { return bf16_byte(i, 0); }, 0);
    constexpr auto high_bytes = detail::level_words<16>::of([](int i) { return bf16_byte(i, 1); }, 0);
    const std::uint32_t nibbles = detail::level_codes<F, C>::nibbles(bytes, t);
    const fragment_codes low = detail::lookup_16(low_bytes, nibbles),
                         high = detail::lookup_16(high_bytes, nibbles);
    pairs[0] = byte_permute(low.low, high.low, 0x5140);
    pairs[1] = byte_permute(low.low, high.low, 0x7362);
    pairs[2] = byte_permute(low.high, high.high, 0x5140);
    pairs[3] = byte_permute(low.high, high.high, 0x7362);
  }

 private:
  static constexpr int bf16_byte(int i, int byte) noexcept {
    const auto level = static_cast<float>(first_level<F>(i ^ code_plan<F>.base));
    return static_cast<int>(__builtin_bit_cast(std::uint32_t, level) >> (16 + 8 * byte) & 255);
  }
};

template <readable_by_plan F>
struct fragment_reader<F>
    : std::conditional_t<detail::has_wide_levels<F>(), level_reader<F>, plane_reader<F>> {};

}  // namespace quantal::cuda
