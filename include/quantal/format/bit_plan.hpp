// Where the bits of a format's codes and scales lie in its block, read off code() and sub_scale() at compile time.
//
// Most formats only select bits: every bit of a code is one bit of the block. Evaluating code() on blocks whose bits
// are numbered finds out which. Kernels read those bits in planes, many weights at a time, so that a format needs no
// decoder besides code(). Grids, trellises and digits of base 3 are no selections: they have no plan, and decoders of
// their own.
//
// Constant evaluation is not free: only the first integer of every run is numbered, the others are checked on random
// blocks (0.05 s for a format of 256 weights with GCC 12; numbering all of them took 0.3 s and more steps than Clang
// allows).
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include "quantal/code_bias.hpp"
#include "quantal/format.hpp"

namespace quantal {

/// Bits [low, low + count) of `runs` runs of `length` integers that follow each other. In one of two arrangements:
///   bytes   integer i of run r has them in byte first[r] + i of the block, from bit shift[r] on;
///   packed  one after another without gaps: those of integer i begin at bit 8 * first[0] + count * i.
template <int runs_, int length_>
struct bit_plane {
  static constexpr int runs = runs_, length = length_;
  int low = 0, count = 0;
  bool packed = false;
  std::array<int, std::size_t{runs}> first{}, shift{};

  /// Are the runs one, of consecutive bytes at one shift?
  constexpr bool contiguous() const noexcept {
    if (packed) return false;
    for (std::size_t r = 1; r < runs; ++r)
      if (first[r] != first[0] + length * static_cast<int>(r) || shift[r] != shift[0]) return false;
    return true;
  }
  /// Where the bits of an integer are, in place.
  constexpr int mask() const noexcept { return ((1 << count) - 1) << low; }
  /// The block bit where those of integer i begin.
  constexpr int bit(int i) const noexcept {
    const auto r = static_cast<std::size_t>(i / length);
    return packed ? 8 * first[0] + count * i : 8 * (first[r] + i % length) + shift[r];
  }
  /// The bits of integer i, in place.
  constexpr int get(const std::uint8_t* bytes, int i) const noexcept {
    return bytes[bit(i) / 8] >> bit(i) % 8 << low & mask();
  }
  constexpr bool operator==(const bit_plane&) const = default;
};

/// The planes of n integers, runs * length at a time. Planes of all groups have the same bits and arrangement.
template <int n, int runs, int length>
struct plane_plan {
  using plane = bit_plane<runs, length>;
  static constexpr int per_group = runs * length, groups = n / per_group, max_planes = 4;
  bool found = false;
  int base = 0;    ///< xor of every integer
  int planes = 0;  ///< how many there are
  std::array<std::array<plane, max_planes>, std::size_t{n / per_group}> at{};

  /// The bits that planes give.
  constexpr int mask() const noexcept {
    int m = 0;
    for (std::size_t p = 0; static_cast<int>(p) < planes; ++p) m |= at[0][p].mask();
    return m;
  }
  constexpr int get(const std::uint8_t* bytes, int i) const noexcept {
    int v = base;
    for (std::size_t p = 0; static_cast<int>(p) < planes; ++p)
      v ^= at[static_cast<std::size_t>(i / per_group)][p].get(bytes, i % per_group);
    return v;
  }
};

namespace detail {

/// Blocks to evaluate a format's functions on.
template <class Block>
struct probes {
  static constexpr int bytes = static_cast<int>(sizeof(Block)), numbers = std::bit_width(8u * bytes - 1),
                       randoms = 4;
  struct raw {
    std::uint8_t byte[std::size_t{bytes}];
  };
  Block zeros{}, ones{};
  Block numbered[std::size_t{numbers}]{};  ///< bit i of the j-th is bit j of the number i
  Block random[std::size_t{randoms}]{};
  raw random_bytes[std::size_t{randoms}]{};
  Block finite[std::size_t{randoms}]{};  ///< random too, but no byte makes a half or a float infinite

