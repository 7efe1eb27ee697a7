// How few columns meet a row of weights: every 32-bit lane of a register holds weights of one scale only, and
// so do that lane's of the next `depth` registers. Their dot products then add up as integers, and one
// conversion and one multiply-add serve 4 * depth weights per lane, without the 16 rows that a panel needs.
// The weights come into that order as they are decoded; activations are arranged once per product.
#pragma once

#include <array>

#include "quantal/kernel/q8_activations.hpp"
#include "quantal/kernel/slice.hpp"

namespace quantal::kernel {

/// The order of a slice's weights, four to a word. Position register * lanes + lane holds word `word[..]`.
struct lane_map {
  int depth;  ///< registers that share an integer sum
  std::array<std::uint8_t, slice_weights / 4> word;
  /// Where set, position p holds weights weight[4 * p] .. weight[4 * p + 3] instead; all that share an
  /// integer sum belong to one activation block.
  const std::array<std::uint8_t, slice_weights>* weight = nullptr;

  /// Copies the position's codes, zero past `left`, and adds them to `sum`; returns the first of its weights.
  template <class Sums>
  QUANTAL_INLINE int arrange(int position, const std::int8_t* codes, int left, const Sums& fours,
                             std::int8_t* to, std::int32_t& sum) const noexcept {
    if (!weight) {
      const int k = 4 * word[static_cast<std::size_t>(position)];
      if (k < left) {
        std::memcpy(to, codes + k, 4);
        sum += fours[k / 4];
      } else {
        std::memset(to, 0, 4);
      }
      return k;
    }
    const std::uint8_t* const from = weight->data() + 4 * position;
    int first = from[0];
    for (int j = 0; j < 4; ++j) {
      to[j] = from[j] < left ? codes[from[j]] : std::int8_t{0};
      sum += to[j];
      if (from[j] < first) first = from[j];
    }
    return first;
  }
};

/// A slice of an arranged column: codes, then for every lane of every integer sum the activation scale, and
/// where the sum starts (biased codes) or what the weights' offset is multiplied by.
template <int depth>
struct lane_column {
  static constexpr int sums = slice_weights / 4 / depth;
  alignas(64) std::int8_t codes[slice_weights];
  float scales[std::size_t{sums}];
  union {
    std::int32_t starts[std::size_t{sums}];
    float shifts[std::size_t{sums}];
  };
};

/// Bytes of one arranged column.
QUANTAL_INLINE std::int64_t lane_column_bytes(int depth, std::int64_t cols) noexcept {
  return (cols + slice_weights - 1) / slice_weights * (slice_weights + 8 * (slice_weights / 4 / depth));
}

/// Sub-groups of 16 weights side by side: four registers as they are stored in order, transposed as 4 x 4
/// words within each 128 bits. Serves every format.
template <int lanes>
constexpr lane_map transposed_lanes() noexcept {
  lane_map m{4, {}};
  for (int t = 0; t < slice_weights / 4; ++t) {
    const int unit = t / (4 * lanes), i = t / lanes % 4, part = t % lanes / 4, from = t % 4;
    m.word[static_cast<std::size_t>(t)] =
        static_cast<std::uint8_t>(4 * (lanes * unit + lanes / 4 * from + part) + i);
  }
  return m;
}

/// Columns that share a tile: their slices lie side by side.
inline constexpr int lane_tile = 8;

/// Columns that a product of n reads, tile after tile: the last tile has 1, 2, 4 or 8.
QUANTAL_INLINE std::int64_t padded_lane_columns(std::int64_t n) noexcept {
  const std::int64_t rest = n % lane_tile;
  return n - rest + (rest <= 2 ? rest : rest <= 4 ? 4 : lane_tile);
}

/// Arranges column i of `rows` as column `at` of `count` padded ones; past the end of the row codes and
/// scales are zero.
template <class A>
void arrange_lanes(const lane_map& map, int bias, bool offset, const q8_rows& rows, std::int64_t i,
                   std::int64_t at, std::int64_t count, std::byte* data) noexcept {
  constexpr int words = slice_weights / 4, lanes = static_cast<int>(xsimd::batch<float, A>::size);
  const int sums = words / map.depth, record = slice_weights + 8 * sums;
  const std::int64_t cols = rows.shape.cols, tile = at / lane_tile * lane_tile;
  const std::int64_t width = count - tile < lane_tile ? count - tile : lane_tile;
  std::byte* out = data + tile * lane_column_bytes(map.depth, cols) + (at - tile) * record;
  for (std::int64_t first = 0; first < cols; first += slice_weights) {
    const int left = static_cast<int>(cols - first < slice_weights ? cols - first : slice_weights);
    const std::int8_t* const codes = rows.codes(i) + first;
    const float* const scales = rows.scales(i) + first / q8_block;
    std::int32_t fours[words];
    sum_fours<A>(codes, left, fours);
    auto* const to = reinterpret_cast<std::int8_t*>(out);
    auto* const scale_to = reinterpret_cast<float*>(out + slice_weights);
    std::byte* const sum_to = out + slice_weights + 4 * sums;
    for (int s = 0; s < sums; ++s) {
      std::int32_t sum = 0;
      float scale = 0.0f;
      for (int d = 0; d < map.depth; ++d) {
        const int word = (s / lanes * map.depth + d) * lanes + s % lanes;
        const int k = map.arrange(word, codes, left, fours, to + 4 * word, sum);
        if (k < left) scale = scales[k / q8_block];
      }
      scale_to[s] = scale;
      if (offset) {
        const float shift = scale * static_cast<float>(sum);
        std::memcpy(sum_to + 4 * s, &shift, 4);
      } else {
        const std::int32_t start = -bias * sum;
        std::memcpy(sum_to + 4 * s, &start, 4);
      }
    }
    out += width * record;
  }
}

/// What one integer sum takes of a row: registers of codes, scale and offset by lane.
template <class A, int depth>
struct lane_group {
  simd::u8<A> codes[std::size_t{depth}];
  xsimd::batch<float, A> scale, offset;
};

namespace detail {

/// Registers of four words per 128 bits, transposed; plain loop for archs without an overload.
template <class A>
QUANTAL_INLINE void transpose_words(const std::uint8_t* in, simd::u8<A> (&out)[4],
                                    const simd::base&) noexcept {
  constexpr int lanes = static_cast<int>(xsimd::batch<float, A>::size);
  alignas(64) std::uint32_t v[std::size_t{4 * lanes}], t[std::size_t{4 * lanes}];
  std::memcpy(v, in, sizeof v);
  for (int i = 0; i < 4; ++i)
    for (int l = 0; l < lanes; ++l) t[i * lanes + l] = v[l % 4 * lanes + l / 4 * 4 + i];
  simd::unroll<4>([&](auto i) QUANTAL_LAMBDA {
    out[i] = simd::u8<A>::load_aligned(reinterpret_cast<const std::uint8_t*>(t + i * lanes));
  });
}
#if XSIMD_WITH_AVX2
template <class A>
QUANTAL_INLINE void transpose_words(const std::uint8_t* in, simd::u8<A> (&out)[4],
                                    const xsimd::avx2&) noexcept {
  const auto v = [&](int i) QUANTAL_LAMBDA {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(in + 32 * i));
  };
  const __m256i a = _mm256_unpacklo_epi32(v(0), v(1)), b = _mm256_unpackhi_epi32(v(0), v(1)),
                c = _mm256_unpacklo_epi32(v(2), v(3)), d = _mm256_unpackhi_epi32(v(2), v(3));
  out[0] = _mm256_unpacklo_epi64(a, c);
  out[1] = _mm256_unpackhi_epi64(a, c);
  out[2] = _mm256_unpacklo_epi64(b, d);
  out[3] = _mm256_unpackhi_epi64(b, d);
}
#endif
#if XSIMD_WITH_AVX512F
template <class A>
QUANTAL_INLINE void transpose_words(const std::uint8_t* in, simd::u8<A> (&out)[4],
                                    const xsimd::avx512f&) noexcept {
  const auto v = [&](int i) QUANTAL_LAMBDA { return _mm512_load_si512(in + 64 * i); };
  const __m512i a = _mm512_unpacklo_epi32(v(0), v(1)), b = _mm512_unpackhi_epi32(v(0), v(1)),
                c = _mm512_unpacklo_epi32(v(2), v(3)), d = _mm512_unpackhi_epi32(v(2), v(3));
  out[0] = _mm512_unpacklo_epi64(a, c);
  out[1] = _mm512_unpackhi_epi64(a, c);
  out[2] = _mm512_unpacklo_epi64(b, d);
  out[3] = _mm512_unpackhi_epi64(b, d);
}
#endif
#if XSIMD_WITH_NEON64
template <class A>
QUANTAL_INLINE void transpose_words(const std::uint8_t* in, simd::u8<A> (&out)[4],
                                    const xsimd::neon64&) noexcept {
  const auto v = [&](int i) QUANTAL_LAMBDA { return vreinterpretq_u32_u8(vld1q_u8(in + 16 * i)); };
  const auto wide = [](uint32x4_t x) QUANTAL_LAMBDA { return vreinterpretq_u64_u32(x); };
  const uint64x2_t a = wide(vtrn1q_u32(v(0), v(1))), b = wide(vtrn2q_u32(v(0), v(1))),
                   c = wide(vtrn1q_u32(v(2), v(3))), d = wide(vtrn2q_u32(v(2), v(3)));
  out[0] = simd::u8<A>(vreinterpretq_u8_u64(vtrn1q_u64(a, c)));
  out[1] = simd::u8<A>(vreinterpretq_u8_u64(vtrn1q_u64(b, d)));
  out[2] = simd::u8<A>(vreinterpretq_u8_u64(vtrn2q_u64(a, c)));
  out[3] = simd::u8<A>(vreinterpretq_u8_u64(vtrn2q_u64(b, d)));
}
#endif

/// Values of a slice (one per `sub` weights) by lane of integer sum `unit`, as transposed_lanes orders them.
template <class A, int sub, int unit>
QUANTAL_INLINE xsimd::batch<float, A> transposed_values(const float* v) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
#if XSIMD_WITH_AVX512F
  if constexpr (lanes == 16) {
    // Loads as wide as the stores before them, so that these can be forwarded.
    if constexpr (sub == 16)
      return _mm512_permutex2var_ps(_mm512_castps256_ps512(_mm256_load_ps(v)),
                                    _mm512_set_epi32(23, 19, 7, 3, 22, 18, 6, 2, 21, 17, 5, 1, 20, 16, 4, 0),
                                    _mm512_castps256_ps512(_mm256_load_ps(v + 8)));
    else if constexpr (sub == 32)
      return _mm512_permutexvar_ps(_mm512_set_epi32(7, 5, 3, 1, 7, 5, 3, 1, 6, 4, 2, 0, 6, 4, 2, 0),
                                   _mm512_castps256_ps512(_mm256_load_ps(v)));
    else
      return _mm512_mask_broadcastss_ps(_mm512_set1_ps(v[0]), 0xcccc, _mm_load_ss(v + 1));
  }
#endif
#if XSIMD_WITH_AVX2
  if constexpr (lanes == 8) {
    if constexpr (sub == 16)
      return _mm256_permutevar8x32_ps(_mm256_load_ps(v + 8 * unit),
                                      _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7));
    else if constexpr (sub == 32)
      return _mm256_broadcast_ps(reinterpret_cast<const __m128*>(v + 4 * unit));
    else
      return batch(v[unit]);
  }
