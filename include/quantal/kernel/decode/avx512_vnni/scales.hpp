// Scales of a slice, one to each of sixteen lanes, by their formula (format/scale_plan.hpp): integers read by
// their bit plans, times the block's half or the row's scale. Formats with another formula fall back on
// block_scales.
#pragma once

#include <cstddef>

#include "quantal/format/scale_plan.hpp"
#include "quantal/kernel/decode/avx512_vnni/planes.hpp"

#if QUANTAL_WITH_AVX512_VNNI

namespace quantal::kernel::avx512_vnni {

// Which weight's scale a lane has: `Lanes::weight(lane)`.

/// Lanes of registers in an order.
template <lane_order order>
struct lanes_in {
  static constexpr int weight(int lane) noexcept { return order.weight(0, 4 * lane); }
};
/// One lane after another for every `sub` weights; lanes past the end repeat the first.
template <int sub>
struct scales_in_order {
  static constexpr int weight(int lane) noexcept { return lane * sub % weights; }
};

// Fields of blocks in lanes.

/// Where the bits of a number begin for every lane, in bits of the slice; they go to bit `low`.
struct lane_fields {
  int bit[16]{};
  int low = 0;

  constexpr int first_byte() const noexcept {
    int first = bit[0];
    for (const int b : bit) first = b < first ? b : first;
    return first / 8;
  }
  constexpr int bytes() const noexcept {
    int last = 0;
    for (const int b : bit) last = b > last ? b : last;
    return last / 8 + 1 - first_byte();
  }
};
template <class Fn>
constexpr lane_fields fields_of(Fn bit, int low = 0) {
  lane_fields f;
  f.low = low;
  for (int l = 0; l < 16; ++l) f.bit[l] = bit(l);
  return f;
}

/// The byte of every lane's field, four times.
template <class P>
struct field_bytes {
  static constexpr int size = P::size;
  static constexpr byte_pick pick =
      pick_of(positions_of([](int k) { return P::fields.bit[k / 4] / 8; }), size);
};
/// From a broadcast of the `wide` bytes at `at`: the fields in their lanes' lowest bytes.
template <class P, int wide>
struct field_word {
  static constexpr int at =
      P::fields.first_byte() <= P::size - wide ? P::fields.first_byte() : P::size - wide;
  alignas(64) static constexpr auto shifts = lanes_of([](int l) {
    return (P::fields.bit[l] - 8 * at - P::fields.low) & (8 * wide - 1);
  });
};
template <class P>
struct field_moves {
  static constexpr bit_moves moves = [] {
    std::int8_t right[64] = {};
    for (int k = 0; k < 64; ++k)
      right[k] = static_cast<std::int8_t>(P::fields.bit[k / 4] % 8 - P::fields.low);
    return moves_of(right);
  }();
};
/// P::fields of a slice of P::size bytes, with other bits beside them. A broadcast from memory takes no
/// shuffle.
template <class P>
QUANTAL_INLINE __m512i lanes_with(const std::uint8_t* slice) noexcept {
  if constexpr (P::fields.bytes() <= 4) {
    using word = field_word<P, 4>;
    return _mm512_rorv_epi32(_mm512_set1_epi32(simd::load_word<std::int32_t>(slice + word::at)),
                             load(word::shifts));
  } else if constexpr (P::fields.bytes() <= 8) {
    using word = field_word<P, 8>;
    return _mm512_multishift_epi64_epi8(load(word::shifts),
                                        _mm512_set1_epi64(simd::load_word<long long>(slice + word::at)));
  } else {
    return moved<field_moves<P>>(picked<field_bytes<P>>(slice));
  }
}

/// Lanes whose bit P::fields.bit[lane] of the slice is set.
template <class P>
QUANTAL_INLINE __mmask16 lanes_where(const std::uint8_t* slice) noexcept {
  constexpr bool in_order = [] {
    for (int l = 0; l < 16; ++l)
      if (P::fields.bit[l] != P::fields.bit[0] + l) return false;
    return P::fields.bit[0] % 8 == 0;
  }();
  if constexpr (in_order)
    return simd::load_word<std::uint16_t>(slice + P::fields.bit[0] / 8);
  else
    return _mm512_test_epi32_mask(lanes_with<P>(slice), _mm512_set1_epi32(1 << P::fields.low));
}

// Integers per group.

/// Plane p of a plan of n integers per block.
template <block_format F, class Lanes, const auto& plan, int p>
struct plan_fields {
  static constexpr int size = slice_bytes<F>, n = F::layout.groups();
  static constexpr lane_fields fields = fields_of(
      [](int l) {
        const bit_place at = place_of(plan, p, Lanes::weight(l) / F::layout.group, F::layout.bytes);
        return 8 * at.byte + at.shift;
      },
      plan.at[0][p].low);
};
/// The integers of a plan in their groups' lanes.
template <block_format F, class Lanes, const auto& plan>
QUANTAL_INLINE __m512i planned_lanes(const std::uint8_t* slice) noexcept {
  __m512i v;
  simd::unroll<plan.planes>([&](auto p) QUANTAL_LAMBDA {
    const __m512i x = lanes_with<plan_fields<F, Lanes, plan, p>>(slice);
    if constexpr (p == 0)
      v = x;
    else
      v = selected(_mm512_set1_epi32(plan.at[0][p].mask()), x, v);
  });
  v = _mm512_and_si512(v, _mm512_set1_epi32(plan.mask()));
  if constexpr (plan.base != 0) v = _mm512_xor_si512(v, _mm512_set1_epi32(plan.base));
  return v;
}

template <block_format F, class Lanes>
QUANTAL_INLINE __m512i sub_scale_lanes(const std::uint8_t* slice) noexcept {
  if constexpr (plans_sub_scales<F>()) {
    const __m512i v = planned_lanes<F, Lanes, sub_scale_plan<F>>(slice);
    return lowest_sub_scale<F> == 0 ? v : _mm512_add_epi32(v, _mm512_set1_epi32(lowest_sub_scale<F>));
  } else {
    const __m512i v = planned_lanes<F, Lanes, magnitude_plan<F>>(slice);
    return _mm512_mask_sub_epi32(v, lanes_where<plan_fields<F, Lanes, sign_plan<F>, 0>>(slice),
                                 _mm512_setzero_si512(), v);
  }
}

// Numbers per block.

/// The half at `offset` of the block.
template <block_format F, class Lanes, int offset>
struct half_positions {
  static constexpr int size = slice_bytes<F>;
  static constexpr byte_pick pick =
      pick_of(positions_of([](int k) {
                return Lanes::weight(k % 32 / 2) / F::layout.elements * F::layout.bytes + offset + k % 2;
              }),
              size);
};
template <block_format F, class Lanes, int offset>
QUANTAL_INLINE __m512 half_lanes(const std::uint8_t* slice) noexcept {
  if constexpr (slice_blocks<F> == 1)
    return _mm512_cvtph_ps(_mm256_set1_epi16(simd::load_word<std::int16_t>(slice + offset)));
  else
    return _mm512_cvtph_ps(_mm512_castsi512_si256(picked<half_positions<F, Lanes, offset>>(slice)));
}

/// Byte of the block that number i is; -1 where it is no byte.
template <class Block, class Fn>
constexpr int byte_of(Fn number, int i) noexcept {
  const auto s = quantal::detail::bits_of<Block>(number, i);
  if (!s.found || s.base != 0 || s.width != 8 || s.bit[0] % 8 != 0) return -1;
  for (int k = 0; k < 8; ++k)
    if (s.bit[k] != s.bit[0] + k) return -1;
  return s.bit[0] / 8;
}
/// A byte per group, twice in each of sixteen 16-bit lanes.
template <block_format F, class Lanes, const auto& bytes>
struct byte_positions_of_groups {
  static constexpr int size = slice_bytes<F>;
  static constexpr byte_pick pick = pick_of(positions_of([](int k) {
                                              const int w = Lanes::weight(k % 32 / 2);
                                              return w / F::layout.elements * F::layout.bytes +
                                                     bytes[w % F::layout.elements / F::layout.group];
                                            }),
                                            size);
};
template <block_format F, class Lanes, const auto& bytes>
QUANTAL_INLINE __m256i byte_lanes(const std::uint8_t* slice) noexcept {
  return _mm256_and_si256(_mm512_castsi512_si256(picked<byte_positions_of_groups<F, Lanes, bytes>>(slice)),
                          _mm256_set1_epi16(255));
}

/// Where the byte of exponents lies, and those of the scales of groups.
template <block_format F>
inline constexpr int exponent_byte =
    byte_of<typename F::block>([](const typename F::block& b, int) { return F::exponent(b); }, 0);
template <block_format F>
inline constexpr auto scale_code_bytes = [] {
  using block = typename F::block;
  std::array<int, std::size_t{F::layout.groups()}> t{};
  for (int g = 0; g < F::layout.groups(); ++g)
    t[static_cast<std::size_t>(g)] =
        byte_of<block>([](const block& b, int i) { return F::scale_code(b, i); }, g);
  return t;
}();

/// Does a reader below give the scales, or the offsets?
template <block_format F>
constexpr bool reads_scales() noexcept {
  constexpr scale_formula f = scale_formula_of<F>;
  if constexpr (f == scale_formula::row_times || f == scale_formula::half_times) {
    return plans_sub_scales<F>() || plans_signed_sub_scales<F>();
  } else if constexpr (f == scale_formula::exponent) {
    return exponent_byte<F> >= 0;
  } else if constexpr (f == scale_formula::small_float) {
    for (const int at : scale_code_bytes<F>)
      if (at < 0) return false;
    return true;
  } else {
    return f == scale_formula::row || f == scale_formula::half;
  }
}
template <block_format F>
constexpr bool reads_offsets() noexcept {
  constexpr offset_formula f = offset_formula_of<F>;
  return f == offset_formula::none || f == offset_formula::half ||
         (f == offset_formula::half_times && plans_sub_mins<F>());
}
/// Are the scales and offsets read by plan?
template <block_format F>
inline constexpr bool has_planned_scales = reads_scales<F>() && reads_offsets<F>();

template <block_format F, class Lanes>
struct exponent_fields {
  static constexpr int size = slice_bytes<F>;
  static constexpr lane_fields fields = fields_of(
      [](int l) { return 8 * (Lanes::weight(l) / F::layout.elements * F::layout.bytes + exponent_byte<F>); });
};
/// Powers of two 2^(v - 128). The two smallest are subnormal.
QUANTAL_INLINE __m512 powers_of_two(__m512i v) noexcept {
  const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(v, _mm512_set1_epi32(1)), 23);
  return _mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, _mm512_cmplt_epu32_mask(v, _mm512_set1_epi32(2)),
                                                    _mm512_set1_epi32(0x00200000), v));
}
/// Numbers of scale_formula::small_float.
QUANTAL_INLINE __m512 small_floats(__m256i codes) noexcept {
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(codes, 7), _mm256_set1_epi16(0x3f80));
  const __mmask16 number = _mm256_cmpneq_epi16_mask(codes, _mm256_set1_epi16(0x7f));
  return _mm512_mul_ps(_mm512_cvtph_ps(_mm256_maskz_mov_epi16(number, half)), _mm512_set1_ps(128.0f));
}

