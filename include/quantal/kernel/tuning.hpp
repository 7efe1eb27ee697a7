// Tile shapes per arch, apart from the kernels that use them.
#pragma once

#include "quantal/simd/arch.hpp"

namespace quantal::kernel {

/// Rows of a panel: one 512-bit, two 256-bit or four 128-bit registers of 32-bit values.
inline constexpr int panel_rows = 16;
/// Rows of one parallel task. Fixed, so that results never depend on the number of workers.
inline constexpr int task_rows = 64;
/// Panels that the columns of a q8 product stream by at a time; two are 12 KiB of the first-level cache.
inline constexpr int coded_panels_at_once = 2;
/// The same for float panels of 16 KiB each.
inline constexpr int float_panels_at_once = 2;

struct cpu_tile {
  int float_columns;        ///< columns of the float register tile
  int coded_panels;         ///< panels of the integer register tile
  int coded_columns;        ///< its columns
  int panel_columns;        ///< fewest columns for which decoding into panels beats row-by-row dot products
  int float_panel_columns;  ///< the same of the float tile
};

/// Accumulators, the rows' registers and one broadcast must fit the register file (32 x 512, 16 x 256, 32 x
/// 128 bit). The integer tile also has float sums, which may spill: they are touched once per scale.
template <class A>
constexpr cpu_tile tile_for() {
  constexpr int lanes = static_cast<int>(xsimd::batch<float, A>::size);
  if constexpr (lanes == 16)
    return {.float_columns = 12,
            .coded_panels = 2,
            .coded_columns = 6,
            .panel_columns = 9,
            .float_panel_columns = 6};
  else if constexpr (lanes == 8)
    return {.float_columns = 6,
            .coded_panels = 1,
            .coded_columns = 4,
            .panel_columns = 6,
            .float_panel_columns = 6};
  else
    return {.float_columns = 6,
            .coded_panels = 1,
            .coded_columns = 4,
            .panel_columns = 6,
            .float_panel_columns = 6};
}

}  // namespace quantal::kernel
