// The two rows of a warp's sixteen that a lane decodes, from global memory to bf16 fragments.
#pragma once

#include "quantal/cuda/bf16_fragments.cuh"
#include "quantal/cuda/weight_stages.cuh"

namespace quantal::cuda {

/// Rows g and g + 8 of the sixteen of lane 4 * g + t, in a ring of stages that the warp fills.
template <any_format F, class Ring>
class lane_rows {
 public:
  using row = row_group<F, typename Ring::bytes_type>;

  /// `row_of(i)` is the address of row i of the sixteen, `end` that of the end of the matrix.
  template <class RowOf>
  __device__ lane_rows(std::uint8_t* ring, int lane, std::int64_t cols, const std::byte* end,
                       RowOf&& row_of) noexcept
      : ring_(ring, lane, cols, end, row_of), lane_(lane) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      const std::byte* data = row_of(lane / 4 + 8 * h);
      // As far as the skew of its groups depends on it.
      addresses_[h] = static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(data)) + F::layout.row_meta;
      if constexpr (block_format<F>) scales_[h] = row_scale<F>(data);
    }
  }

  /// Starts the copy of a group of 256 weights of all sixteen rows into a stage; the caller commits.
  __device__ void start(int group, int stage) noexcept { ring_.start_compact(group, stage); }
  /// Row g + 8 * h of a group that has arrived.
  __device__ row get(int h, int stage, int group) const noexcept {
    return row(ring_.row(stage, lane_ / 4 + 8 * h, 0, addresses_[h] + group * group_size<F>), scales_[h],
               lane_ % 4);
  }

 private:
  Ring ring_;
  int lane_;
  std::uint32_t addresses_[2];
  float scales_[2] = {1, 1};
};

}  // namespace quantal::cuda
