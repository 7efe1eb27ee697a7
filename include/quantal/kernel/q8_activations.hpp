// Activations of the policy `q8`: rounded to int8 with one float scale per 128 values, and the sums that undo
// the bias and apply the offsets of weights. Two layouts: rows, as few columns read them, and tiles of
// interleaved columns, as panels of weights do.
#pragma once

#include <cmath>
#include <cstring>

#include "quantal/format/detail/half.hpp"
#include "quantal/kernel/columns.hpp"
#include "quantal/kernel/tuning.hpp"
#include "quantal/simd/dot4.hpp"
#include "quantal/simd/unroll.hpp"

namespace quantal::kernel {

/// Activations per scale.
inline constexpr int q8_block = 128;

/// What a quantized activation vector takes: codes, scales, and two sums per weight scale or offset.
struct q8_shape {
  std::int64_t cols;
  int sub, bias;  ///< weights per sum, code bias of the weights
  bool paired;    ///< panels take sums as integers, see code_form

  QUANTAL_INLINE std::int64_t blocks() const noexcept { return (cols + q8_block - 1) / q8_block; }
  QUANTAL_INLINE std::int64_t subs() const noexcept { return cols / sub; }
  /// Bytes of one vector in either layout.
  QUANTAL_INLINE std::int64_t bytes() const noexcept {
    return (cols + 4 * blocks() + 8 * subs() + 63) / 64 * 64;
  }
};

/// Quantized vectors one after the other, each as four arrays.
struct q8_rows {
  std::byte* data;
  q8_shape shape;

  QUANTAL_INLINE std::byte* row(std::int64_t i) const noexcept { return data + i * shape.bytes(); }
  QUANTAL_INLINE std::int8_t* codes(std::int64_t i) const noexcept {
    return reinterpret_cast<std::int8_t*>(row(i));
  }
  QUANTAL_INLINE float* scales(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + shape.cols);
  }
  /// Sum of the codes per sub.
  QUANTAL_INLINE std::int32_t* sums(std::int64_t i) const noexcept {
    return reinterpret_cast<std::int32_t*>(row(i) + shape.cols + 4 * shape.blocks());
  }
  /// The same times the scale: what a weight offset is multiplied by.
  QUANTAL_INLINE float* shifts(std::int64_t i) const noexcept {
    return reinterpret_cast<float*>(row(i) + shape.cols + 4 * shape.blocks() + 4 * shape.subs());
  }
};

/// n columns as tiles of two widths, `wide` of them first, then the narrower ones. An odd number of columns
/// is padded with a copy of the last; a tile's kernel is then compiled for few widths only. A single column
/// is a tile of its own where `one`.
template <int wide, bool one>
struct column_tiles {
  static_assert(wide == 4 || wide == 6);
  static constexpr int slim = wide == 6 ? 4 : 2;
  std::int64_t wides, slims, ones;

  QUANTAL_INLINE explicit column_tiles(std::int64_t n) noexcept : ones(one && n == 1) {
    const std::int64_t even = padded(n) - ones, rest = even % wide;
    slims = rest == 0 ? 0 : wide == 6 && rest == 2 ? 2 : 1;
    wides = (even - slim * slims) / wide;
  }
  /// At most three more than n.
  static QUANTAL_INLINE std::int64_t padded(std::int64_t n) noexcept {
    return one && n == 1 ? 1 : n < slim ? slim : (n + 1) / 2 * 2;
  }

  QUANTAL_INLINE std::int64_t count() const noexcept { return wides + slims + ones; }
  QUANTAL_INLINE std::int64_t begin(std::int64_t tile) const noexcept {
    if (one && ones) return tile;
    return tile < wides ? wide * tile : wide * wides + slim * (tile - wides);
  }
  /// Calls `f.template operator()<C>()` for the width C of a tile.
  template <class Fn>
  QUANTAL_INLINE void with_width(std::int64_t tile, Fn&& f) const noexcept {
    if constexpr (one)
      if (ones) return f.template operator()<1>();
    if (tile < wides)
      f.template operator()<wide>();
    else
      f.template operator()<slim>();
  }
};

