// Up to 256 consecutive weights of a row, decoded for a kernel: as float32, or as codes with scales. This is
// all that the kernels know of a format; the drivers above it are compiled once per arch and reach it through
// `slice_decoder`.
#pragma once

#include "quantal/kernel/block_codes.hpp"

namespace quantal::kernel {

/// Weights a kernel decodes at a time; a multiple of every block of the catalogue.
inline constexpr int slice_weights = 256;
/// Most scales in a slice.
inline constexpr int slice_scales = 16;

/// Codes (biased, see code_bias) and scales of one slice of one row.
struct coded_slice {
  alignas(64) std::uint8_t codes[slice_weights];
  alignas(64) float scales[slice_scales];
  alignas(64) float offsets[slice_scales];
};

/// How a format's codes meet q8 activations. A structural type: the tile kernels are instantiated per form.
struct code_form {
  int sub;      ///< weights per scale: 16 or 32
  bool offset;  ///< weights have an additive term
  bool biased;  ///< codes carry a bias, which the sums of the activations undo
  bool narrow;  ///< biased codes fit in 7 bits
  constexpr bool operator==(const code_form&) const = default;
};

template <block_format F>
inline constexpr code_form form_of{.sub = sub_group<F>,
                                   .offset = F::layout.has_offset,
                                   .biased = code_bias<F> != 0,
                                   .narrow = narrow_codes<F>};

/// Decodes weights [first, first + count) of a row; both are multiples of the block, count <= slice_weights.
template <block_format F, class A>
QUANTAL_INLINE void decode_codes(const std::byte* row, float row_scale, std::int64_t first, int count,
                                 coded_slice& out) noexcept {
  constexpr int n = F::layout.elements;
  static_assert(slice_weights % n == 0 && n / sub_group<F> * (slice_weights / n) <= slice_scales);
  const auto* block = row_blocks<F>(row) + first / n;
  if constexpr (n == slice_weights) {
    block_codes(F{}, *block, out.codes, simd::on<A>{});
    block_scales(F{}, *block, row_scale, out.scales, out.offsets, simd::on<A>{});
  } else if (half_scaled<F> && count == slice_weights) {
    simd::unroll<slice_weights / n>(
        [&](auto i) QUANTAL_LAMBDA { block_codes(F{}, block[i], out.codes + n * i, simd::on<A>{}); });
    if constexpr (half_scaled<F>) simd::halves8_on(&block->d, F::layout.bytes, out.scales, simd::on<A>{});
    if constexpr (half_scaled<F> && F::layout.has_offset)
      simd::halves8_on(&block->m, F::layout.bytes, out.offsets, simd::on<A>{});
  } else {
    for (int i = 0; i < count; i += n, ++block) {
      block_codes(F{}, *block, out.codes + i, simd::on<A>{});
      block_scales(F{}, *block, row_scale, out.scales + i / sub_group<F>, out.offsets + i / sub_group<F>,
                   simd::on<A>{});
    }
  }
}

/// Row scale of any format; float formats have none.
template <any_format F>
QUANTAL_INLINE float row_scale_of(const std::byte* row) noexcept {
  if constexpr (float_format<F>)
    return 1.0f;
  else
    return row_scale<F>(row);
}

/// The same weights as float32, bit-exact.
template <any_format F, class A>
QUANTAL_INLINE void decode_floats(const std::byte* row, float row_scale, std::int64_t first, int count,
                                  float* out) noexcept {
  if constexpr (float_format<F>) {
    const auto* v = row_blocks<F>(row) + first;
    for (int i = 0; i < count; ++i) out[i] = F::value(v[i]);
  } else if constexpr (has_own_weight<F>) {
    const auto* blocks = row_blocks<F>(row) + first / F::layout.elements;
    for (int i = 0; i < count; ++i)
      out[i] = weight<F>(blocks[i / F::layout.elements], row_scale, i % F::layout.elements);
  } else {
    coded_slice s;
    decode_codes<F, A>(row, row_scale, first, count, s);
    constexpr int sub = sub_group<F>;
    for (int g = 0; g < count / sub; ++g)
      for (int i = g * sub; i < (g + 1) * sub; ++i) {
        const float product = s.scales[g] * static_cast<float>(s.codes[i] - code_bias<F>);
        if constexpr (F::layout.has_offset)
          out[i] = product + s.offsets[g];
        else
          out[i] = product;
      }
  }
}

}  // namespace quantal::kernel
