// Codes of a slice in four registers, read by the format's bit plan (format/bit_plan.hpp): of every plane and
// register one permutation that brings the bytes there, one shift, and one operation that takes the plane's
// bits of it. Levels are one permutation more. Bound by the shuffle units; permutations that several
// registers share are done once.
#pragma once

#include "quantal/format/bit_plan.hpp"
#include "quantal/kernel/decode/avx512_vnni/picks.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel::avx512_vnni {

template <block_format F>
inline constexpr int slice_blocks = weights / F::layout.elements;
template <block_format F>
inline constexpr int slice_bytes = F::layout.bytes* slice_blocks<F>;

/// Formats whose slices are read by plan: every lane has one scale, and every permutation reaches its bytes.
template <class F>
concept planar_slices = planar<F> && weights % F::layout.elements == 0 && F::layout.group % 16 == 0 &&
                        slice_bytes<F> <= 256 &&
                        (!has_two_tables<F> || table_plan<F>.found) && levels_in_reach<F>;

struct bit_place {
  int byte, shift;
};
/// Of plane p's bits of integer i of a slice of blocks of `bytes` bytes and n integers.
template <int n, int runs, int length>
constexpr bit_place place_of(const plane_plan<n, runs, length>& plan, int p, int i, int bytes) noexcept {
  constexpr int per_group = runs * length;
  const auto& plane = plan.at[static_cast<std::size_t>(i % n / per_group)][static_cast<std::size_t>(p)];
  const int bit = plane.bit(i % per_group);
  return {i / n * bytes + bit / 8, bit % 8};
}

/// Where a plane's bits of four registers come from. Packed bits, which every byte shifts its own way within
/// a quadword, lie in one register for all four if eight bytes have what a quadword of each of them needs.
struct plane_bytes {
  bool shared = false;
  std::int16_t first[8] = {};  ///< of each quadword's eight bytes, where shared

  constexpr int at(bit_place place, int byte) const noexcept {
    return shared ? first[byte / 8] + byte % 8 : place.byte;
  }
};
template <planar_slices F>
constexpr bit_place place_in(lane_order order, int p, int r, int byte) noexcept {
  return place_of(code_plan<F>, p, order.weight(r, byte), F::layout.bytes);
}
template <planar_slices F>
constexpr plane_bytes plane_bytes_of(lane_order order, int p) noexcept {
  plane_bytes b;
  if (!code_plan<F>.at[0][static_cast<std::size_t>(p)].packed ||
      place_in<F>(order, p, 0, 0).shift == place_in<F>(order, p, 0, 1).shift)
    return b;
  for (int q = 0; q < 8; ++q) {
    int first = slice_bytes<F> - 8, last = 0;
    for (int i = 0; i < 32; ++i) {
      const int byte = place_in<F>(order, p, i / 8, 8 * q + i % 8).byte;
      if (byte < first) first = byte;
      if (byte > last) last = byte;
    }
    if (last - first >= 8) return {};
    b.first[q] = static_cast<std::int16_t>(first);
  }
  b.shared = true;
  return b;
}

/// Permutations that an order takes: registers of one plane share those of the same bytes.
template <planar_slices F>
constexpr int picks_of(lane_order order) noexcept {
  int picks = 0;
  for (int p = 0; p < code_plan<F>.planes; ++p) {
    const plane_bytes bytes = plane_bytes_of<F>(order, p);
    int first[4][16] = {};
    for (int r = 0; r < 4; ++r) {
      for (int l = 0; l < 16; ++l) first[r][l] = bytes.at(place_in<F>(order, p, r, 4 * l), 4 * l);
      bool known = false;
      for (int q = 0; q < r && !known; ++q) {
        known = true;
        for (int l = 0; l < 16; ++l) known = known && first[q][l] == first[r][l];
      }
      if (!known) ++picks;
    }
  }
  return picks;
}
/// The order of fewest permutations among those whose lanes have one scale; of several the one of nearest
/// weights.
template <planar_slices F>
inline constexpr lane_order best_order = [] {
  constexpr int shared = F::layout.group < 128 ? F::layout.group : 128;  // 128: by an activation scale
  lane_order best = order_of_16;
  int fewest = picks_of<F>(best);
  for (int fields = 2; fields <= 4; fields += 2)
    for (int distance = 2; 4 * distance * fields <= shared; distance *= 2) {
      const lane_order order{.distance = distance, .fields = fields};
      const int picks = picks_of<F>(order);
      if (picks < fewest) {
        fewest = picks;
        best = order;
      }
    }
  return best;
}();

