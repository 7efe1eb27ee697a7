// Where the columns of a product come from and go to: mul_mat sends every token through one matrix,
// mul_mat_id the tokens that an expert received. The tile kernels are the same for both.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantal/config.hpp"

namespace quantal::kernel {

/// Columns [0, n). Without `order`, column i reads activation row i; with it, column i is the (token, slot)
/// pair order[i] = token * used + slot of one expert.
struct columns {
  const std::int32_t* order;
  std::int64_t n, used;
  bool shared_activation;  ///< all slots of a token read the same activation row
  float* out;
  std::int64_t out_token_stride, out_slot_stride;

  QUANTAL_INLINE std::int64_t activation_row(std::int64_t i) const noexcept {
    return !order ? i : shared_activation ? order[i] / used : order[i];
  }
  QUANTAL_INLINE float* result(std::int64_t i) const noexcept {
    return order ? out + order[i] / used * out_token_stride + order[i] % used * out_slot_stride
                 : out + i * out_token_stride;
  }
};

/// Float activation rows: row i belongs to token i / slots, slot i % slots.
struct float_activations {
  const float* data;
  std::int64_t token_stride, slot_stride, slots;
  QUANTAL_INLINE const float* row(std::int64_t i) const noexcept {
    return slots == 1 ? data + i * token_stride : data + i / slots * token_stride + i % slots * slot_stride;
  }
};

/// Matrix rows [first, first + count) of one weight matrix.
struct weight_rows {
  const std::byte* data;
  std::int64_t stride, cols;
  std::int64_t first;
  int count;
  QUANTAL_INLINE const std::byte* row(int r) const noexcept { return data + (first + r) * stride; }
  /// Bytes of `weights` weights, about.
  QUANTAL_INLINE std::int64_t bytes_of(std::int64_t weights) const noexcept {
    return weights * stride / cols;
  }
};

/// Bytes of weights asked for ahead of their use: the hardware's own prefetching stops at every page.
inline constexpr std::int64_t prefetch_distance = 4096;

/// Asks the caches for `bytes` from p + offset on, if p + offset lies before `end`.
QUANTAL_INLINE void prefetch(const std::byte* p, std::int64_t offset, std::int64_t bytes,
                             const std::byte* end) noexcept {
  if (offset >= end - p) return;
  for (std::int64_t i = 0; i < bytes; i += 64) __builtin_prefetch(p + offset + i);
}

}  // namespace quantal::kernel
