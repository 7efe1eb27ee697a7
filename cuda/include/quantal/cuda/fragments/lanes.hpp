// Codes of 64 weights at a time: four lanes share 256 weights of a row, and each has a quarter of them with
// their scales to itself. For products with one or two vectors, which have no use for tensor cores.
//
// Grids and signs are looked up in tables that lie in shared memory in several copies, so that the lanes of a
// warp do not meet on its banks. Where a grid has few magnitudes an entry is a word of eight nibbles, each of
// which selects a signed level in registers; signs are bits of the same nibbles.
//
// All of it compiles for the host too, where tests compare it with F::code() and F::scale().
#pragma once

#include "quantal/cuda/fragment_codes.hpp"
#include "quantal/cuda/unrolled.hpp"

namespace quantal::cuda {

/// Weights of a chunk (32) in the order of a lane's codes: fours that lie `distance` apart, one behind the
/// other or, if `interleaved`, weight by weight.
struct lane_order {
  int distance;  ///< 4, 8 or 16
  bool interleaved;

  /// The first of four of the eight codes 8 * q .. of a chunk; the others lie `distance` behind.
  QUANTAL_HD constexpr int first(int q) const noexcept {
    return distance == 4 ? 8 * q : distance == 8 ? 16 * (q / 2) + 4 * (q % 2) : 4 * q;
  }
  /// The weight of code i of those eight.
  QUANTAL_HD constexpr int element(int q, int i) const noexcept {
    return first(q) + (interleaved ? i / 2 + i % 2 * distance : i % 4 + i / 4 * distance);
  }
};

/// The scales of a lane's groups: scale * factors[i]. Integers where they are, so that sums stay integers.
template <class Factor, int Groups>
struct lane_scales {
  float scale;
  Factor factors[Groups];
};
/// With offsets: offset * offset_factors[i].
template <class Factor, int Groups>
struct lane_affine_scales : lane_scales<Factor, Groups> {
  float offset;
  Factor offset_factors[Groups];
};

namespace detail {

/// `Copies` copies of the words of Source: words(i) is word i, Source::entries entries of Source::width words.
/// Where to look is given as an index of the bytes of shared memory, in which entries are spread.
template <class Source, int Copies>
struct lane_table {
  static constexpr int entries = Source::entries, width = Source::width, entry_bytes = 4 * width * Copies,
                       bytes = entries * entry_bytes;
#if defined(__CUDA_ARCH__)
  static constexpr int scale = std::bit_width(static_cast<unsigned>(entry_bytes)) - 1;
  std::uint32_t first;  ///< shared address of the lane's copy of the first entry

  __device__ lane_table(std::uint32_t shared, int lane) noexcept
      : first(shared + 4 * width * (lane % Copies)) {}
  __device__ std::uint32_t word(std::uint32_t at) const noexcept {
    std::uint32_t w;
    asm("ld.shared.u32 %0, [%1];" : "=r"(w) : "r"(first + at));
    return w;
  }
  __device__ word_pair pair(std::uint32_t at) const noexcept {
    word_pair w;
    asm("ld.shared.v2.u32 {%0, %1}, [%2];" : "=r"(w.low), "=r"(w.high) : "r"(first + at));
    return w;
  }
  /// Makes the copies; each of `threads` threads calls this. Lanes write different parts of their entries at a
  /// time, which lie in different banks.
  static __device__ void fill(std::uint8_t* shared, int thread, int threads) noexcept {
    constexpr int batch = 4, parts = entry_bytes / 16;
    for (int first = thread; first < entries; first += batch * threads) {
      word_pair words[batch];
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int entry = min(first + i * threads, entries - 1);
        words[i] = {Source::word(width * entry), Source::word(width * entry + width - 1)};
      }
#pragma unroll
      for (int i = 0; i < batch; ++i) {
        const int entry = first + i * threads;
        if (entry >= entries) break;
#pragma unroll
        for (int j = 0; j < parts; ++j) {
          const int part = (j + thread * parts / 8) % parts;
          *reinterpret_cast<uint4*>(shared + entry * entry_bytes + 16 * part) =
              make_uint4(words[i].low, words[i].high, words[i].low, words[i].high);
        }
      }
    }
  }
#else
  static constexpr int scale = 0;
  lane_table(std::uint32_t, int) noexcept {}
  std::uint32_t word(std::uint32_t at) const noexcept { return Source::word(static_cast<int>(at)); }
  word_pair pair(std::uint32_t at) const noexcept {
    return {Source::word(2 * static_cast<int>(at)), Source::word(2 * static_cast<int>(at) + 1)};
  }
  static void fill(std::uint8_t*, int, int) noexcept {}
#endif

