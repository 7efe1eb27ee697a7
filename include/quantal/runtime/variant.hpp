// What a variant's translation unit instantiates: the operations of some formats on one arch.
#pragma once

#include "quantal/kernel/pack.hpp"
#include "quantal/runtime/parts.hpp"

namespace quantal::runtime {

/// A row through the arch's block decoder; the same bits as quantal::dequantize_row. `cols` is a multiple of
/// the block.
template <any_format F, class A>
void dequantize_row_on(const std::byte* row, float* out, std::int64_t cols) noexcept {
  const float_environment settings;
  if constexpr (has_own_weight<F>) {
    const float scale = row_scale<F>(row);
    const auto* blocks = row_blocks<F>(row);
    for (std::int64_t i = 0; i < cols; ++i)
      out[i] = weight<F>(blocks[i / F::layout.elements], scale, static_cast<int>(i % F::layout.elements));
  } else {
    const auto decode = kernel::float_decoder_of<F, A>();
    for (std::int64_t first = 0; first < cols; first += kernel::slice_weights) {
      const std::int64_t left = cols - first;
      decode(row, first, static_cast<int>(left < kernel::slice_weights ? left : kernel::slice_weights),
             out + first);
    }
  }
}

template <class A, class P = kernel::packed_products<A>>
inline constexpr packed_ops make_packed_ops{
    &P::bytes, &P::pack, &P::dense_workspace, &P::dense, &P::routed_workspace, &P::routed};

template <any_format F, class A>
inline constexpr format_ops make_ops{&dequantize_row_on<F, A>,   &quantal::mul_mat_workspace<F, A>,
                                     &quantal::mul_mat<F, A>,    &quantal::mul_mat_id_workspace<F, A>,
                                     &quantal::mul_mat_id<F, A>, &kernel::weight_format_v<F, A>,
                                     &make_packed_ops<A>};

template <class A, std::size_t P>
void add_part(ops_table& table) noexcept {
  std::size_t i = 0;
  const auto add = [&]<class F>() {
    constexpr bool ours = *format_index(F::gguf_id) % variant_parts == P;
    if constexpr (ours) table[i] = &make_ops<F, A>;
    ++i;
  };
  all_formats::for_each(add);
}

}  // namespace quantal::runtime