#endif
  alignas(64) float wide[batch::size];
  for (int l = 0; l < lanes; ++l) wide[l] = v[16 * (lanes * unit + lanes / 4 * (l % 4) + l / 4) / sub];
  return batch::load_aligned(wide);
}

}  // namespace detail

/// Decodes slices of format F into lanes: by way of a coded_slice in general. Formats specialize it where
/// they can decode straight into an order of their own.
template <block_format F, class A>
struct lane_decoder {
  static constexpr int depth = 4, sums = 64 / depth / static_cast<int>(xsimd::batch<float, A>::size);
  static constexpr lane_map map = transposed_lanes<static_cast<int>(xsimd::batch<float, A>::size)>();

  coded_slice slice;

  QUANTAL_INLINE void decode(const std::byte* row, float row_scale, std::int64_t first) noexcept {
    decode_codes<F, A>(row, row_scale, first, slice_weights, slice);
  }
  QUANTAL_INLINE void decode_tail(const std::byte* row, float row_scale, std::int64_t first,
                                  int count) noexcept {
    slice = {};
    decode_codes<F, A>(row, row_scale, first, count, slice);
  }
  /// Of integer sum `unit` of the slice.
  template <int unit>
  QUANTAL_INLINE lane_group<A, depth> group() const noexcept {
    constexpr int lanes = static_cast<int>(xsimd::batch<float, A>::size);
    lane_group<A, depth> g;
    detail::transpose_words<A>(slice.codes + 16 * lanes * unit, g.codes, simd::on<A>{});
    g.scale = detail::transposed_values<A, sub_group<F>, unit>(slice.scales);
    if constexpr (F::layout.has_offset)
      g.offset = detail::transposed_values<A, sub_group<F>, unit>(slice.offsets);
    return g;
  }
};