  /// Bits Shift .. Shift + Width - 1 of w as bits To.. of an index; parts are joined by |.
  template <int Shift, int Width, int To = 0>
  QUANTAL_HD static std::uint32_t index(std::uint32_t w) noexcept {
    return shift_left<To + scale - Shift>(w) & ((1u << Width) - 1) << (To + scale);
  }
};

/// The tables of a reader, one behind the other in shared memory.
template <class Grid, class Signs>
struct lane_tables {
  static constexpr int bytes = Grid::bytes + Signs::bytes;
  Grid grid;
  Signs signs;

  QUANTAL_HD lane_tables(std::uint32_t shared, int lane) noexcept
      : grid(shared, lane), signs(shared + Grid::bytes, lane) {}
  QUANTAL_HD static void fill(std::uint8_t* shared, int thread, int threads) noexcept {
    Grid::fill(shared, thread, threads);
    Signs::fill(shared + Grid::bytes, thread, threads);
  }
};
/// Of readers that look nothing up, or not in a second table.
struct no_tables {
  static constexpr int bytes = 0;
  QUANTAL_HD no_tables(std::uint32_t, int) noexcept {}
  QUANTAL_HD static void fill(std::uint8_t*, int, int) noexcept {}
};
/// Eight nibbles, nibble(index, k) of every entry of a grid.
template <int Entries>
struct nibble_words {
  std::uint32_t words[Entries];

  template <class Nibble>
  static constexpr nibble_words of(Nibble nibble) noexcept {
    nibble_words g{};
    for (int i = 0; i < Entries; ++i)
      for (int k = 0; k < 8; ++k) g.words[i] |= static_cast<std::uint32_t>(nibble(i, k)) << (4 * k);
    return g;
  }
};

/// The magnitudes of the iq2 grids, and the number of one among them.
inline constexpr int iq2_magnitudes[4] = {8, 25, 43, 0};
constexpr int iq2_level(int magnitude) noexcept {
  int i = 0;
  while (iq2_magnitudes[i] != magnitude) ++i;
  return i;
}

QUANTAL_TABLE auto iq2_xxs_nibbles =
    nibble_words<256>::of([](int i, int k) { return iq2_level(quantal::detail::grid_iq2_xxs(i, k)); });
QUANTAL_TABLE auto iq2_xs_nibbles =
    nibble_words<512>::of([](int i, int k) { return iq2_level(quantal::detail::grid_iq2_xs(i, k)); });
QUANTAL_TABLE auto iq2_s_nibbles =
    nibble_words<1024>::of([](int i, int k) { return iq2_level(quantal::detail::grid_iq2_s(i, k)); });
QUANTAL_TABLE auto iq1_nibbles =
    nibble_words<2048>::of([](int i, int k) { return quantal::detail::grid_iq1(i, k) + 1; });
/// Bit 2 of nibble k is sign k: of a sign byte, and of a 7-bit index of one.
QUANTAL_TABLE auto sign_nibbles = nibble_words<256>::of([](int i, int k) { return (i >> k & 1) << 2; });
QUANTAL_TABLE auto even_sign_nibbles = nibble_words<128>::of(
    [](int i, int k) { return static_cast<int>(quantal::detail::signs7(i) >> k & 1) << 2; });
/// Bytes of ones where a sign is set: of a 7-bit index, and of four signs.
QUANTAL_TABLE auto even_sign_masks =
    grid_words<128, 8>::of([](int i, int k) { return quantal::detail::signs7(i) >> k & 1 ? 255 : 0; });
QUANTAL_TABLE auto sign_masks = grid_words<16, 4>::of([](int i, int k) { return i >> k & 1 ? 255 : 0; });

/// Sources of tables.
#define QUANTAL_LANE_SOURCE(name, count, words_per_entry)                          \
  struct name##_source {                                                           \
    static constexpr int entries = count, width = words_per_entry;                 \
    QUANTAL_HD static std::uint32_t word(int i) noexcept { return name.words[i]; } \
  };
QUANTAL_LANE_SOURCE(iq2_xxs_nibbles, 256, 1)
QUANTAL_LANE_SOURCE(iq2_xs_nibbles, 512, 1)
QUANTAL_LANE_SOURCE(iq2_s_nibbles, 1024, 1)
QUANTAL_LANE_SOURCE(iq1_nibbles, 2048, 1)
QUANTAL_LANE_SOURCE(iq3_xxs_words, 256, 1)
QUANTAL_LANE_SOURCE(iq3_s_words, 512, 1)
QUANTAL_LANE_SOURCE(sign_nibbles, 256, 1)
QUANTAL_LANE_SOURCE(even_sign_nibbles, 128, 1)
QUANTAL_LANE_SOURCE(even_sign_masks, 128, 2)
QUANTAL_LANE_SOURCE(sign_masks, 16, 1)
#undef QUANTAL_LANE_SOURCE

constexpr std::uint32_t level_word(int a, int b, int c, int d) noexcept {
  const auto byte = [](int v, int i) { return (static_cast<std::uint32_t>(v) & 255u) << (8 * i); };
  return byte(a, 0) | byte(b, 1) | byte(c, 2) | byte(d, 3);
}

