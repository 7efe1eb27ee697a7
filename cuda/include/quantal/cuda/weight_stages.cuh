// A warp's sixteen weight rows on their way from global to shared memory.
//
// Every warp copies what it decodes itself, some groups of 256 weights at a time, into a ring of its own: no
// barrier is shared with other warps, and the bytes arrive as they are in the file. Copies (cp.async) move
// aligned units of 16 bytes, so a row's bytes keep their position within 16 (a "skew" that the decoder
// undoes). Eight lanes copy 128 bytes of a row, four rows at a time.
#pragma once

#include "quantal/cuda/fragment_codes.hpp"
#include "quantal/cuda/ptx.cuh"

namespace quantal::cuda {

/// Align: what is known of the address of every group of a row (up to 16). Groups: copied at a time.
template <any_format F, int Align, int Groups, int Stages>
struct weight_stages {
  using bytes_type = group_bytes<Align>;
  static constexpr int rows = 16, groups = Groups, stages = Stages;
  static constexpr int span = Groups * group_size<F> + (Align < 16 ? 16 - Align : 0);  ///< bytes with skew
  static constexpr int units = (span + 15) / 16;
  /// Readers may touch seven bytes behind a group; an odd number of units spreads rows over the banks.
  static constexpr int pitch = 16 * ((16 * units - span < 7 ? units + 1 : units) | 1);
  static constexpr int stage_bytes = rows * pitch;
  static constexpr int bytes = Stages * stage_bytes;

  const std::uint8_t* source[4];  ///< first group of rows lane / 8, + 4, + 8, + 12
  const std::uint8_t* end;        ///< of the matrix: nothing is read from there on
  int row_bytes;                  ///< bytes behind the row metadata
  int whole;                      ///< groups from which on a copy may reach behind the row or the matrix
  std::uint8_t* ring;
  int lane;

  weight_stages() = default;

  /// `row_of(i)` is the address of row i of the sixteen; `end_` that of the end of the matrix.
  template <class RowOf>
  __device__ weight_stages(std::uint8_t* ring_, int lane_, std::int64_t cols, const std::byte* end_,
                           RowOf&& row_of) noexcept
      : end(reinterpret_cast<const std::uint8_t*>(end_)),
        row_bytes(static_cast<int>(cols / F::layout.elements) * F::layout.bytes),
        ring(ring_),
        lane(lane_) {
#pragma unroll
    for (int i = 0; i < 4; ++i)
      source[i] = reinterpret_cast<const std::uint8_t*>(row_of(lane / 8 + 4 * i)) + F::layout.row_meta;
    whole = row_bytes;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      whole = static_cast<int>(min(static_cast<std::int64_t>(whole), end - source[i] - behind));
    whole = whole < copied ? 0 : (whole - copied) / group_size<F> + 1;
  }

  /// Starts the copy of groups g .. g + Groups - 1 into a stage; what lies behind the row becomes zeros,
  /// which decode to finite weights. The caller commits.
  __device__ void start(int g, int stage) noexcept {
#pragma unroll
    for (int i = 0; i < 4; ++i) copy_group(i, g, stage_of(stage));
  }
  /// The same where few instructions count: whole rows in one piece, the ends of rows in a loop that is not
  /// unrolled. 10 to 25 % of products with 32 to 64 vectors; with 3 and 4 vectors (stream_kernel) start() is
  /// faster by as much.
  __device__ void start_compact(int g, int stage) noexcept {
    const std::uint32_t to = stage_of(stage);
    if (g < whole) {
#pragma unroll
      for (int i = 0; i < 4; ++i) copy_row(to + 4 * i * pitch, unit_of(source[i], g));
    } else {
#pragma unroll 1
      for (int i = 0; i < 4; ++i) copy_group(i, g, to);
    }
  }

  /// The bytes of group `j` of row i in a stage; `address` is that of the stage's first group in global
  /// memory.
  __device__ bytes_type row(int stage, int i, int j, std::uint32_t address) const noexcept {
    const int skew = Align < 16 ? static_cast<int>(address & 15) : 0;
    if constexpr (Align >= 4)
      return {reinterpret_cast<const std::uint32_t*>(ring + stage * stage_bytes + i * pitch +
                                                     j * group_size<F> + skew),
              0};
    const int at = stage * stage_bytes + i * pitch + j * group_size<F> + skew;
    return {reinterpret_cast<const std::uint32_t*>(ring) + at / 4, at % 4};
  }

 private:
  /// Bytes of a copy, and what its units may reach behind them: nothing, or up to 30 bytes.
  static constexpr int copied = Groups * group_size<F>, behind = units * 16 == copied ? 0 : 30;

  __device__ static int skew_of(const std::uint8_t* from) noexcept {
    return Align < 16 ? static_cast<int>(reinterpret_cast<std::uintptr_t>(from) & 15) : 0;
  }
  /// The lane's first place in a stage, and its first unit of a row from group g on.
  __device__ std::uint32_t stage_of(int stage) const noexcept {
    return ptx::shared_address(ring) + stage * stage_bytes + lane / 8 * pitch + 16 * (lane % 8);
  }
  __device__ const std::uint8_t* unit_of(const std::uint8_t* row, int g) const noexcept {
    const std::uint8_t* from = row + g * group_size<F>;
    return from - skew_of(from) + 16 * (lane % 8);
  }
  /// Row lane / 8 + 4 * i.
  __device__ void copy_group(int i, int g, std::uint32_t to) const noexcept {
    const std::uint8_t* row = i == 0 ? source[0] : i == 1 ? source[1] : i == 2 ? source[2] : source[3];
    const std::uint8_t* from = row + g * group_size<F>;
    const bool complete = g * group_size<F> + copied <= row_bytes;
    if (complete && from + copied + behind <= end)
      copy_row(to + 4 * i * pitch, unit_of(row, g));
    else
      copy_end(to + 4 * i * pitch, unit_of(row, g),
               row_bytes - g * group_size<F> + skew_of(from) - 16 * (lane % 8));
  }
  __device__ void copy_row(std::uint32_t to, const std::uint8_t* from) const noexcept {
#pragma unroll
    for (int u = 0; u < units; u += 8)
      if (u + 8 <= units || lane % 8 < units - u) ptx::copy16(to + 16 * u, from + 16 * u);
  }
  /// `left` bytes of the row remain. A last unit that is not whole is copied byte by byte.
  __device__ void copy_end(std::uint32_t to, const std::uint8_t* from, int left) const noexcept {
#pragma unroll 1
    for (int u = lane % 8; 16 * u < pitch; u += 8, to += 128, from += 128, left -= 128) {
      if (left >= 16 || left <= 0) {
        ptx::copy16(to, left > 0 ? from : source[0], left > 0 ? 16 : 0);
      } else {
        for (int i = 0; i < 16; ++i) ptx::store_byte(to + i, i < left ? from[i] : 0);
      }
    }
  }
};

}  // namespace quantal::cuda