  constexpr probes() noexcept {
    const auto fill = [](auto byte_at) {
      raw r{};
      for (int i = 0; i < bytes; ++i) r.byte[i] = static_cast<std::uint8_t>(byte_at(i));
      return r;
    };
    zeros = std::bit_cast<Block>(fill([](int) { return 0; }));
    ones = std::bit_cast<Block>(fill([](int) { return 255; }));
    constexpr int within[3] = {0xaa, 0xcc, 0xf0};
    for (int j = 0; j < numbers; ++j)
      numbered[j] =
          std::bit_cast<Block>(fill([&](int i) { return j < 3 ? within[j] : (i >> (j - 3) & 1) * 255; }));
    std::uint32_t seed = 1;
    for (int j = 0; j < randoms; ++j) {
      random_bytes[j] = fill([&](int) {
        seed = seed * 1664525u + 1013904223u;
        return seed >> 24;
      });
      random[j] = std::bit_cast<Block>(random_bytes[j]);
      finite[j] = std::bit_cast<Block>(fill([&](int i) { return random_bytes[j].byte[i] & 0xbf; }));
    }
  }
};

template <class Block>
inline constexpr probes<Block> probe_blocks{};

/// The block bit of every bit of one integer in 0 .. 255; -1 where it never changes.
struct integer_bits {
  bool found = false;
  int base = 0, width = 0;
  int bit[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
};
template <class Block, class Fn>
constexpr integer_bits bits_of(Fn value, int i) noexcept {
  constexpr const probes<Block>& blocks = probe_blocks<Block>;
  integer_bits s;
  s.base = value(blocks.zeros, i);
  const int ones = value(blocks.ones, i);
  if (s.base < 0 || s.base > 255 || ones < 0 || ones > 255) return s;
  const int changes = s.base ^ ones;
  s.width = static_cast<int>(std::bit_width(static_cast<unsigned>(changes)));
  int number[8] = {};
  for (int j = 0; j < probes<Block>::numbers; ++j) {
    const int v = value(blocks.numbered[j], i) ^ s.base;
    if (v & ~changes) return s;
    for (int k = 0; k < s.width; ++k) number[k] |= (v >> k & 1) << j;
  }
  for (int k = 0; k < s.width; ++k) {
    if (number[k] >= 8 * probes<Block>::bytes) return s;
    if (changes >> k & 1) s.bit[k] = number[k];
  }
  s.found = true;
  return s;
}

/// The plan of value(block, i), i < n; not `found` where that is no selection of bits, or they lie in no planes.
template <class Block, int n, int runs, int length, class Fn>
class plan_maker {
  using plan_type = plane_plan<n, runs, length>;
  static constexpr int per_group = runs * length;
  Fn value;
  integer_bits leaders[std::size_t{n / length}];  ///< of the first integer of every run
  integer_bits second;                            ///< of integer 1

  constexpr bool read_leaders() noexcept {
    for (int r = 0; r < n / length; ++r) {
      leaders[r] = bits_of<Block>(value, r * length);
      const integer_bits& s = leaders[r];
      if (!s.found || s.base != leaders[0].base || s.width != leaders[0].width) return false;
      for (int k = 0; k < s.width; ++k)
        if ((s.bit[k] < 0) != (leaders[0].bit[k] < 0)) return false;
    }
    second = bits_of<Block>(value, 1);
    return second.found && leaders[0].width > 0;
  }
  /// How many bits from `low` on lie in one byte, for every run.
  constexpr int bits_together(int low) const noexcept {
    int count = 8;
    for (const integer_bits& s : leaders) {
      int c = 1;
      while (low + c < s.width && s.bit[low + c] == s.bit[low] + c && (s.bit[low] % 8) + c < 8) ++c;
      if (c < count) count = c;
    }
    return count;
  }
  constexpr bool add_plane(plan_type& plan, int low, int count, bool packed) const noexcept {
    if (plan.planes == plan_type::max_planes) return false;
    for (int g = 0; g < plan_type::groups; ++g) {
      auto& p = plan.at[static_cast<std::size_t>(g)][static_cast<std::size_t>(plan.planes)];
      p.low = low;
      p.count = count;
      p.packed = packed;
      for (int r = 0; r < runs; ++r) {
        p.first[static_cast<std::size_t>(r)] = leaders[g * runs + r].bit[low] / 8;
        p.shift[static_cast<std::size_t>(r)] = leaders[g * runs + r].bit[low] % 8;
      }
    }
    ++plan.planes;
    return !packed || plan.at[0][static_cast<std::size_t>(plan.planes - 1)].shift[0] == 0;
  }
  constexpr bool holds(const plan_type& plan) const noexcept {
    for (int j = 0; j < probes<Block>::randoms; ++j)
      for (int i = 0; i < n; ++i)
        if (value(probe_blocks<Block>.random[j], i) != plan.get(probe_blocks<Block>.random_bytes[j].byte, i))
          return false;
    return true;
  }