/// The signed codes of eight nibbles that select one of eight levels, as words W and W + 1.
template <int W, class Sink>
QUANTAL_HD void add_levels(std::uint32_t low, std::uint32_t high, std::uint32_t nibbles,
                           Sink& sink) noexcept {
  sink.template add<W>(byte_permute(low, high, nibbles));
  sink.template add<W + 1>(byte_permute(low, high, nibbles >> 16));
}
template <int W, class Sink>
QUANTAL_HD void add_iq2(std::uint32_t nibbles, Sink& sink) noexcept {
  add_levels<W>(level_word(8, 25, 43, 0), level_word(-8, -25, -43, 0), nibbles, sink);
}
/// Codes from magnitudes and bytes of ones where they are negative: -m is ~m + 1.
template <int W, class Sink>
QUANTAL_HD void add_signed(std::uint32_t magnitudes, std::uint32_t mask, Sink& sink) noexcept {
  sink.template add<W>(magnitudes ^ mask);
  sink.template subtract<W>(mask);
}

/// Sixteen levels as two tables of eight signed bytes. A selector of 8 and more gives the sign of an entry, 0
/// or -1, so the sum of two lookups, one with bit 3 of all selectors flipped, is a level if entries take that
/// into account.
struct split_levels {
  std::uint32_t words[4] = {};
  bool found = true;

  template <class Level>
  static constexpr split_levels of(Level level) noexcept {
    split_levels s;
    for (int i = 0; i < 8; ++i) {
      const int low = level(i), high = level(i + 8);
      bool found = false;
      for (int a = low; a <= low + 1 && !found; ++a)
        for (int b = high; b <= high + 1 && !found; ++b) {
          if (a + (b < 0 ? -1 : 0) != low || b + (a < 0 ? -1 : 0) != high) continue;
          s.words[i / 4] |= (static_cast<std::uint32_t>(a) & 255u) << (8 * (i % 4));
          s.words[2 + i / 4] |= (static_cast<std::uint32_t>(b) & 255u) << (8 * (i % 4));
          found = true;
        }
      s.found = s.found && found;
    }
    return s;
  }
  /// The level of each nibble, as words W and W + 1.
  template <int W, class Sink>
  QUANTAL_HD void add(std::uint32_t nibbles, Sink& sink) const noexcept {
    const std::uint32_t flipped = nibbles ^ 0x88888888u;
    sink.template add<W>(byte_or_sign(words[0], words[1], nibbles));
    sink.template add<W>(byte_or_sign(words[2], words[3], flipped));
    sink.template add<W + 1>(byte_or_sign(words[0], words[1], nibbles >> 16));
    sink.template add<W + 1>(byte_or_sign(words[2], words[3], flipped >> 16));
  }
};

/// The table of a format, and the one that its groups with a bit set use.
template <block_format F>
struct lane_levels {
  static constexpr split_levels first = split_levels::of([](int i) {
    if constexpr (has_two_tables<F>)
      return F::level(i, 0);
    else
      return F::level(i);
  });
  static constexpr split_levels second = split_levels::of([](int i) {
    if constexpr (has_two_tables<F>)
      return F::level(i, 1);
    else
      return F::level(i);
  });
  static_assert(first.found && second.found);

  QUANTAL_HD static split_levels chosen(bool by_bit) noexcept {
    constexpr split_levels a = first, b = second;
    split_levels s;
    for (int i = 0; i < 4; ++i) s.words[i] = by_bit ? b.words[i] : a.words[i];
    return s;
  }
};

/// 2 * nibble + 1 of the nibble that begins at bit Shift.
template <int Shift>
QUANTAL_HD int odd_nibble(std::uint32_t w) noexcept {
  return static_cast<int>((shift_left<1 - Shift>(w) & 30u) + 1);
}

/// Four scales in the nibbles of a lane's two bytes, from byte At on.
template <int At, class Bytes>
QUANTAL_HD lane_scales<int, 4> odd_nibble_scales(const Bytes& bytes, int t) noexcept {
  const std::uint32_t s = bytes.template u16<At>(2 * t);
  return {load_half<0>(bytes) * 0.125f,
          {odd_nibble<0>(s), odd_nibble<4>(s), odd_nibble<8>(s), odd_nibble<12>(s)}};
}
/// The halves at byte At of a lane's two blocks of 32 weights.
template <block_format F, int At, class Bytes>
QUANTAL_HD lane_scales<float, 2> block_halves(const Bytes& bytes, int t) noexcept {
  constexpr int n = F::layout.bytes;
  return {1, {low_half(bytes.template u16<At>(2 * n * t)), low_half(bytes.template u16<n + At>(2 * n * t))}};
}

}  // namespace detail

