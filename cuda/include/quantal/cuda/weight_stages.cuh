// A warp's sixteen weight rows on their way from global to shared memory.
//
// Every warp copies what it decodes itself, some groups of 256 weights at a time, into a ring of its own: no
// barrier is shared with other warps, and the bytes arrive as they are in the file. Copies are bulk copies of
// the copy engine, which move aligned units of 16 bytes, so a row's bytes keep their position within 16 (a
// "skew" that the decoder undoes).
#pragma once

#include "quantal/cuda/octets.hpp"
#include "quantal/cuda/ptx.cuh"

namespace quantal::cuda {

/// Align: what is known of the address of every group of a row (up to 16). Groups: copied at a time.
template <any_format F, int Align, int Groups, int Stages>
struct weight_stages {
  static constexpr int rows = 16, groups = Groups, stages = Stages;
  static constexpr int span = Groups * group_size<F> + (Align < 16 ? 16 - Align : 0);  ///< bytes with skew
  static constexpr int units = (span + 15) / 16;
  /// Readers may touch seven bytes behind a group; an odd number of units spreads rows over the banks.
  static constexpr int pitch = 16 * ((16 * units - span < 7 ? units + 1 : units) | 1);
  static constexpr int stage_bytes = rows * pitch;
  static constexpr int bytes = Stages * stage_bytes;

  const std::uint8_t* source = nullptr;  ///< first group of row lane % 16
  const std::uint8_t* end = nullptr;     ///< of the matrix: nothing is read from there on
  int row_bytes = 0;                     ///< bytes behind the row metadata
  std::uint8_t* ring = nullptr;
  std::uint32_t barriers = 0;  ///< one per stage
  int lane = 0;

  weight_stages() = default;

  /// `row_of(i)` is the address of row i of the sixteen.
  template <class RowOf>
  __device__ weight_stages(std::uint8_t* ring_, std::uint32_t barriers_, int lane_, std::int64_t cols,
                           const std::byte* end_, RowOf&& row_of) noexcept
      : source(reinterpret_cast<const std::uint8_t*>(row_of(lane_ % 16)) + F::layout.row_meta),
        end(reinterpret_cast<const std::uint8_t*>(end_)),
        row_bytes(static_cast<int>(cols / F::layout.elements) * F::layout.bytes),
        ring(ring_),
        barriers(barriers_),
        lane(lane_) {
    if (lane < Stages) ptx::init_barrier(barriers + 8 * lane, rows);
    ptx::fence_barrier_init();
    __syncwarp();
  }

  /// Starts the copy of groups g .. g + Groups - 1 into a stage; g lies in the row.
  __device__ void start(int g, int stage) noexcept {
    if (lane >= rows) return;
    const std::uint8_t* from = source + static_cast<std::int64_t>(g) * group_size<F>;
    const int skew = Align < 16 ? static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 15) : 0;
    const int wanted = min(Groups * group_size<F>, row_bytes - g * group_size<F>) + skew;
    from -= skew;
    std::uint8_t* to = ring + stage * stage_bytes + lane * pitch;
    int size = (wanted + 15) & ~15;
    if (from + size > end) {
      // The last unit of the matrix is not whole.
      size = wanted & ~15;
      for (int i = size; i < wanted; ++i) to[i] = from[i];
    }
    ptx::arrive_expecting(barriers + 8 * stage, size);
    if (size > 0) ptx::bulk_copy(ptx::shared_address(to), from, size, barriers + 8 * stage);
  }

  /// Waits for the copy; what lies behind the end of the rows becomes zeros, which decode to finite weights.
  __device__ void wait(int g, int stage, int phase) const noexcept {
    ptx::wait_barrier(barriers + 8 * stage, phase);
    if ((g + Groups) * group_size < F >> row_bytes) {
      if (lane < rows) {
        const std::uintptr_t from =
            reinterpret_cast<std::uintptr_t>(source) + static_cast<std::int64_t>(g) * group_size<F>;
        std::uint8_t* to = ring + stage * stage_bytes + lane * pitch;
        for (int i = row_bytes - g * group_size<F> + static_cast<int>(Align < 16 ? from & 15 : 0); i < pitch;
             ++i)
          to[i] = 0;
      }
      __syncwarp();
    }
  }

  /// The bytes of group `j` of row i in a stage; `address` is that of the stage's first group in global
  /// memory.
  __device__ group_bytes<Align> row(int stage, int i, int j, std::uint32_t address) const noexcept {
    const int skew = Align < 16 ? static_cast<int>(address & 15) : 0;
    if constexpr (Align >= 4)
      return {reinterpret_cast<const std::uint32_t*>(ring + stage * stage_bytes + i * pitch +
                                                     j * group_size<F> + skew),
              0};
    const int at = stage * stage_bytes + i * pitch + j * group_size<F> + skew;
    return {reinterpret_cast<const std::uint32_t*>(ring) + at / 4, at % 4};
  }
};

}  // namespace quantal::cuda