 public:
  constexpr explicit plan_maker(Fn f) noexcept : value(f) {}

  constexpr plan_type make() noexcept {
    plan_type plan;
    if (!read_leaders()) return plan;
    const integer_bits& s = leaders[0];
    plan.base = s.base;
    for (int low = 0; low < s.width;) {
      if (s.bit[low] < 0) {
        ++low;
        continue;
      }
      const int step = second.bit[low] - s.bit[low], together = bits_together(low);
      const bool packed = step == 1 || step == 2 || step == 4;
      if ((!packed && step != 8) || (packed && together < step)) return plan;
      const int count = packed ? step : together;
      if (!add_plane(plan, low, count, packed)) return plan;
      low += count;
    }
    plan.found = holds(plan);
    return plan;
  }
};
template <class Block, int n, int runs, int length, class Fn>
constexpr auto plan_of(Fn value) noexcept {
  return plan_maker<Block, n, runs, length, Fn>(value).make();
}

}  // namespace detail

/// Does code() look its value up in a table of levels?
template <class F>
concept has_levels = block_format<F> && requires(const typename F::block& b) {
  F::index(b, 0);
  F::levels;
};

/// The planes of what a block stores of its weights: code + code_bias, or the index of a level. 32 weights at a time,
/// in runs of eight.
template <block_format F>
inline constexpr auto code_plan = [] {
  constexpr int n = F::layout.elements;
  using block = typename F::block;
  if constexpr (n % 32 != 0)
    return plane_plan<32, 4, 8>{};
  else if constexpr (has_levels<F>)
    return detail::plan_of<block, n, 4, 8>([](const block& b, int e) { return F::index(b, e); });
  else
    return detail::plan_of<block, n, 4, 8>(
        [](const block& b, int e) { return F::code(b, e) + code_bias<F>; });
}();

/// A format whose codes, or the indices of whose levels, are bits of the block that lie in planes.
template <class F>
concept planar = block_format<F> &&(code_plan<F>.found);

/// Formats with a second table of levels, which a bit of the block chooses for every group.
template <class F>
concept has_two_tables = has_levels<F> && requires(const typename F::block& b) {
  F::level(0, 0);
  F::table(b, 0);
};
/// What the second table adds to every level of the first, and the block bit of every group that chooses it.
template <block_format F>
struct table_bits {
  bool found = false;
  int step = 0;
  std::array<int, std::size_t{F::layout.elements / F::layout.group}> bit{};
};
template <has_two_tables F>
inline constexpr auto table_plan = [] {
  table_bits<F> t;
  t.step = F::level(0, 1) - F::level(0, 0);
  for (int i = 0; i < F::levels; ++i)
    if (F::level(i, 1) - F::level(i, 0) != t.step) return t;
  for (int g = 0; g < F::layout.groups(); ++g) {
    const auto s = detail::bits_of<typename F::block>(
        [](const typename F::block& b, int i) { return F::table(b, i); }, g);
    if (!s.found || s.width != 1 || s.base != 0) return t;
    t.bit[static_cast<std::size_t>(g)] = s.bit[0];
  }
  t.found = true;
  return t;
}();

/// Level `index` of the only table, or of the first.
template <has_levels F>
constexpr int first_level(int index) noexcept {
  if constexpr (has_two_tables<F>)
    return F::level(index, 0);
  else
    return F::level(index);
}
/// How far code + code_bias lies above the stored bits where it is the same number: 0 without levels, or where levels
/// are their index times a power of two. -1 where levels have to be looked up.
template <block_format F>
inline constexpr int level_shift = 0;
template <has_levels F>
inline constexpr int level_shift<F> = [] {
  for (int s = 0; s < 7; ++s) {
    bool all = !has_two_tables<F>;
    for (int i = 0; i < F::levels; ++i) all = all && first_level<F>(i) + code_bias<F> == i << s;
    if (all) return s;
  }
  return -1;
}();
template <block_format F>
inline constexpr bool looks_up = level_shift<F> == -1;
/// The same shift where nothing is looked up, else 0: of bits in a register of codes above bits in the plan.
template <block_format F>
inline constexpr int code_shift = looks_up<F> ? 0 : level_shift<F>;

/// Formats with an integer scale per group. Its plan gives what it is above lowest_sub_scale, eight groups at a time, in
/// runs of four.
template <class F>
concept has_sub_scales = block_format<F> && F::layout.groups() % 8 == 0 &&
                         requires(const typename F::block& b) {
  F::sub_scale(b, 0);
};
template <class F>
inline constexpr int lowest_sub_scale = 0;
template <class F>
requires requires { F::min_sub_scale; }
inline constexpr int lowest_sub_scale<F> = F::min_sub_scale;

template <has_sub_scales F>
inline constexpr auto sub_scale_plan = detail::plan_of<typename F::block, F::layout.groups(), 2, 4>(
    [](const typename F::block& b, int g) { return F::sub_scale(b, g) - lowest_sub_scale<F>; });
/// The same for the integer offset of every group (q2_K, q4_K, q5_K).
template <has_sub_scales F>
requires requires(const typename F::block& b) { F::sub_min(b, 0); }
inline constexpr auto sub_min_plan = detail::plan_of<typename F::block, F::layout.groups(), 2, 4>(
    [](const typename F::block& b, int g) { return F::sub_min(b, g); });
/// And of sub-scales that are stored as magnitude and sign (iq3_k).
template <has_sub_scales F>
inline constexpr auto magnitude_plan =
    detail::plan_of<typename F::block, F::layout.groups(), 2, 4>([](const typename F::block& b, int g) {
      return F::sub_scale(b, g) < 0 ? -F::sub_scale(b, g) : F::sub_scale(b, g);
    });
template <has_sub_scales F>
inline constexpr auto sign_plan = detail::plan_of<typename F::block, F::layout.groups(), 2, 4>(
    [](const typename F::block& b, int g) { return F::sub_scale(b, g) < 0 ? 1 : 0; });

/// Do planes give the sub-scales, their magnitudes below 128 and signs instead, and the sub-mins?
template <class F>
constexpr bool plans_sub_scales() noexcept {
  if constexpr (has_sub_scales<F>) return sub_scale_plan<F>.found;
  return false;
}
template <class F>
constexpr bool plans_signed_sub_scales() noexcept {
  if constexpr (has_sub_scales<F> && !plans_sub_scales<F>())
    return magnitude_plan<F>.found && sign_plan<F>.found &&
           (magnitude_plan<F>.mask() | magnitude_plan<F>.base) < 128;
  return false;
}
template <class F>
constexpr bool plans_sub_mins() noexcept {
  if constexpr (has_sub_scales<F> && requires { sub_min_plan<F>; }) return sub_min_plan<F>.found;
  return false;
}

}  // namespace quantal
