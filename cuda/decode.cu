// Every format's decoder in a kernel: one thread per weight of a row.
#include "quantal/formats.hpp"

namespace quantal::cuda {

/// out[i] = weight i of a row of `cols` weights.
template <any_format F>
__global__ void dequantize_row(const std::byte* row, float* out, std::int64_t cols) {
  const std::int64_t i = blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x;
  if (i >= cols) return;
  const auto* blocks = row_blocks<F>(row);
  if constexpr (float_format<F>) {
    out[i] = F::value(blocks[i]);
  } else {
    constexpr int n = F::layout.elements;
    out[i] = weight<F>(blocks[i / n], row_scale<F>(row), static_cast<int>(i % n));
  }
}

/// The kernel of a format by id; nullptr for an unknown one.
auto dequantize_kernel(std::uint32_t gguf_id) {
  void (*kernel)(const std::byte*, float*, std::int64_t) = nullptr;
  visit_format(gguf_id, [&]<class F>() { kernel = &dequantize_row<F>; });
  return kernel;
}

}  // namespace quantal::cuda
