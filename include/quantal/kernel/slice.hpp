// Up to 256 consecutive weights of a row, decoded for a kernel: as float32, or as codes with scales.
#pragma once

#include "quantal/kernel/block_codes.hpp"

namespace quantal::kernel {

/// Weights a kernel decodes at a time; a multiple of every block of the catalogue.
inline constexpr int slice_weights = 256;

/// Codes and scales of one slice of one row. Scales are per sub_group<F> weights.
template <block_format F>
struct coded_slice {
  static constexpr int subs = slice_weights / sub_group<F>;
  alignas(64) std::int8_t codes[slice_weights];
  alignas(64) float scales[subs];
  alignas(64) float offsets[subs];
};

/// Decodes weights [first, first + count) of a row; both are multiples of the block, count <= slice_weights.
template <block_format F>
QUANTAL_INLINE void decode_codes(const std::byte* row, float row_scale, std::int64_t first, int count,
                                 coded_slice<F>& out) noexcept {
  constexpr int n = F::layout.elements;
  const auto* block = row_blocks<F>(row) + first / n;
  for (int i = 0; i < count; i += n, ++block) {
    block_codes(F{}, *block, out.codes + i);
    block_scales(F{}, *block, row_scale, out.scales + i / sub_group<F>, out.offsets + i / sub_group<F>);
  }
}

/// The same weights as float32, bit-exact.
template <any_format F>
QUANTAL_INLINE void decode_floats(const std::byte* row, float row_scale, std::int64_t first, int count,
                                  float* out) noexcept {
  if constexpr (float_format<F>) {
    const auto* v = row_blocks<F>(row) + first;
    for (int i = 0; i < count; ++i) out[i] = F::value(v[i]);
  } else {
    coded_slice<F> s;
    decode_codes<F>(row, row_scale, first, count, s);
    constexpr int sub = sub_group<F>;
    for (int g = 0; g < count / sub; ++g)
      for (int i = g * sub; i < (g + 1) * sub; ++i) {
        const float product = s.scales[g] * static_cast<float>(s.codes[i]);
        if constexpr (F::layout.has_offset) out[i] = product + s.offsets[g];
        else out[i] = product;
      }
  }
}

/// Row scale of any format; float formats have none.
template <any_format F>
QUANTAL_INLINE float row_scale_of(const std::byte* row) noexcept {
  if constexpr (float_format<F>) return 1.0f;
  else return row_scale<F>(row);
}

}  // namespace quantal::kernel
