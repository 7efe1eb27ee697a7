// What a variant's quantizer units instantiate: the quantizers of some formats on one arch.
#pragma once

#include "quantal/quantize/output_codes.hpp"
#include "quantal/quantize/quantize.hpp"
#include "quantal/quantize/row_product.hpp"
#include "quantal/runtime/parts.hpp"

namespace quantal::runtime {

template <class A, std::size_t P>
void add_quantizers(quantizer_table& table) noexcept {
  const auto add = [&]<class F>() {
    constexpr std::size_t i = *format_index(F::gguf_id);
    if constexpr (i % quantizer_parts == P && quantizable<F>)
      table.rows[i] = &quantal::quantize_row<F, quantize_policy{}, A>;
    if constexpr (i % quantizer_parts == P && quantize::output_codable<F>)
      table.coders[i] = quantize::coder_of<F, A>();
  };
  all_formats::for_each(add);
  if constexpr (P == 0) {
    table.product = &quantize::add_row_product<A, float>;
    table.factor_product = &quantize::add_row_product<A, double>;
  }
}

}  // namespace quantal::runtime