/// Matrix products take pairs of columns.
template <class A>
using tiles_of = column_tiles<tile_for<A>().coded_columns, !simd::has_matrix_dot<A>>;

/// One tile's part of a slice of weights: index [k][column], columns interleaved; codes by four k.
struct q8_tile {
  std::int8_t* codes;
  float* scales;
  std::int32_t* starts;  ///< -bias * sum of the codes per sub: where integer sums start
  float* sums;           ///< sum of the codes per sub; int16 in pairs where the shape says so
};

/// n quantized columns (padded as column_tiles does) interleaved tile by tile within each slice of `slice`
/// weights, so that a panel's pass over the columns reads memory in order.
struct q8_packed {
  std::byte* data;
  q8_shape shape;
  std::int64_t n;

  /// Columns [at, at + width), weights [first, first + count) where `first` begins a slice.
  QUANTAL_INLINE q8_tile tile(std::int64_t at, std::int64_t first, int count) const noexcept {
    const std::int64_t blocks = (count + q8_block - 1) / q8_block, subs = count / shape.sub;
    std::byte* const scales = data + n * shape.cols;
    std::byte* const starts = scales + 4 * n * shape.blocks();
    std::byte* const sums = starts + 4 * n * shape.subs();
    const std::int64_t sub_at = 4 * (first / shape.sub * n + at * subs);
    return {reinterpret_cast<std::int8_t*>(data + first * n + at * count),
            reinterpret_cast<float*>(scales + 4 * (first / q8_block * n + at * blocks)),
            reinterpret_cast<std::int32_t*>(starts + sub_at), reinterpret_cast<float*>(sums + sub_at)};
  }
};

/// Sums of four consecutive codes each.
template <class A>
QUANTAL_INLINE void sum_fours(const std::int8_t* codes, int n, std::int32_t* fours) noexcept {
  constexpr int lanes = static_cast<int>(simd::i32<A>::size);
  const simd::u8<A> ones(std::uint8_t{1});
  int k = 0;
  for (; k + 4 * lanes <= n; k += 4 * lanes)
    simd::dot4_narrow_on<A>(simd::i32<A>(0), ones, simd::s8<A>::load_unaligned(codes + k), simd::on<A>{})
        .store_unaligned(fours + k / 4);
  for (; k < n; k += 4) fours[k / 4] = codes[k] + codes[k + 1] + codes[k + 2] + codes[k + 3];
}

/// Rounds the n <= q8_block activations of one scale to int8, the largest magnitude to 127; returns the
/// scale. n is a multiple of 16. Infinite or NaN activations give a NaN scale, and so NaN results.
template <class A>
QUANTAL_INLINE float round_block(const float* x, int n, std::int8_t* codes) noexcept {
  using batch = xsimd::batch<float, A>;
  constexpr int lanes = static_cast<int>(batch::size);
  // Bits of magnitudes are ordered like integers, NaN and infinity above all numbers.
  using integers = simd::i32<A>;
  integers high(0);
  for (int k = 0; k < n; k += lanes)
    high = xsimd::max(high, simd::bits_as<std::int32_t>(batch::load_unaligned(x + k)) & integers(0x7fffffff));
  const auto bits = static_cast<std::uint32_t>(xsimd::reduce_max(high));
  const float largest = quantal::detail::float_from_bits(bits);
  const batch inverse(largest > 0.0f ? 127.0f / largest : 0.0f);
  // 1.5 * 2^23 makes the FPU round to the nearest integer, which then sits in the low bits. The limits matter
  // for NaN and for subnormal activations, whose inverse is infinite.
  const batch magic(12582912.0f), limit(127.0f);
  alignas(64) std::int32_t wide[q8_block];
  for (int k = 0; k < n; k += lanes) {
    const batch v = xsimd::max(xsimd::min(batch::load_unaligned(x + k) * inverse, limit), -limit);
    simd::store_low_bytes<A>(simd::bits_as<std::int32_t>(v + magic), wide + k, codes + k);
  }
  const std::uint32_t scale = quantal::detail::bits_from_float(largest / 127.0f);
  return quantal::detail::float_from_bits(bits < 0x7f800000u ? scale : 0x7fc00000u);
}

