// What a variant's translation unit instantiates: the operations of some formats on one arch.
#pragma once

#include "quantal/kernel/mul_mat_id.hpp"
#include "quantal/runtime/parts.hpp"

namespace quantal::runtime {

/// A row through the arch's block decoder; the same bits as quantal::dequantize_row. `cols` is a multiple of the block.
template <any_format F, class A>
void dequantize_row_on(const std::byte* row, float* out, std::int64_t cols) noexcept {
  const float scale = kernel::row_scale_of<F>(row);
  for (std::int64_t first = 0; first < cols; first += kernel::slice_weights) {
    const std::int64_t left = cols - first;
    const int count = static_cast<int>(left < kernel::slice_weights ? left : kernel::slice_weights);
    kernel::decode_floats<F, A>(row, scale, first, count, out + first);
  }
}

template <any_format F, class A>
inline constexpr format_ops make_ops{&dequantize_row_on<F, A>, &mul_mat_workspace<F, A>, &mul_mat<F, A>,
                                     &mul_mat_id_workspace<F, A>, &mul_mat_id<F, A>};

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
