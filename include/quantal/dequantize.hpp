// Rows of any format back to float32, bit-exact, straight from the definition of each format. The arch variants
// in kernel/ are faster and give the same bits.
#pragma once

#include "quantal/checks.hpp"
#include "quantal/float_environment.hpp"
#include "quantal/formats.hpp"
#include "quantal/status.hpp"

namespace quantal {

/// Decodes one row of `cols` weights (a multiple of F::layout.elements) into out[cols].
template <any_format F>
constexpr void dequantize_row(const std::byte* row, float* out, std::int64_t cols) noexcept {
  const float_environment settings;
  const auto* blocks = row_blocks<F>(row);
  if constexpr (float_format<F>) {
    for (std::int64_t i = 0; i < cols; ++i) out[i] = F::value(blocks[i]);
  } else {
    const float rs = row_scale<F>(row);
    for (std::int64_t i = 0; i < cols; i += F::layout.elements) {
      const auto& b = blocks[i / F::layout.elements];
      for (int e = 0; e < F::layout.elements; ++e) out[i + e] = weight<F>(b, rs, e);
    }
  }
}

/// The same, for a format known at run time.
inline status dequantize_row(std::uint32_t gguf_id, const std::byte* row, float* out,
                             std::int64_t cols) noexcept {
  const format_info* f = find_format(gguf_id);
  if (!f) return status::unknown_format;
  const checks::row_layout layout = checks::rows_of(f->layout);
  if (const status s = checks::check_row(layout, row, out, nullptr, cols); s != status::ok) return s;
  visit_format(gguf_id, [&]<class F>() { dequantize_row<F>(row, out, cols); });
  return status::ok;
}

}  // namespace quantal
