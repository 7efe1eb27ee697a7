// How products are cut into blocks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "quantal/cuda/device.hpp"
#include "quantal/cuda/gemv_kernel.cuh"
#include "quantal/cuda/pair_kernel.cuh"
#include "quantal/cuda/stream_kernel.cuh"
#include "quantal/cuda/tile_kernel.cuh"

namespace quantal::cuda {

/// A tile shape, and the number of blocks that share a tile along the columns of the matrix.
struct tile_plan {
  int groups, n, split;
};

namespace detail {

/// Cycles of a block per chunk of 64 columns, measured with q4_0 on an H200: decode and products overlap.
struct tile_cost {
  int groups, n, blocks, cycles;
};
inline constexpr tile_cost tile_costs[] = {{2, 16, 2, 900},  {2, 32, 2, 950},  {2, 64, 2, 1000},
                                           {2, 96, 2, 1100}, {2, 128, 1, 850}, {2, 256, 1, 1330}};

/// Calls fn with the tile shape of a plan; false if it is not compiled. 16-bit floats leave room for one
/// shape, float32 for none.
template <any_format F, class Fn>
bool with_tile_shape(const tile_plan& plan, Fn&& fn) {
  const auto is = [&]<class Shape>() {
    if (Shape::Groups != plan.groups || Shape::N != plan.n) return false;
    fn.template operator()<Shape>();
    return true;
  };
  if constexpr (block_format<F>)
    return is.template operator()<tile_shape<2, 16, 6, 1, 2>>() ||
           is.template operator()<tile_shape<2, 32, 6, 1, 2>>() ||
           is.template operator()<tile_shape<2, 64, 4, 1, 2>>() ||
           is.template operator()<tile_shape<2, 96, 3, 1, 2>>() ||
           is.template operator()<tile_shape<2, 128, 6, 2, 1>>() ||
           is.template operator()<tile_shape<2, 256, 4, 2, 1>>();
  else if constexpr (F::layout.bytes == 2)
    return is.template operator()<tile_shape<2, 128, 4, 2, 1>>();
  else
    return false;
}

/// The same for the stream shape for tiles of up to n vectors, n <= 16.
template <class Fn>
void with_stream_shape(std::int64_t n, Fn&& fn) {
  if (n <= 2)
    fn.template operator()<stream_shape<1, 1, 4, 2, 2, 5>>();
  else if (n <= 8)
    fn.template operator()<stream_shape<1, 1, 8, 1, 2, 4>>();
  else
    fn.template operator()<stream_shape<2, 2, 4, 1, 2, 2>>();
}
inline constexpr int max_stream_columns = 16;
/// Vectors per expert from which bf16 tiles are faster.
inline constexpr int max_routed_stream_columns = 4;

/// Tiles of n vectors that `experts` need for `pairs` vectors between them, each getting its share by chance:
/// the sum over k of the probability of more than k * n, the normal distribution taken as logistic.
inline std::int64_t expected_tiles(std::int64_t pairs, std::int64_t experts, std::int64_t n) noexcept {
  const double mean = static_cast<double>(pairs) / static_cast<double>(experts),
               width = 0.6 * std::sqrt(mean);
  double tiles = 0;
  for (std::int64_t k = 0; static_cast<double>(k * n) < mean + 8 * width; ++k)
    tiles += 1 / (1 + std::exp((static_cast<double>(k * n) + 0.5 - mean) / width));
  return static_cast<std::int64_t>(std::ceil(tiles * static_cast<double>(experts)));
}

/// Shared memory of one of two blocks on a multiprocessor, so much that no third one fits, whose rows would
/// be missed elsewhere; and what a stage and the ring are meant to take.
inline constexpr int gemv_most_shared = 113 * 1024, gemv_least_shared = 77 * 1024,
                     gemv_stage_bytes = 12 * 1024, gemv_ring_bytes = 72 * 1024;

/// Groups per warp and segments for so many groups of 256 columns: the cut that leaves the fewest lanes idle.
/// segments is 0 if there are too many columns.
inline gemv_plan cut_gemv(std::int64_t groups) noexcept {
  gemv_plan best{};
  double most = 0;
  for (const int g : {8, 4, 2, 1}) {
    const std::int64_t segments = (groups + g - 1) / g;
    const double used = static_cast<double>(groups) / static_cast<double>(segments * g);
    if (segments > max_gemv_warps || used < 1.01 * most) continue;
    most = used;
    best.groups = g, best.segments = static_cast<int>(segments);
  }
  return best;
}

/// The plan of gemv_kernel for `matrices` products with n vectors; stages is 0 if it does not fit.
inline gemv_plan plan_gemv(std::int64_t rows, std::int64_t cols, std::int64_t row_stride,
                           std::int64_t matrices, int n, const device_info& device) noexcept {
  if (cols % group_weights || row_stride > gemv_most_shared) return {};
  gemv_plan plan = cut_gemv(cols / group_weights);
  if (plan.segments == 0) return {};
  plan.teams = max_gemv_warps / plan.segments;
  plan.passes = 1;
  const std::int64_t pass_rows = plan.pass_rows(), pass_bytes = pass_rows * row_stride;
  const std::int64_t slots = 2 * device.multiprocessors / matrices;
  const std::int64_t blocks =
      std::clamp<std::int64_t>((rows + pass_rows - 1) / pass_rows, 1, std::max<std::int64_t>(1, slots));
  const std::int64_t each = (rows + blocks - 1) / blocks, passes = (each + pass_rows - 1) / pass_rows;
  plan.blocks = static_cast<int>(blocks);
  plan.passes = static_cast<int>(std::clamp<std::int64_t>(gemv_stage_bytes / pass_bytes, 1, passes));
  // Up to 15 bytes in front of the rows, and what decoders may read behind them.
  const std::int64_t bytes = (plan.passes * pass_bytes + 32 + 127) / 128 * 128;
  const std::int64_t steps = (passes + plan.passes - 1) / plan.passes;
  if (2 * bytes > gemv_most_shared) return {};
  plan.stage_bytes = static_cast<int>(bytes);
  plan.stages = static_cast<int>(std::min(std::clamp<std::int64_t>(gemv_ring_bytes / bytes, 2, 8), steps));
  if (gemv_shared(plan, n, static_cast<int>(each)).bytes > gemv_most_shared) plan.stages = 0;
  return plan;
}
/// Pairs of mul_mat_id up to which each reads its expert's matrix for itself; measured with 32 experts.
/// Formats with few bits are bound by decoding, and pairs that share an expert decode it twice.
template <block_format F>
inline constexpr int max_gemv_pairs = F::layout.bytes * 8 < 2 * F::layout.elements ? 16 : 32;

}  // namespace detail

namespace detail {
inline int forced_path = 0, forced_waves = -1;
}
/// The plan with the least estimated time for `column_tiles(N)` tiles of N vectors each.
template <any_format F, class ColumnTiles>
tile_plan plan_tiles(std::int64_t rows, std::int64_t cols, const device_info& device,
                     ColumnTiles&& column_tiles, int max_split = 8) noexcept {
  tile_plan best{};
  double least = 1e300;
  if (detail::forced_path >= 100) {
    const auto& s = detail::tile_costs[(detail::forced_path - 100) / 10];
    return {s.groups, s.n, detail::forced_path % 10};
  }
  const std::int64_t groups = (cols + group_weights - 1) / group_weights;
  for (const auto& s : detail::tile_costs) {
    if (!detail::with_tile_shape<F>({s.groups, s.n, 1}, [&]<class>() {})) continue;
    const std::int64_t tiles = (rows + 64 * s.groups - 1) / (64 * s.groups) * column_tiles(s.n);
    for (int split = 1; split <= max_split && split <= groups; ++split) {
      const std::int64_t slots = device.multiprocessors * s.blocks;
      const double waves = static_cast<double>((tiles * split + slots - 1) / slots);
      const double chunks = 4.0 * static_cast<double>((groups + split - 1) / split);
      const double time = waves * (chunks * s.cycles + 5000) + (split > 1 ? 5000 + 40 * s.n : 0);
      if (time < least) {
        least = time;
        best = {s.groups, s.n, split};
      }
    }
  }
  return best;
}

namespace detail {

/// Cycles of pair_kernel: of a group of 256 columns, of a tile's results, of a share's besides.
struct pair_cost {
  int n;
  double group, tile, share;
};
inline constexpr pair_cost pair_costs[] = {{256, 4700, 4000, 10000}, {128, 2700, 2500, 6000}};

/// What a plan of pair_kernel takes, in cycles.
inline double pair_cycles(const pair_cost& cost, const pair_plan& plan, int tiles) noexcept {
  const int waves = std::min(plan.waves, (tiles + plan.clusters - 1) / plan.clusters);
  const double whole = waves * (plan.groups * cost.group + cost.tile);
  const int left = plan.share(plan.clusters, tiles);
  if (left == 0) return whole;
  const int each = (left + plan.clusters - 1) / plan.clusters;
  return whole + each * cost.group + cost.tile + cost.share;
}

}  // namespace detail

/// The plan of pair_kernel with tiles of cost.n vectors that takes the least time, and that time.
inline pair_plan plan_pairs(const detail::pair_cost& cost, std::int64_t rows, std::int64_t cols, std::int64_t n,
                            const device_info& device) noexcept {
  const int tiles = static_cast<int>((rows + 127) / 128 * ((n + 2 * cost.n - 1) / (2 * cost.n)));
  const int clusters = std::max(1, device.multiprocessors / 2);
  const int groups = static_cast<int>((cols + group_weights - 1) / group_weights);
  pair_plan best{std::min(clusters, tiles), (tiles + clusters - 1) / clusters, groups};
  const int full = tiles / clusters;
  for (int waves = std::max(0, full - 1); waves <= full; ++waves) {
    const pair_plan plan{clusters, waves, groups};
    if (detail::forced_waves >= 0 ? full - waves == detail::forced_waves
        : detail::pair_cycles(cost, plan, tiles) < detail::pair_cycles(cost, best, tiles)) best = plan;
  }
  return best;
}

}  // namespace quantal::cuda