/// How a lane reads its quarter of 256 weights.
///
///   order    of the codes of a chunk
///   bias     what codes are too large by
///   run(t, i)   which 16 of the weights (in that order) its codes 16 * i .. are
///   tables   what it needs in shared memory
///   codes(bytes, t, tables, sink)   calls sink.add<W>(word) and sink.subtract<W>(word), W < 16: the sums of
///                                   the signed bytes of word W are codes 4 * W .. 4 * W + 3
///   scales(bytes, row_scale, t)     of the groups, in the order of the codes
///
/// Formats that have none are read chunk by chunk.
template <block_format F>
struct lane_reader {};

template <class F>
concept lane_readable = block_format<F> && requires {
  lane_reader<F>::order;
};

namespace detail {

/// Most lanes have chunks 2 * t and 2 * t + 1.
template <int Distance, bool Interleaved, int Bias = 0>
struct chunk_lanes {
  static constexpr lane_order order{Distance, Interleaved};
  static constexpr int bias = Bias;
  using tables = no_tables;
  QUANTAL_HD static constexpr int run(int t, int i) noexcept { return 4 * t + i; }
};
/// Planes of bits over 128 weights: a lane has one half of each chunk of its 128.
template <int Bias>
struct plane_lanes {
  static constexpr lane_order order{4, false};
  static constexpr int bias = Bias;
  using tables = no_tables;
  QUANTAL_HD static constexpr int run(int t, int i) noexcept { return 8 * (t / 2) + 2 * i + t % 2; }
};

}  // namespace detail

