// Up to 256 consecutive weights of a row, decoded for a kernel: as float32, or as codes with scales. This is
// all that the kernels know of a format; what is above it is compiled once per arch and form, and reaches it
// through a `code_decoder`.
#pragma once

#include "quantal/kernel/block_codes.hpp"
#include "quantal/simd/dot4.hpp"

namespace quantal::kernel {

/// Weights a kernel decodes at a time; a multiple of every block of the catalogue.
inline constexpr int slice_weights = 256;
/// Most scales in a slice.
inline constexpr int slice_scales = 16;

/// Codes (biased, see code_bias) and scales of one slice of one row.
struct coded_slice {
  alignas(64) std::uint8_t codes[slice_weights];
  alignas(64) float scales[slice_scales];
  alignas(64) float offsets[slice_scales];  ///< of formats that have them
};

/// How a format's codes meet q8 activations. A structural type: the kernels are instantiated per form, not
/// per format.
struct code_form {
  int sub;      ///< weights per scale: 16 .. 128
  bool offset;  ///< weights have an additive term
  bool biased;  ///< codes carry a bias that the sums of the activations undo
  simd::code_kind kind;
  bool paired = false;  ///< offsets are integers per 16 weights, in pairs, under one scale per slice
  constexpr bool operator==(const code_form&) const = default;
};

/// Offsets of a paired slice: words [0, 8) hold two int16 each, the scale is at this place.
inline constexpr int paired_scale_at = 8;

template <block_format F, class A>
constexpr code_form form_of() noexcept {
  using simd::code_kind;
  const code_kind kind = simd::dot_takes_u8<A> ? code_kind::u8
                         : narrow_codes<F>     ? code_kind::u7
                                               : code_kind::s8;
  return {sub_group<F>, F::layout.has_offset, code_bias<F> != 0 && kind != code_kind::s8, kind};
}

/// Is there a decoder of whole slices of several blocks?
template <block_format F, class A>
inline constexpr bool has_slice_codes = requires(const typename F::block* b, std::uint8_t* codes,
                                                 float* scales) {
  slice_codes(F{}, b, 1.0f, codes, scales, scales, simd::on<A>{});
};

/// Decodes weights [first, first + count) of a row; both are multiples of the block, count <= slice_weights.
template <block_format F, class A>
QUANTAL_INLINE void decode_codes(const std::byte* row, float row_scale, std::int64_t first, int count,
                                 coded_slice& out) noexcept {
  constexpr int n = F::layout.elements;
  static_assert(slice_weights % n == 0 && n / sub_group<F> * (slice_weights / n) <= slice_scales);
  constexpr bool eight_halves = half_scaled<F> && slice_weights / n == 8;  // converted at once
  const auto* block = row_blocks<F>(row) + first / n;
  if constexpr (n == slice_weights) {
    block_codes(F{}, *block, out.codes, simd::on<A>{});
    block_scales(F{}, *block, row_scale, out.scales, out.offsets, simd::on<A>{});
  } else if (has_slice_codes<F, A> && count == slice_weights) {
    if constexpr (has_slice_codes<F, A>)
      slice_codes(F{}, block, row_scale, out.codes, out.scales, out.offsets, simd::on<A>{});
  } else if (eight_halves && count == slice_weights) {
    simd::unroll<slice_weights / n>(
        [&](auto i) QUANTAL_LAMBDA { block_codes(F{}, block[i], out.codes + n * i, simd::on<A>{}); });
    if constexpr (eight_halves) simd::halves8_on(&block->d, F::layout.bytes, out.scales, simd::on<A>{});
    if constexpr (eight_halves && F::layout.has_offset)
      simd::halves8_on(&block->m, F::layout.bytes, out.offsets, simd::on<A>{});
  } else {
    for (int i = 0; i < count; i += n, ++block) {
      block_codes(F{}, *block, out.codes + i, simd::on<A>{});
      block_scales(F{}, *block, row_scale, out.scales + i / sub_group<F>, out.offsets + i / sub_group<F>,
                   simd::on<A>{});
    }
  }
}

/// Decodes weights [first, first + count) of a row, slice after slice; both are multiples of the block.
using code_decoder = void (*)(const std::byte* row, std::int64_t first, int count, coded_slice* out) noexcept;

template <block_format F, class A>
void decode_run(const std::byte* row, std::int64_t first, int count, coded_slice* out) noexcept {
  const float scale = row_scale<F>(row);
  for (; count > 0; first += slice_weights, count -= slice_weights)
    decode_codes<F, A>(row, scale, first, count < slice_weights ? count : slice_weights, *out++);
}

/// A decoded slice as float32: the weights as dequantize gives them, up to the sign of zero.
template <class A, int sub, bool offset>
void slice_floats(const coded_slice& s, int bias, int count, float* out) noexcept {
  for (int g = 0; g < count / sub; ++g) {
    const float scale = s.scales[g];
    [[maybe_unused]] const float add = s.offsets[g];
    for (int i = g * sub; i < (g + 1) * sub; ++i) {
      const float product = scale * static_cast<float>(s.codes[i] - bias);
      if constexpr (offset)
        out[i] = product + add;
      else
        out[i] = product;
    }
  }
}

}  // namespace quantal::kernel
