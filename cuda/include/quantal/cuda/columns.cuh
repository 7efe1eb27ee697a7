// Which vectors a block of a product multiplies, and where its results go: all in a row, or those routed to
// an expert.
#pragma once

#include <cstdint>

namespace quantal::cuda {

/// Vectors begin .. begin + count - 1 of the prepared activations meet the matrix of `expert`.
struct column_tile {
  std::int32_t expert, begin, count;
};

/// The columns of a product. Dense where `tiles` is null: vector i is i-th everywhere.
struct columns {
  std::int64_t n;                  ///< prepared vectors
  std::int64_t out_stride;         ///< dense: floats between result vectors
  const column_tile* tiles;        ///< one per blockIdx.y
  const std::int32_t* count;       ///< of tiles that are in use
  const std::int64_t* out_offset;  ///< of the result of each prepared vector, in floats

  /// Tile `y` of N vectors; count 0 if there is none.
  template <int N>
  __device__ column_tile tile(int y) const noexcept {
    if (!tiles) return {0, y * N, static_cast<std::int32_t>(n - y * N < N ? n - y * N : N)};
    return y < *count ? tiles[y] : column_tile{0, 0, 0};
  }
  __device__ std::int64_t out(int vector) const noexcept {
    return out_offset ? out_offset[vector] : vector * out_stride;
  }
};

}  // namespace quantal::cuda
