// Operands of products with both sides in shared memory: how matrices lie in the workspace.
//
//   [chunk of 128 bytes of every row][group of 8 rows][8 sub-chunks of 16 bytes][8 rows][16 bytes]
//
// so that any number of row groups of a chunk is contiguous, and consists of core matrices of wgmma's layout
// without swizzle. Within 32 values the order is that of a format's fragments.
#pragma once

#include <cstdint>

#include "quantal/cuda/wgmma.cuh"

namespace quantal::cuda {

inline constexpr int operand_row_bytes = 128;  ///< of a row per chunk
inline constexpr int operand_group_bytes = 8 * operand_row_bytes;

struct bf16_operand {
  static constexpr int chunk_values = operand_row_bytes / 2;
  using product = wgmma_bf16_shared<256>;
};

/// FP8 with four exponent and three mantissa bits; a float32 scale per row maps its largest value to `top`.
struct e4m3_operand {
  static constexpr int chunk_values = operand_row_bytes;
  static constexpr float top = 448;
  using product = wgmma_e4m3_shared;
};

template <class Operand>
constexpr std::int64_t operand_chunks(std::int64_t cols) noexcept {
  return (cols + Operand::chunk_values - 1) / Operand::chunk_values;
}
/// Bytes of an operand of `groups` groups of 8 rows.
template <class Operand>
constexpr std::int64_t operand_bytes(std::int64_t cols, std::int64_t groups) noexcept {
  return operand_chunks<Operand>(cols) * groups * operand_group_bytes;
}

}  // namespace quantal::cuda