/// Does a map keep words whole, and does every integer sum of it stay within `sub` weights?
constexpr bool keeps_words(const lane_map& map, int lanes, int sub) noexcept {
  if (map.weight) return false;
  for (int t = 0; t < slice_weights / 4; ++t) {
    const int first = t / (map.depth * lanes) * map.depth * lanes + t % lanes;
    if (4 * map.word[static_cast<std::size_t>(t)] / sub !=
        4 * map.word[static_cast<std::size_t>(first)] / sub)
      return false;
  }
  return true;
}

/// Does a format have an order of its own, and does it fill panels faster? What has slice_codes is as fast in
/// natural order, and so is all that has offsets.
template <block_format F, class A>
inline constexpr bool fills_by_line =
    !has_slice_codes<F, A> && !F::layout.has_offset && !requires(lane_decoder<F, A> d) {
  d.slice;
}
&&keeps_words(lane_decoder<F, A>::map, static_cast<int>(xsimd::batch<float, A>::size), sub_group<F>);

/// One slice in a decoder's own order: words by position, scales by lane of each integer sum. What panels are
/// made of where that is faster than a coded_slice.
struct lane_line {
  alignas(64) std::uint8_t codes[slice_weights];
  alignas(64) float scales[2 * slice_scales];
};

/// Decodes a whole slice from weight `first` of a row.
using line_decoder = void (*)(const std::byte* row, std::int64_t first, lane_line* out) noexcept;

template <block_format F, class A>
void decode_line(const std::byte* row, std::int64_t first, lane_line* out) noexcept {
  using decoder = lane_decoder<F, A>;
  constexpr int lanes = static_cast<int>(xsimd::batch<float, A>::size), depth = decoder::depth;
  static_assert(decoder::sums * lanes <= 2 * slice_scales);
  decoder d;
  d.decode(row, row_scale<F>(row), first);
  simd::unroll<decoder::sums>([&](auto u) QUANTAL_LAMBDA {
    const lane_group<A, depth> g = d.template group<u>();
    simd::unroll<depth>(
        [&](auto i) QUANTAL_LAMBDA { g.codes[i].store_aligned(out->codes + 4 * lanes * (u * depth + i)); });
    g.scale.store_aligned(out->scales + lanes * u);
  });
}

/// How panels get a format's slices: by line where there is one and the slice is whole, else by code.
struct panel_decoder {
  code_decoder codes;
  line_decoder line;
  const lane_map* map;
};

}  // namespace quantal::kernel