template <>
struct lane_reader<iq2_xxs> : detail::chunk_lanes<4, false> {
  using tables = detail::lane_tables<detail::lane_table<detail::iq2_xxs_nibbles_source, 16>,
                                     detail::lane_table<detail::even_sign_nibbles_source, 16>>;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    unrolled<2>([&]<int J>() {
      const std::uint32_t q = bytes.template u32<2 + 8 * J>(16 * t),
                          signs = bytes.template u32<6 + 8 * J>(16 * t);
      unrolled<4>([&]<int K>() {
        detail::add_iq2<8 * J + 2 * K>(in.grid.word(in.grid.template index<8 * K, 8>(q)) ^
                                           in.signs.word(in.signs.template index<7 * K, 7>(signs)),
                                       sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    return {detail::load_half<0>(bytes) * 0.125f,
            {detail::odd_nibble<28>(bytes.template u32<6>(16 * t)),
             detail::odd_nibble<28>(bytes.template u32<14>(16 * t))}};
  }
};

template <>
struct lane_reader<iq2_xs> : detail::chunk_lanes<4, false> {
  using tables = detail::lane_tables<detail::lane_table<detail::iq2_xs_nibbles_source, 16>,
                                     detail::lane_table<detail::even_sign_nibbles_source, 16>>;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    unrolled<4>([&]<int J>() {
      const std::uint32_t q = bytes.template u32<2 + 4 * J>(16 * t);
      unrolled<2>([&]<int K>() {
        detail::add_iq2<4 * J + 2 * K>(in.grid.word(in.grid.template index<16 * K, 9>(q)) ^
                                           in.signs.word(in.signs.template index<16 * K + 9, 7>(q)),
                                       sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    return detail::odd_nibble_scales<66>(bytes, t);
  }
};

template <>
struct lane_reader<iq2_s> : detail::chunk_lanes<4, false> {
  using tables = detail::lane_tables<detail::lane_table<detail::iq2_s_nibbles_source, 8>,
                                     detail::lane_table<detail::sign_nibbles_source, 8>>;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    const std::uint32_t high = bytes.template u16<66>(2 * t);
    unrolled<2>([&]<int J>() {
      const std::uint32_t q = bytes.template u32<2 + 4 * J>(8 * t),
                          signs = bytes.template u32<34 + 4 * J>(8 * t);
      unrolled<4>([&]<int K>() {
        const std::uint32_t at =
            in.grid.template index<8 * K, 8>(q) | in.grid.template index<8 * J + 2 * K, 2, 8>(high);
        detail::add_iq2<8 * J + 2 * K>(
            in.grid.word(at) ^ in.signs.word(in.signs.template index<8 * K, 8>(signs)), sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    return detail::odd_nibble_scales<74>(bytes, t);
  }
};

template <>
struct lane_reader<iq3_xxs> : detail::chunk_lanes<4, false> {
  using tables = detail::lane_tables<detail::lane_table<detail::iq3_xxs_words_source, 32>,
                                     detail::lane_table<detail::even_sign_masks_source, 16>>;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    unrolled<2>([&]<int J>() {
      const std::uint32_t signs = bytes.template u32<66 + 4 * J>(8 * t);
      unrolled<4>([&]<int K>() {
        const std::uint32_t q = bytes.template u32<2 + 8 * J + 4 * (K / 2)>(16 * t);
        const word_pair mask = in.signs.pair(in.signs.template index<7 * K, 7>(signs));
        constexpr int word = 8 * J + 2 * K, shift = 16 * (K % 2);
        detail::add_signed<word>(in.grid.word(in.grid.template index<shift, 8>(q)), mask.low, sink);
        detail::add_signed<word + 1>(in.grid.word(in.grid.template index<shift + 8, 8>(q)), mask.high, sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    return {detail::load_half<0>(bytes) * 0.25f,
            {detail::odd_nibble<28>(bytes.template u32<66>(8 * t)),
             detail::odd_nibble<28>(bytes.template u32<70>(8 * t))}};
  }
};

template <>
struct lane_reader<iq3_s> : detail::chunk_lanes<4, false> {
  using tables = detail::lane_tables<detail::lane_table<detail::iq3_s_words_source, 32>,
                                     detail::lane_table<detail::sign_masks_source, 32>>;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    const std::uint32_t high = bytes.template u16<66>(2 * t);
    unrolled<2>([&]<int J>() {
      const std::uint32_t signs = bytes.template u32<74 + 4 * J>(8 * t);
      unrolled<8>([&]<int K>() {
        const std::uint32_t q = bytes.template u32<2 + 8 * J + 4 * (K / 4)>(16 * t);
        const std::uint32_t at =
            in.grid.template index<8 * (K % 4), 8>(q) | in.grid.template index<8 * J + K, 1, 8>(high);
        detail::add_signed<8 * J + K>(in.grid.word(at),
                                      in.signs.word(in.signs.template index<4 * K, 4>(signs)), sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    const std::uint32_t s = bytes.u8(106 + t);
    return {detail::load_half<0>(bytes), {detail::odd_nibble<0>(s), detail::odd_nibble<4>(s)}};
  }
};

namespace detail {

/// Eight codes 8 * component + shift of the iq1 formats.
template <int W, class Sink>
QUANTAL_HD void add_iq1(std::uint32_t nibbles, bool negative_shift, Sink& sink) noexcept {
  const std::uint32_t levels = negative_shift ? level_word(-9, -1, 7, 0) : level_word(-7, 1, 9, 0);
  add_levels<W>(levels, 0, nibbles, sink);
}
using iq1_tables = lane_tables<lane_table<iq1_nibbles_source, 4>, no_tables>;

}  // namespace detail

template <>
struct lane_reader<iq1_s> : detail::chunk_lanes<4, false> {
  using tables = detail::iq1_tables;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    const std::uint32_t high = bytes.template u32<34>(4 * t);
    unrolled<2>([&]<int J>() {
      const std::uint32_t q = bytes.template u32<2 + 4 * J>(8 * t);
      const bool negative = high >> (16 * J + 15) & 1;
      unrolled<4>([&]<int K>() {
        const std::uint32_t at =
            in.grid.template index<8 * K, 8>(q) | in.grid.template index<16 * J + 3 * K, 3, 8>(high);
        detail::add_iq1<8 * J + 2 * K>(in.grid.word(at), negative, sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    const std::uint32_t high = bytes.template u32<34>(4 * t);
    return {detail::load_half<0>(bytes) * 0.125f,
            {static_cast<int>((high >> 11 & 14u) + 1), static_cast<int>((high >> 27 & 14u) + 1)}};
  }
};

template <>
struct lane_reader<iq1_m> : detail::chunk_lanes<4, false> {
  using tables = detail::iq1_tables;

  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables& in, Sink& sink) noexcept {
    const std::uint32_t high = bytes.template u32<32>(4 * t);
    unrolled<2>([&]<int J>() {
      const std::uint32_t q = bytes.template u32<4 * J>(8 * t);
      unrolled<4>([&]<int K>() {
        constexpr int nibble = 16 * J + 4 * K;
        const std::uint32_t at =
            in.grid.template index<8 * K, 8>(q) | in.grid.template index<nibble, 3, 8>(high);
        detail::add_iq1<8 * J + 2 * K>(in.grid.word(at), high >> (nibble + 3) & 1, sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    const word_pair w = bytes.template u64<48>();
    const std::uint32_t d =
        (w.low >> 12 & 0xfu) | (w.low >> 24 & 0xf0u) | (w.high >> 4 & 0xf00u) | (w.high >> 16 & 0xf000u);
    const std::uint32_t s = bytes.template u16<48>(2 * t);
    return {detail::low_half(d) * 0.125f,
            {static_cast<int>((s << 1 & 14u) + 1), static_cast<int>((s >> 2 & 14u) + 1),
             static_cast<int>((s >> 5 & 14u) + 1), static_cast<int>((s >> 8 & 14u) + 1)}};
  }
};

template <>
struct lane_reader<iq4_xs> : detail::chunk_lanes<16, true> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    constexpr auto levels = detail::lane_levels<iq4_xs>::first;
    unrolled<4>([&]<int J>() {
      const word_pair q = bytes.template u64<8 + 8 * J>(32 * t);
      levels.add<4 * J>(q.low, sink);
      levels.add<4 * J + 2>(q.high, sink);
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    const std::uint32_t head = bytes.template u32<0>(), high = head >> (16 + 4 * t), low = bytes.u8(4 + t);
    return {detail::low_half(head),
            {static_cast<int>((low & 15u) | (high << 4 & 48u)) - 32,
             static_cast<int>((low >> 4) | (high << 2 & 48u)) - 32}};
  }
};

template <>
struct lane_reader<iq4_ks> : detail::chunk_lanes<16, true> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    const std::uint32_t heads = bytes.template u16<0>(2 * t);
    unrolled<2>([&]<int J>() {
      const auto levels = detail::lane_levels<iq4_ks>::chosen(heads >> 8 * J & 1);
      unrolled<2>([&]<int K>() {
        const word_pair q = bytes.template u64<8 + 16 * J + 8 * K>(32 * t);
        levels.template add<8 * J + 4 * K>(q.low, sink);
        levels.template add<8 * J + 4 * K + 2>(q.high, sink);
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 2> scales(const Bytes& bytes, float row_scale, int t) noexcept {
    const std::uint32_t heads = bytes.template u16<0>(2 * t);
    return {row_scale, {static_cast<int>(heads & 254u) - 127, static_cast<int>(heads >> 8 & 254u) - 127}};
  }
};

template <>
struct lane_reader<iq4_k> : detail::chunk_lanes<4, true> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    const std::uint32_t second = bytes.template u16<2>() >> 4 * t;
    unrolled<2>([&]<int J>() {
      const word_pair a = bytes.template u64<16 + 16 * J>(32 * t),
                      b = bytes.template u64<24 + 16 * J>(32 * t);
      const auto low = detail::lane_levels<iq4_k>::chosen(second >> 2 * J & 1);
      low.template add<8 * J>(detail::merge_nibbles<0>(a.low, a.high), sink);
      low.template add<8 * J + 2>(detail::merge_nibbles<0>(b.low, b.high), sink);
      const auto high = detail::lane_levels<iq4_k>::chosen(second >> (2 * J + 1) & 1);
      high.template add<8 * J + 4>(detail::merge_nibbles<1>(a.low, a.high), sink);
      high.template add<8 * J + 6>(detail::merge_nibbles<1>(b.low, b.high), sink);
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    const std::uint32_t high = bytes.u8(4 + t), low = bytes.template u16<8>(2 * t);
    return {detail::load_half<0>(bytes),
            {static_cast<int>((low & 15u) | (high << 4 & 48u)) - 32,
             static_cast<int>((low >> 4 & 15u) | (high << 2 & 48u)) - 32,
             static_cast<int>((low >> 8 & 15u) | (high & 48u)) - 32,
             static_cast<int>((low >> 12) | (high >> 2 & 48u)) - 32}};
  }
};

template <>
struct lane_reader<iq4_nl> : detail::chunk_lanes<16, true> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    constexpr auto levels = detail::lane_levels<iq4_nl>::first;
    unrolled<4>([&]<int K>() {
      levels.add<2 * K>(bytes.template u32<2 + 4 * K>(36 * t), sink);
      levels.add<8 + 2 * K>(bytes.template u32<20 + 4 * K>(36 * t), sink);
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<float, 2> scales(const Bytes& bytes, float, int t) noexcept {
    return detail::block_halves<iq4_nl, 0>(bytes, t);
  }
};

template <>
struct lane_reader<nvfp4> : detail::chunk_lanes<8, true> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    constexpr auto levels = detail::lane_levels<nvfp4>::first;
    unrolled<8>([&]<int K>() { levels.add<2 * K>(bytes.template u32<4 + 4 * K>(36 * t), sink); });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<float, 4> scales(const Bytes& bytes, float, int t) noexcept {
    const std::uint32_t s = bytes.template u32<0>(36 * t);
    // Seven bits of a UE4M3 are those of a binary16 2^-8 times as large; the format wants half the value.
    const auto at = [&](int i) {
      const std::uint32_t e = s >> 8 * i & 255u;
      return detail::low_half(e == 127 ? 0 : (e & 127u) << 7);
    };
    return {128, {at(0), at(1), at(2), at(3)}};
  }
};

/// Two blocks of 17 bytes: an odd lane's begin two bytes behind a word.
template <>
struct lane_reader<mxfp4> : detail::chunk_lanes<16, true> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    constexpr auto levels = detail::lane_levels<mxfp4>::first;
    const int at = 34 * t & ~3;
    const std::uint32_t first = t & 1 ? 0x6543u : 0x4321u, second = t & 1 ? 0x7654u : 0x5432u;
    unrolled<4>([&]<int K>() {
      levels.add<2 * K>(byte_permute(bytes.template u32<4 * K>(at), bytes.template u32<4 * K + 4>(at), first),
                        sink);
      levels.add<8 + 2 * K>(
          byte_permute(bytes.template u32<4 * K + 16>(at), bytes.template u32<4 * K + 20>(at), second), sink);
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<float, 2> scales(const Bytes& bytes, float, int t) noexcept {
    const auto at = [&](int i) { return mxfp4::scale(bytes.template block<mxfp4>(2 * t + i), 1, 0); };
    return {1, {at(0), at(1)}};
  }
};

namespace detail {

/// The nibbles of a word: four codes and the four that lie 16 behind.
template <int W, class Sink>
QUANTAL_HD void add_halves(std::uint32_t w, Sink& sink) noexcept {
  sink.template add<W>(w & 0x0f0f0f0fu);
  sink.template add<W + 1>(w >> 4 & 0x0f0f0f0fu);
}
/// The same with a fifth bit each: bits 4 * K .. and 16 + 4 * K .. of `fifth`.
template <int W, int K, class Sink>
QUANTAL_HD void add_halves(std::uint32_t w, std::uint32_t fifth, Sink& sink) noexcept {
  sink.template add<W>((w & 0x0f0f0f0fu) | spread_bits<4>(fifth >> 4 * K & 15u));
  sink.template add<W + 1>((w >> 4 & 0x0f0f0f0fu) | spread_bits<4>(fifth >> (16 + 4 * K) & 15u));
}

/// Formats of 32 weights per block with nibbles from byte Nibbles on and, unless it is -1, fifth bits from
/// byte Fifth on.
template <block_format F, int Nibbles, int Fifth, int Bias>
struct nibble_block_lanes : chunk_lanes<16, false, Bias> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const no_tables&, Sink& sink) noexcept {
    unrolled<2>([&]<int J>() {
      constexpr int block = J * F::layout.bytes;
      const int at = 2 * F::layout.bytes * t;
      if constexpr (Fifth < 0) {
        unrolled<4>([&]<int K>() {
          add_halves<8 * J + 2 * K>(bytes.template u32<block + Nibbles + 4 * K>(at), sink);
        });
      } else {
        const std::uint32_t fifth = bytes.template u32<block + Fifth>(at);
        unrolled<4>([&]<int K>() {
          add_halves<8 * J + 2 * K, K>(bytes.template u32<block + Nibbles + 4 * K>(at), fifth, sink);
        });
      }
    });
  }
  template <class Bytes>
  QUANTAL_HD static auto scales(const Bytes& bytes, float, int t) noexcept {
    const auto d = block_halves<F, 0>(bytes, t);
    if constexpr (F::layout.has_offset) {
      const auto m = block_halves<F, 2>(bytes, t);
      return lane_affine_scales<float, 2>{d, 1, {m.factors[0], m.factors[1]}};
    } else {
      return d;
    }
  }
};

/// Scales and mins of q4_K and q5_K.
template <class Bytes>
QUANTAL_HD lane_affine_scales<int, 2> k_scales(const Bytes& bytes, int t) noexcept {
  const int at = 2 * (t & 1);
  const std::uint32_t a = bytes.template u16<4>(at), b = bytes.template u16<8>(at),
                      c = bytes.template u16<12>(at);
  const std::uint32_t s = t < 2 ? a & 0x3f3fu : (c & 0x0f0fu) | (a >> 2 & 0x3030u);
  const std::uint32_t m = t < 2 ? b & 0x3f3fu : (c >> 4 & 0x0f0fu) | (b >> 2 & 0x3030u);
  return {{load_half<0>(bytes), {static_cast<int>(s & 63u), static_cast<int>(s >> 8)}},
          -load_half<2>(bytes),
          {static_cast<int>(m & 63u), static_cast<int>(m >> 8)}};
}

}  // namespace detail

template <>
struct lane_reader<q4_0> : detail::nibble_block_lanes<q4_0, 2, -1, 8> {};
template <>
struct lane_reader<q4_1> : detail::nibble_block_lanes<q4_1, 4, -1, 0> {};
template <>
struct lane_reader<q5_0> : detail::nibble_block_lanes<q5_0, 6, 2, 16> {};
template <>
struct lane_reader<q5_1> : detail::nibble_block_lanes<q5_1, 8, 4, 0> {};

template <>
struct lane_reader<q8_0> : detail::chunk_lanes<4, false> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    unrolled<8>([&]<int K>() {
      sink.template add<K>(bytes.template u32<2 + 4 * K>(68 * t));
      sink.template add<8 + K>(bytes.template u32<36 + 4 * K>(68 * t));
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<float, 2> scales(const Bytes& bytes, float, int t) noexcept {
    return detail::block_halves<q8_0, 0>(bytes, t);
  }
};

template <>
struct lane_reader<q4_K> : detail::chunk_lanes<4, false> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    unrolled<4>([&]<int K>() {
      const word_pair w = bytes.template u64<16 + 8 * K>(32 * t);
      sink.template add<2 * K>(w.low & 0x0f0f0f0fu);
      sink.template add<2 * K + 1>(w.high & 0x0f0f0f0fu);
      sink.template add<8 + 2 * K>(w.low >> 4 & 0x0f0f0f0fu);
      sink.template add<9 + 2 * K>(w.high >> 4 & 0x0f0f0f0fu);
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_affine_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    return detail::k_scales(bytes, t);
  }
};

template <>
struct lane_reader<q5_K> : detail::chunk_lanes<4, false> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    unrolled<8>([&]<int K>() {
      const std::uint32_t w = bytes.template u32<48 + 4 * K>(32 * t),
                          fifth = bytes.template u32<16 + 4 * K>() >> 2 * t;
      sink.template add<K>((w & 0x0f0f0f0fu) | (fifth << 4 & 0x10101010u));
      sink.template add<8 + K>((w >> 4 & 0x0f0f0f0fu) | (fifth << 3 & 0x10101010u));
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_affine_scales<int, 2> scales(const Bytes& bytes, float, int t) noexcept {
    return detail::k_scales(bytes, t);
  }
};

template <>
struct lane_reader<q6_K> : detail::plane_lanes<32> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    const int low = 64 * (t / 2) + 16 * (t % 2), high = 16 * t;
    unrolled<4>([&]<int K>() {
      const std::uint32_t a = bytes.template u32<4 * K>(low), b = bytes.template u32<32 + 4 * K>(low),
                          h = bytes.template u32<128 + 4 * K>(high);
      sink.template add<K>((a & 0x0f0f0f0fu) | (h << 4 & 0x30303030u));
      sink.template add<4 + K>((b & 0x0f0f0f0fu) | (h << 2 & 0x30303030u));
      sink.template add<8 + K>((a >> 4 & 0x0f0f0f0fu) | (h & 0x30303030u));
      sink.template add<12 + K>((b >> 4 & 0x0f0f0f0fu) | (h >> 2 & 0x30303030u));
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    const int at = 8 * (t / 2) + t % 2;
    const auto s = [&](int i) {
      return static_cast<int>(static_cast<std::int8_t>(bytes.u8(192 + at + 2 * i)));
    };
    return {detail::load_half<208>(bytes), {s(0), s(1), s(2), s(3)}};
  }
};

template <>
struct lane_reader<q2_K> : detail::plane_lanes<0> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    unrolled<4>([&]<int K>() {
      const std::uint32_t w = bytes.template u32<16 + 4 * K>(16 * t);
      unrolled<4>([&]<int C>() { sink.template add<4 * C + K>(w >> 2 * C & 0x03030303u); });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_affine_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    // Of the bytes of eight groups, every other one.
    const word_pair w = bytes.template u64<0>(8 * (t / 2));
    const int odd = 8 * (t % 2);
    const std::uint32_t a = w.low >> odd, b = w.high >> odd;
    return {{detail::load_half<80>(bytes),
             {static_cast<int>(a & 15u), static_cast<int>(a >> 16 & 15u), static_cast<int>(b & 15u),
              static_cast<int>(b >> 16 & 15u)}},
            -detail::load_half<82>(bytes),
            {static_cast<int>(a >> 4 & 15u), static_cast<int>(a >> 20 & 15u), static_cast<int>(b >> 4 & 15u),
             static_cast<int>(b >> 20 & 15u)}};
  }
};

template <>
struct lane_reader<q3_K> : detail::plane_lanes<4> {
  template <class Bytes, class Sink>
  QUANTAL_HD static void codes(const Bytes& bytes, int t, const tables&, Sink& sink) noexcept {
    unrolled<4>([&]<int K>() {
      const std::uint32_t w = bytes.template u32<32 + 4 * K>(16 * t),
                          high = bytes.template u32<4 * K>(16 * (t % 2)) >> 4 * (t / 2);
      unrolled<4>([&]<int C>() {
        sink.template add<4 * C + K>((w >> 2 * C & 0x03030303u) |
                                     (detail::shift_left<2 - C>(high) & 0x04040404u));
      });
    });
  }
  template <class Bytes>
  QUANTAL_HD static lane_scales<int, 4> scales(const Bytes& bytes, float, int t) noexcept {
    const auto s = [&](int i) {
      const int g = 2 * i + t % 2;  // of the eight of the half
      const std::uint32_t low = bytes.u8(96 + g) >> 4 * (t / 2) & 15u;
      const std::uint32_t high = bytes.u8(104 + g % 4) >> (4 * (t / 2) + 2 * (i / 2)) & 3u;
      return static_cast<int>(low | high << 4) - 32;
    };
    return {detail::load_half<108>(bytes), {s(0), s(1), s(2), s(3)}};
  }
};

}  // namespace quantal::cuda