template <block_format F, class Lanes>
QUANTAL_INLINE __m512 scale_lanes(const std::uint8_t* slice, float row_scale) noexcept {
  using block = typename F::block;
  constexpr scale_formula from = scale_formula_of<F>;
  if constexpr (from == scale_formula::row) {
    return _mm512_set1_ps(row_scale);
  } else if constexpr (from == scale_formula::half) {
    return half_lanes<F, Lanes, offsetof(block, d)>(slice);
  } else if constexpr (from == scale_formula::half_times) {
    const __m512 d = half_lanes<F, Lanes, offsetof(block, d)>(slice);
    return _mm512_mul_ps(d, _mm512_cvtepi32_ps(sub_scale_lanes<F, Lanes>(slice)));
  } else if constexpr (from == scale_formula::row_times) {
    return times(row_scale, sub_scale_lanes<F, Lanes>(slice));
  } else if constexpr (from == scale_formula::exponent) {
    const __m512i bytes = lanes_with<exponent_fields<F, Lanes>>(slice);
    return powers_of_two(_mm512_and_si512(bytes, _mm512_set1_epi32(255)));
  } else {
    static_assert(from == scale_formula::small_float);
    return small_floats(byte_lanes<F, Lanes, scale_code_bytes<F>>(slice));
  }
}
template <block_format F, class Lanes>
QUANTAL_INLINE __m512 offset_lanes(const std::uint8_t* slice) noexcept {
  using block = typename F::block;
  if constexpr (offset_formula_of<F> == offset_formula::half) {
    return half_lanes<F, Lanes, offsetof(block, m)>(slice);
  } else {
    static_assert(offset_formula_of<F> == offset_formula::half_times);
    const __m512 d = half_lanes<F, Lanes, offsetof(block, dmin)>(slice);
    const __m512 minus = _mm512_xor_ps(d, _mm512_set1_ps(-0.0f));
    return _mm512_mul_ps(minus, _mm512_cvtepi32_ps(planned_lanes<F, Lanes, sub_min_plan<F>>(slice)));
  }
}

// Second tables.

template <has_two_tables F, class Lanes>
struct table_fields {
  static constexpr int size = slice_bytes<F>;
  static constexpr lane_fields fields = fields_of([](int l) {
    const int w = Lanes::weight(l), g = w % F::layout.elements / F::layout.group;
    return 8 * (w / F::layout.elements * F::layout.bytes) + table_plan<F>.bit[static_cast<std::size_t>(g)];
  });
};
/// What the lanes' tables add to the levels of the first, in every byte.
template <has_two_tables F, class Lanes>
QUANTAL_INLINE __m512i table_steps(const std::uint8_t* slice) noexcept {
  return _mm512_maskz_mov_epi32(lanes_where<table_fields<F, Lanes>>(slice),
                                _mm512_set1_epi8(static_cast<char>(table_plan<F>.step)));
}

}  // namespace quantal::kernel::avx512_vnni

#endif