/// Shifts that bring bits to their place: of whole registers, of lanes, or of every byte its own.
struct bit_moves {
  enum class how { none, registers, lanes, bytes };
  how by = how::none;
  int right = 0;
  alignas(64) std::array<std::uint8_t, 64> table{};  ///< rotations of lanes, or first bits within a quadword
};
constexpr bit_moves moves_of(const std::int8_t (&right)[64]) noexcept {
  bit_moves m;
  bool all = true, lanes = true;
  for (int k = 0; k < 64; ++k) {
    all = all && right[k] == right[0];
    lanes = lanes && right[k] == right[k / 4 * 4];
  }
  m.right = right[0];
  m.by = all && m.right == 0 ? bit_moves::how::none
         : all               ? bit_moves::how::registers
         : lanes             ? bit_moves::how::lanes
                             : bit_moves::how::bytes;
  for (int k = 0; k < 64; ++k)
    m.table[static_cast<std::size_t>(k)] =
        static_cast<std::uint8_t>(lanes ? (k % 4 == 0 ? right[k] & 31 : 0) : (8 * (k % 8) + right[k]) & 63);
  return m;
}
/// x with its bits where P::moves wants them, and others beside them.
template <class P>
QUANTAL_INLINE __m512i moved(__m512i x) noexcept {
  constexpr const bit_moves& m = P::moves;
  if constexpr (m.by == bit_moves::how::none) return x;
  if constexpr (m.by == bit_moves::how::registers && m.right < 0) return _mm512_slli_epi32(x, -m.right & 31);
  if constexpr (m.by == bit_moves::how::registers) return _mm512_srli_epi32(x, m.right & 31);
  if constexpr (m.by == bit_moves::how::lanes) return _mm512_rorv_epi32(x, load(m.table));
  return _mm512_multishift_epi64_epi8(load(m.table), x);
}

template <planar_slices F, lane_order order, int p>
inline constexpr plane_bytes bytes_of_plane = plane_bytes_of<F>(order, p);
template <planar_slices F, lane_order order, int p>
inline constexpr load_starts plane_starts = [] {
  load_starts starts;
  for (int r = 0; r < 4; ++r)
    for (int l = 0; l < 16; ++l) {
      const int at = bytes_of_plane<F, order, p>.at(place_in<F>(order, p, r, 4 * l), 4 * l);
      int& lowest = starts.words[at % 4];
      if (lowest < 0 || at < lowest) lowest = at;
    }
  return starts;
}();

/// Plane p of the codes in register r.
template <planar_slices F, lane_order order, int p, int r>
struct code_bits {
  static constexpr int size = slice_bytes<F>;
  static constexpr byte_positions at =
      positions_of([](int k) { return bytes_of_plane<F, order, p>.at(place_in<F>(order, p, r, k), k); });
  static constexpr byte_pick pick = pick_of(at, size, plane_starts<F, order, p>);
  static constexpr bit_moves moves = [] {
    std::int8_t right[64] = {};
    for (int k = 0; k < 64; ++k) {
      const bit_place from = place_in<F>(order, p, r, k);
      right[k] = static_cast<std::int8_t>(8 * (from.byte - at.at[k]) + from.shift -
                                          code_plan<F>.at[0][p].low - code_shift<F>);
    }
    return moves_of(right);
  }();
  /// The first register that has its bits in the same bytes.
  static constexpr int twin = [] {
    int first = r;
    simd::unroll<r>([&](auto q) {
      if (first == r && code_bits<F, order, p, q>::at == at) first = q;
    });
    return first;
  }();
};

/// b where the mask is set, else a.
QUANTAL_INLINE __m512i selected(__m512i mask, __m512i b, __m512i a) noexcept {
  return _mm512_ternarylogic_epi32(a, b, mask, 0xd8);
}

/// Codes of the levels, repeated: the permutation then ignores the upper bits of its indices.
template <has_levels F>
alignas(64) inline constexpr auto levels_of_index = bytes_of([](int k) {
  constexpr int n = F::levels <= 2    ? 2
                    : F::levels <= 4  ? 4
                    : F::levels <= 8  ? 8
                    : F::levels <= 16 ? 16
                    : F::levels <= 32 ? 32
                                      : 64;
  const int i = (k % n) ^ code_plan<F>.base;
  return i < F::levels ? level_codes<F, F::levels>[static_cast<std::size_t>(i)] : 0;
});

/// Codes of a slice (of their first table where there are two).
template <planar_slices F, lane_order order>
QUANTAL_INLINE void slice_codes_in(const std::uint8_t* slice, __m512i (&codes)[4]) noexcept {
  constexpr const auto& plan = code_plan<F>;
  constexpr int up =
      code_shift<F>;  // here: GCC 13 does not find what it calls when it is asked in a lambda first
  simd::unroll<plan.planes>([&](auto p) QUANTAL_LAMBDA {
    __m512i bytes[4];
    simd::unroll<4>([&](auto r) QUANTAL_LAMBDA {
      using bits = code_bits<F, order, p, r>;
      if constexpr (bits::twin == r)
        bytes[r] = picked<bits>(slice);
      else
        bytes[r] = bytes[bits::twin];
      const __m512i x = moved<bits>(bytes[r]);
      const __m512i mask = _mm512_set1_epi8(static_cast<char>(plan.at[0][p].mask() << up));
      codes[r] = p == 0 ? x : selected(mask, x, codes[r]);
    });
  });
  simd::unroll<4>([&](auto r) QUANTAL_LAMBDA {
    constexpr int mask = plan.mask() << up;
    if constexpr (looks_up<F>) {
      codes[r] = _mm512_permutexvar_epi8(codes[r], load(levels_of_index<F>));
    } else {
      if constexpr (mask != 255)
        codes[r] = _mm512_and_si512(codes[r], _mm512_set1_epi8(static_cast<char>(mask)));
      if constexpr (plan.base != 0)
        codes[r] = _mm512_xor_si512(codes[r], _mm512_set1_epi8(static_cast<char>(plan.base << up)));
    }
  });
}

}  // namespace quantal::kernel::avx512_vnni

#endif