/// Rounds one activation vector.
template <class A>
void quantize_activation(const q8_rows& q, std::int64_t i, const float* x) noexcept {
  const int sub = q.shape.sub;
  std::int8_t* const codes = q.codes(i);
  for (std::int64_t from = 0; from < q.shape.cols; from += q8_block) {
    const int n = static_cast<int>(q.shape.cols - from < q8_block ? q.shape.cols - from : q8_block);
    const float scale = round_block<A>(x + from, n, codes + from);
    q.scales(i)[from / q8_block] = scale;
    std::int32_t fours[q8_block / 4];
    sum_fours<A>(codes + from, n, fours);
    std::int32_t* const sums = q.sums(i) + from / sub;
    float* const shifts = q.shifts(i) + from / sub;
    for (int s = 0; s < n / sub; ++s) {
      std::int32_t sum = 0;
      for (int k = s * sub / 4; k < (s + 1) * sub / 4; ++k) sum += fours[k];
      sums[s] = sum;
      shifts[s] = scale * static_cast<float>(sum);
    }
  }
}

/// Interleaves columns [at, at + C) of a product; column i is row cols.activation_row(i) of `rows`.
template <int C>
QUANTAL_INLINE void pack_columns(const q8_rows& rows, const columns& cols, std::int64_t at, int slice,
                                 const q8_packed& out) noexcept {
  std::int64_t row[std::size_t{C}];
  for (int c = 0; c < C; ++c) row[c] = cols.activation_row(at + c < cols.n ? at + c : cols.n - 1);
  const q8_shape& shape = rows.shape;
  for (std::int64_t first = 0; first < shape.cols; first += slice) {
    const int count = static_cast<int>(shape.cols - first < slice ? shape.cols - first : slice);
    const q8_tile t = out.tile(at, first, count);
    const std::int8_t* codes[std::size_t{C}];
    for (int c = 0; c < C; ++c) codes[c] = rows.codes(row[c]) + first;
    for (int k = 0; k < count; k += 4)
      simd::unroll<C>([&](int c) QUANTAL_LAMBDA { std::memcpy(t.codes + C * k + 4 * c, codes[c] + k, 4); });
    const float* scales[std::size_t{C}];
    const std::int32_t* sums[std::size_t{C}];
    for (int c = 0; c < C; ++c) {
      scales[c] = rows.scales(row[c]) + first / q8_block;
      sums[c] = rows.sums(row[c]) + first / shape.sub;
    }
    for (int b = 0; b * q8_block < count; ++b)
      for (int c = 0; c < C; ++c) t.scales[b * C + c] = scales[c][b];
    for (int s = 0; s < count / shape.sub; ++s)
      for (int c = 0; c < C; ++c) {
        t.starts[s * C + c] = -shape.bias * sums[c][s];
        if (!shape.paired) t.sums[s * C + c] = static_cast<float>(sums[c][s]);
      }
    // At most 16 * 127: 16 bits hold it.
    for (int s = 0; shape.paired && s < count / shape.sub; s += 2)
      for (int c = 0; c < C; ++c) {
        const auto low = static_cast<std::uint32_t>(sums[c][s]),
                   high = static_cast<std::uint32_t>(sums[c][s + 1]);
        const std::uint32_t pair = (low & 0xffffu) | high << 16;
        std::memcpy(t.sums + s / 2 * C + c, &pair, 4);
      }
  }
}

/// Interleaves tile `tile` of a product's columns.
template <class A>
void pack_tile(const q8_rows& rows, const columns& cols, std::int64_t tile, int slice,
               const q8_packed& out) noexcept {
  const tiles_of<A> tiles(cols.n);
  tiles.with_width(tile, [&]<int C>() { pack_columns<C>(rows, cols, tiles.begin(tile), slice, out); });
}

}  // namespace quantal::kernel
