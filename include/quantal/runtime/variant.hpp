// What a variant's translation unit instantiates: the operations of some formats on one arch.
#pragma once

#include "quantal/kernel/mul_mat_id.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::runtime {

/// Defined by the unit that was compiled for arch A.
template <any_format F, class A>
struct ops_of {
  static const format_ops value;
};

/// A row through the arch's block decoder; the same bits as quantal::dequantize_row.
template <any_format F, class A>
void dequantize_row_on(const std::byte* row, float* out, std::int64_t cols) noexcept {
  const float scale = kernel::row_scale_of<F>(row);
  for (std::int64_t first = 0; first < cols; first += kernel::slice_weights) {
    const std::int64_t left = cols - first;
    kernel::decode_floats<F>(row, scale, first, static_cast<int>(left < kernel::slice_weights ? left : kernel::slice_weights),
                             out + first);
  }
}

template <any_format F, class A>
inline constexpr format_ops make_ops{&dequantize_row_on<F, A>, &mul_mat_workspace<F, A>, &mul_mat<F, A>,
                                     &mul_mat_id_workspace<F, A>, &mul_mat_id<F, A>};

}  // namespace quantal::runtime
