#include <quantal/cuda/dequantize.cuh>

/// One row of q4_K.
quantal::status decode(const std::byte* weights, std::int64_t cols, float* out) {
  return quantal::cuda::dequantize<quantal::q4_K>(weights, 1, cols, quantal::row_bytes<quantal::q4_K>(cols),
                                                  out, cols, nullptr);
}
