// Tile shapes per arch, apart from the kernels that use them.
#pragma once

#include "quantal/simd/arch.hpp"

namespace quantal::kernel {

/// Rows of a panel: one 512-bit, two 256-bit or four 128-bit registers of float32.
inline constexpr int panel_rows = 16;
/// Rows of one parallel task. Fixed, so that results never depend on the number of workers.
inline constexpr int task_rows = 32;

struct cpu_tile {
  int columns;        ///< columns of a register tile: accumulators = columns * panel_rows / lanes
  int panel_columns;  ///< fewest columns for which decoding into panels beats row-by-row dot products
};

/// Accumulators, one row register set and one broadcast must fit the register file (32 x 512, 16 x 256, 32 x 128).
template <class A>
constexpr cpu_tile tile_for() {
  constexpr int lanes = static_cast<int>(xsimd::batch<float, A>::size);
  if constexpr (lanes == 16) return {.columns = 12, .panel_columns = 6};
  else if constexpr (lanes == 8) return {.columns = 5, .panel_columns = 6};
  else return {.columns = 4, .panel_columns = 6};
}

}  // namespace quantal::kernel
