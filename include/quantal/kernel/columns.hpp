// Where the columns of a product come from and go to: mul_mat sends every token through one matrix, mul_mat_id the
// tokens that an expert received. The tile kernels are the same for both.
#pragma once

#include <cstdint>

namespace quantal::kernel {

/// Tokens [0, n) in order: column i reads activation row i.
struct every_column {
  std::int64_t n;
  float* out;
  std::int64_t out_stride;

  std::int64_t count() const noexcept { return n; }
  std::int64_t activation_row(std::int64_t i) const noexcept { return i; }
  float* result(std::int64_t i) const noexcept { return out + i * out_stride; }
};

/// The (token, slot) pairs routed to one expert. `order` holds token * used + slot.
struct routed_columns {
  const std::int32_t* order;
  std::int64_t n, used;
  bool shared_activation;  ///< all slots of a token read the same activation row
  float* out;
  std::int64_t out_token_stride, out_slot_stride;

  std::int64_t count() const noexcept { return n; }
  std::int64_t activation_row(std::int64_t i) const noexcept { return shared_activation ? order[i] / used : order[i]; }
  float* result(std::int64_t i) const noexcept {
    return out + order[i] / used * out_token_stride + order[i] % used * out_slot_stride;
  }
};

}  // namespace quantal::kernel
