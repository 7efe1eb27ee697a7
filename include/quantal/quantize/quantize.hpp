// Rows of float32 weights to any format.
//
// Importance: one non-negative number per column, the mean square of the activation that meets it; the
// quantizers minimise sum importance * (weight - decoded)^2. Null, or a block whose importances are all
// (nearly) zero: every column counts the same. NaN, infinite or negative importances are refused, and so are
// NaN or infinite weights.
#pragma once

#include <cmath>

#include "quantal/checks.hpp"
#include "quantal/float_environment.hpp"
#include "quantal/formats.hpp"
#include "quantal/quantize/balance.hpp"
#include "quantal/quantize/byte_search.hpp"
#include "quantal/quantize/float_row.hpp"
#include "quantal/quantize/fp4.hpp"
#include "quantal/quantize/grid_block.hpp"
#include "quantal/quantize/lattice.hpp"
#include "quantal/quantize/row.hpp"
#include "quantal/quantize/scaled_groups.hpp"
#include "quantal/quantize/ternary.hpp"
#include "quantal/quantize/trellis_row.hpp"
#include "quantal/status.hpp"

namespace quantal {

namespace quantize {

template <class F>
concept coded_alone = requires(const float* x, const quantize_policy& p, typename F::block& b) {
  encode_block<F>(x, x, p, b);
};
/// Choices of a block look at its row.
template <class F>
concept coded_in_row = requires(const float* x, const quantize_policy& p, row_state& s,
                                typename F::block& b) {
  encode_block<F>(x, x, p, s, b);
};
template <class F>
concept coded_by_block = coded_alone<F> || coded_in_row<F>;
/// Blocks with scales of the range of float32.
template <class F>
concept wide_blocks = coded_in_row<F> && requires {
  F::block::d;
} && sizeof(F::block::d) == 4;

/// Formats without a scale per row, block by block.
template <coded_by_block F>
void encode_row(const row_view& row, const quantize_policy& p, std::byte* out) noexcept {
  if constexpr (byte_codes<F>)
    if (!p.searches_longer() && p.magnitude == 0.0f && !starts_on_lattice<F>(row))
      return encode_byte_row<F>(row, p, out);
  if constexpr (detail::power_scaled<F>)
    if (p.magnitude == 0.0f) return encode_power_row<F>(row, p, out);
  constexpr int n = F::layout.elements;
  auto* blocks = row_blocks<F>(out);
  row_view here = row;
  if constexpr (wide_blocks<F>) here.unit = unit_of(row.largest);
  row_state state;
  state.rounding = row.rounding;
  if constexpr (coded_in_row<F>) state.balance = balance_of(row);
  if constexpr (simple_symmetric<F>) state.on_lattice = starts_on_lattice<F>(row);
  if constexpr (simple_affine<F> || super_affine<F>) state.on_lattice = starts_on_affine_lattice<F>(row);
  for (std::int64_t i = 0; i < row.cols; i += n) {
    alignas(64) float x[std::size_t{n}], w[std::size_t{n}];
    load_block<F, n>(here, i, p, x, w);
    blocks[i / n] = typename F::block{};
    if constexpr (coded_in_row<F>)
      encode_block<F>(x, w, p, state, blocks[i / n]);
    else
      encode_block<F>(x, w, p, blocks[i / n]);
    if constexpr (wide_blocks<F>)
      if (here.unit != 1.0f) F::set_scale(blocks[i / n], F::scale(blocks[i / n], 1.0f, 0) / here.unit);
  }
}

}  // namespace quantize

/// A format that quantize_row can write.
template <class F>
concept quantizable = float_format<F> || quantize::simple_format<F> || quantize::scaled_groups<F> ||
    quantize::super_affine<F> || quantize::grid_format<F> || quantize::ternary_codes<F> ||
    quantize::fp4_format<F> || quantize::trellis_format<F>;

/// Quantizes one row of `cols` weights (a multiple of the block) into row_bytes<F>(cols) bytes. `importance`:
/// null or one per column. Errors leave `out` unspecified. No allocation; the bytes depend on the arguments
/// alone.
/// The vectors are those of arch A, which the calling unit must be compiled for; the bytes do not depend on
/// it.
template <quantizable F, quantize_policy P = quantize_policy{}, class A = simd::native>
status quantize_row(const float* x, const float* importance, std::byte* out, std::int64_t cols) noexcept {
  if (const status s = checks::check_row(checks::row_layout_of<F>, out, x, importance, cols); s != status::ok)
    return s;
  const float_environment settings;
  quantize::row_view row{x, importance, cols};
  if constexpr (float_format<F>) {
    return quantize::encode_floats<F, A>(row, out);
  } else {
    if (const status s = quantize::check_weights(row); s != status::ok) return s;
    if (const status s = quantize::check_importance(row); s != status::ok) return s;
    if constexpr (P.magnitude > 0.0f) {
      double square = 0;
      for (std::int64_t i = 0; i < cols; ++i) square += static_cast<double>(x[i]) * x[i];
      if (cols) row.mean_square = static_cast<float>(square / static_cast<double>(cols));
    }
    quantize::encode_row<quantize::on_arch<F, A>>(row, P, out);
    return status::ok;
  }
}

/// True if quantize_row knows this format.
constexpr bool can_quantize(std::uint32_t gguf_id) noexcept {
  bool can = false;
  visit_format(gguf_id, [&]<class F>() { can = quantizable<F>; });
  return can;
}

/// quantize_row for a format known at run time.
inline status quantize_row(std::uint32_t gguf_id, const float* x, const float* importance, std::byte* out,
                           std::int64_t cols) noexcept {
  status s = status::unknown_format;
  visit_format(gguf_id, [&]<class F>() {
    if constexpr (quantizable<F>)
      s = quantize_row<F>(x, importance, out, cols);
    else
      s = status::unsupported;
  });
  return s;
}

}  // namespace quantal
