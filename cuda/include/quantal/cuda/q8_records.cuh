// Activations rounded to int8, for products with few vectors.
//
// A record holds 256 values of one vector: their codes in the fragment_codes order of the weight format, what
// an int32 sum starts from, the sums of the codes, and the scale. The scale is that of the largest of the 256
// values, max / 127, so the normalised mean squared error is about 5e-5 for Gaussian values.
#pragma once

#include "quantal/cuda/activations.cuh"
#include "quantal/cuda/fragment_codes.hpp"
#include "quantal/cuda/ptx.cuh"

namespace quantal::cuda {

/// Layout of a record; records of a group of 256 follow each other, vector by vector.
template <block_format F>
struct q8_record {
  static constexpr int sums_per_chunk = F::layout.group < 32 ? 2 : 1;
  static constexpr int starts = 256;                         ///< int32[8][sums_per_chunk]
  static constexpr int sums = starts + 32 * sums_per_chunk;  ///< float32, only for formats with offsets
  static constexpr int scale = sums + (F::layout.has_offset ? 32 * sums_per_chunk : 0);
  /// An odd multiple of 32 bytes (modulo 128), so that the fragments of eight records lie in different banks.
  static constexpr int bytes = (scale + 4 + 31) / 64 * 64 + 32;
};

/// A float of this magnitude holds an integer below 2^22 in its low bits: int32 sums become floats by one
/// subtraction.
inline constexpr std::int32_t integer_float_bits = 0x4b400000;
inline constexpr float integer_float = 12582912.0f;

/// The eight of 256 values, x[256 * group] on, that a lane rounds; values from `cols` on are zero.
template <block_format F>
__device__ inline void load_values(const float* x, std::int64_t group, std::int64_t cols, int lane,
                                   float (&v)[8]) noexcept {
  const int chunk = lane >> 2, quarter = lane & 3;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const std::int64_t k =
        group_weights * group + 32 * chunk + fragment_element(fragment_reader<F>::order, quarter, i);
    v[i] = k < cols ? x[k] : 0.0f;
  }
}

/// The largest magnitude of a warp's values; NaN if one of them is.
__device__ inline float largest_magnitude(const float (&v)[8]) noexcept {
  std::uint32_t bits = 0;  // ordered as the magnitudes are, NaN above infinity
#pragma unroll
  for (int i = 0; i < 8; ++i) bits = max(bits, __float_as_uint(fabsf(v[i])));
  return __uint_as_float(__reduce_max_sync(0xffffffffu, bits));
}

/// Writes the record of 256 values by one warp.
template <block_format F>
__device__ inline void write_record(const float (&v)[8], std::uint8_t* out, int lane) noexcept {
  using record = q8_record<F>;
  const int chunk = lane >> 2, quarter = lane & 3;
  const float largest = largest_magnitude(v);
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  std::uint32_t words[2] = {0, 0};
  int sums[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    const int q = __float2int_rn(v[i] * inverse);
    words[i / 4] |= static_cast<std::uint32_t>(q & 255) << (8 * (i % 4));
    sums[i / 4] += q;
  }
  *reinterpret_cast<uint2*>(out + 8 * lane) = make_uint2(words[0], words[1]);

  // Sums of the chunk, or of its halves: those of a fragment's words, or those of two lanes.
  int first = split_fragments<F> ? sums[0] : sums[0] + sums[1], second = sums[1];
  first += __shfl_xor_sync(0xffffffffu, first, 1);
  if constexpr (split_fragments<F>) {
    second += __shfl_xor_sync(0xffffffffu, second, 1);
    first += __shfl_xor_sync(0xffffffffu, first, 2);
    second += __shfl_xor_sync(0xffffffffu, second, 2);
  } else {
    const int other = __shfl_xor_sync(0xffffffffu, first, 2);
    if constexpr (record::sums_per_chunk == 2)
      second = other;
    else
      first += other;
  }
  if (quarter == 0) {
    const auto store = [&](int h, int sum) {
      const int at = 4 * (record::sums_per_chunk * chunk + h);
      *reinterpret_cast<std::int32_t*>(out + record::starts + at) =
          integer_float_bits - fragment_reader<F>::bias * sum;
      if constexpr (F::layout.has_offset)
        *reinterpret_cast<float*>(out + record::sums + at) = static_cast<float>(sum);
    };
    store(0, first);
    if constexpr (record::sums_per_chunk == 2) store(1, second);
  }
  // A vector that is not finite makes its products so too.
  if (lane == 0) *reinterpret_cast<float*>(out + record::scale) = largest / 127.0f;
}

/// One warp per record of vectors 0..x.n - 1; see activations.cuh for the rest.
template <block_format F>
__global__ void prepare_q8(const vectors x, std::uint8_t* out) {
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const std::int64_t warp = (blockIdx.x * static_cast<std::int64_t>(blockDim.x) + threadIdx.x) >> 5;
  const std::int64_t groups = (x.cols + group_weights - 1) / group_weights;
  if (warp >= groups * x.n) return;
  const std::int64_t i = warp % x.n, group = warp / x.n;
  if (const float* data = x.at(i)) {
    float v[8];
    load_values<F>(data, group, x.cols, threadIdx.x & 31, v);
    write_record<F>(v, out + warp * q8_record<F>::bytes, threadIdx.x & 31);
  }
}

}  // namespace quantal::cuda
