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

/// Cycles of a block per chunk of 64 columns: decode and products overlap.
struct tile_cost {
  int groups, n, blocks, cycles;
};
inline constexpr int tile_shapes = 6;
struct tile_model {
  tile_cost costs[tile_shapes];
  double alone;               ///< share of it where a multiprocessor has one block of two
  double tile;                ///< a tile besides: what comes before the first product and after the last
  double split, split_value;  ///< the sum of the parts of a tile, and of each of its vectors
};
/// Where many tiles follow each other; measured on an H100 and an H200.
inline constexpr tile_model many_tiles = {{{2, 16, 2, 900},
                                           {2, 32, 2, 950},
                                           {2, 64, 2, 1000},
                                           {2, 96, 2, 1100},
                                           {2, 128, 1, 850},
                                           {2, 256, 1, 1330}},
                                          1,
                                          5000,
                                          5000,
                                          40};
/// For 129 to 256 vectors, where the tiles are few: fitted to the times of every shape in up to six parts for
/// four matrices and 32 to 256 vectors on an H100 (q4_K; iq2_xxs).
inline constexpr tile_model few_tiles = {{{2, 16, 2, 792},
                                          {2, 32, 2, 898},
                                          {2, 64, 2, 1119},
                                          {2, 96, 2, 1366},
                                          {2, 128, 1, 774},
                                          {2, 256, 1, 868}},
                                         .74,
                                         5500,
                                         4000,
                                         30};
inline constexpr tile_model few_slow_tiles = {{{2, 16, 2, 1332},
                                               {2, 32, 2, 1431},
                                               {2, 64, 2, 1670},
                                               {2, 96, 2, 2008},
                                               {2, 128, 1, 1110},
                                               {2, 256, 1, 1198}},
                                              .74,
                                              5500,
                                              4000,
                                              30};

/// Parts of a tile's columns that were measured; more lose what they win to adding them.
inline constexpr int max_few_split = 4;

/// Cycles of `tiles` tiles of a shape, each in `split` parts.
inline double tile_cycles(const tile_model& model, const tile_cost& cost, std::int64_t tiles,
                          std::int64_t groups, int split, int multiprocessors) noexcept {
  const std::int64_t blocks = tiles * split, slots = std::int64_t{cost.blocks} * std::max(1, multiprocessors);
  const double chunks = 4.0 * static_cast<double>((groups + split - 1) / split);
  const double full = static_cast<double>(blocks / slots);
  const std::int64_t rest = blocks % slots;
  double time = full * (chunks * cost.cycles + model.tile);
  if (rest > 0)
    time +=
        chunks * cost.cycles * (rest <= multiprocessors && cost.blocks > 1 ? model.alone : 1) + model.tile;
  return split > 1 ? time + model.split + model.split_value * cost.n : time;
}

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

/// Shared memory of a block that keeps a third one off its multiprocessor while others have none. What a stage
/// is meant to take.
inline constexpr int gemv_least_shared = 77 * 1024, gemv_stage_bytes = 12 * 1024;

/// Groups per warp, segments and teams for so many groups of 256 columns: the cut that leaves the fewest lanes
/// idle. segments is 0 if there are too many columns.
inline gemv_plan cut_gemv(std::int64_t groups, int warps) noexcept {
  gemv_plan best{};
  double most = 0;
  for (int log = 3; log >= 0; --log) {
    const int g = 1 << log;
    const std::int64_t segments = (groups + g - 1) / g;
    if (segments > warps) continue;
    const std::int64_t teams = warps / segments;
    const double busy = static_cast<double>(teams * groups) / g;
    if (busy < 1.01 * most) continue;
    most = busy;
    best.log_groups = log, best.segments = static_cast<int>(segments), best.teams = static_cast<int>(teams);
  }
  return best;
}

/// What runs of blocks have to do: how many of them, and vectors that each rounds and products of each row.
struct gemv_load {
  std::int64_t runs;
  int vectors, products;
};
/// The plan of gemv_kernel; stages is 0 if it does not fit.
inline gemv_plan plan_gemv(const gemv_limits& limits, std::int64_t rows, std::int64_t cols,
                           std::int64_t row_stride, const gemv_load& load,
                           const device_info& device) noexcept {
  if (cols <= 0 || cols % group_weights || row_stride <= 0 || row_stride > limits.shared) return {};
  gemv_plan plan = cut_gemv(cols / group_weights, limits.warps);
  plan.table_bytes = limits.table_bytes;
  const std::int64_t slots = std::max<std::int64_t>(1, limits.blocks * device.multiprocessors / load.runs);
  for (; plan.teams > 0; --plan.teams) {
    plan.passes = 1;
    const std::int64_t pass_rows = plan.pass_rows(), pass_bytes = pass_rows * row_stride;
    const std::int64_t blocks = std::clamp<std::int64_t>((rows + pass_rows - 1) / pass_rows, 1, slots);
    const std::int64_t each = (rows + blocks - 1) / blocks, passes = (each + pass_rows - 1) / pass_rows;
    plan.blocks = static_cast<int>(blocks);
    plan.passes = static_cast<int>(std::clamp<std::int64_t>(gemv_stage_bytes / pass_bytes, 1, passes));
    // Up to 15 bytes in front of the rows, and what decoders may read behind them.
    const std::int64_t bytes = (plan.passes * pass_bytes + 32 + 127) / 128 * 128;
    if (2 * bytes > limits.shared) continue;
    const std::int64_t steps = (passes + plan.passes - 1) / plan.passes;
    plan.stage_bytes = static_cast<int>(bytes);
    plan.stages = static_cast<int>(std::min(std::clamp<std::int64_t>(limits.ring / bytes, 2, 8), steps));
    const auto fits = [&] {
      return gemv_shared(plan, load.vectors, load.products, static_cast<int>(each)).bytes <= limits.shared;
    };
    while (!fits() && plan.stages > 2) --plan.stages;
    if (fits()) return plan;
  }
  return {};
}
/// Pairs of mul_mat_id up to which each reads its expert's matrix for itself; measured with 32 experts.
/// Formats with few bits are bound by decoding, and pairs that share an expert decode it twice.
template <block_format F>
inline constexpr int max_gemv_pairs = F::layout.bytes * 8 < 2 * F::layout.elements ? 16 : 32;

}  // namespace detail

/// The plan with the least estimated time for `column_tiles(N)` tiles of N vectors each.
template <any_format F, class ColumnTiles>
tile_plan plan_tiles(const detail::tile_model& model, std::int64_t rows, std::int64_t cols,
                     const device_info& device, int max_split, ColumnTiles&& column_tiles) noexcept {
  tile_plan best{};
  double least = 1e300;
  const std::int64_t groups = (cols + group_weights - 1) / group_weights;
  for (const auto& s : model.costs) {
    if (!detail::with_tile_shape<F>({s.groups, s.n, 1}, [&]<class>() {})) continue;
    const std::int64_t tiles = (rows + 64 * s.groups - 1) / (64 * s.groups) * column_tiles(s.n);
    for (int split = 1; split <= max_split && split <= groups; ++split) {
      const double time = detail::tile_cycles(model, s, tiles, groups, split, device.multiprocessors);
      if (time < least) {
        least = time;
        best = {s.groups, s.n, split};
      }
    }
  }
  return best;
}

/// Whether a format's weights are decoded in few instructions.
template <any_format F>
constexpr bool decodes_quickly() noexcept {
  if constexpr (block_format<F>)
    return fragment_reader<F>::quick;
  else
    return true;
}

/// The plan of tile_kernel for n vectors.
template <any_format F>
tile_plan plan_dense_tiles(std::int64_t rows, std::int64_t cols, std::int64_t n,
                           const device_info& device) noexcept {
  const auto column_tiles = [&](std::int64_t tile) { return (n + tile - 1) / tile; };
  // With few rows the parts are many, and up to 128 vectors the first model is nearer: its plans were faster for
  // six of seven matrices.
  if (n > 256 || n <= 128 || (rows + 127) / 128 * detail::max_few_split <= device.multiprocessors)
    return plan_tiles<F>(detail::many_tiles, rows, cols, device, 8, column_tiles);
  return plan_tiles<F>(decodes_quickly<F>() ? detail::few_tiles : detail::few_slow_tiles, rows, cols, device,
                       detail::max_few_split, column_tiles);
}

namespace detail {

/// Cycles of pair_kernel: of a group of 256 columns, where decoding is quick and where it is slow, of a tile's
/// results, and of each part of a tile that is shared. Measured on an H100 with q4_K, iq2_xxs and iq4_k.
struct pair_cost {
  int n;
  double group, slow_group, tile, part;
};
inline constexpr pair_cost pair_costs[] = {{256, 5950, 6650, 4000, 7000}, {128, 4500, 5000, 3000, 3500}};
/// Of a chunk of 64 columns of tile_kernel with 256 vectors, and of its tile besides, in the same runs.
inline constexpr double wide_chunk = 1370, wide_slow_chunk = 1640, wide_tile = 12000;

/// What a plan of pair_kernel takes, in cycles.
inline double pair_cycles(const pair_cost& cost, bool quick, std::int64_t n, const pair_plan& plan,
                          int tiles) noexcept {
  // From so many vectors on they no longer stay in the cache.
  const double group = (quick ? cost.group : cost.slow_group) * (n >= 1024 ? 1.125 : 1);
  const int waves = std::min(plan.waves, (tiles + plan.clusters - 1) / plan.clusters);
  const double whole = waves * (plan.groups * group + cost.tile);
  const int left = plan.share(plan.clusters, tiles);
  if (left == 0) return whole;
  const int each = (left + plan.clusters - 1) / plan.clusters;
  const double parts = 1 + static_cast<double>(plan.clusters) / (tiles - plan.whole());
  return whole + each * group + cost.tile + parts * cost.part;
}

/// The same of a plan of tile_kernel with tiles of 256 vectors.
inline double wide_cycles(bool quick, const tile_plan& plan, std::int64_t rows, std::int64_t cols,
                          std::int64_t n, const device_info& device) noexcept {
  const tile_model model{{}, 1, wide_tile, 5000, 40};
  const tile_cost cost{2, 256, 1, static_cast<int>(quick ? wide_chunk : wide_slow_chunk)};
  return tile_cycles(model, cost, (rows + 127) / 128 * ((n + 255) / 256),
                     (cols + group_weights - 1) / group_weights, plan.split, device.multiprocessors);
}

}  // namespace detail

/// A plan of pair_kernel and its estimated time.
struct timed_pair_plan {
  pair_plan plan;
  double cycles;
};

/// The plan of pair_kernel with tiles of cost.n vectors that takes the least time.
inline timed_pair_plan plan_pairs(const detail::pair_cost& cost, bool quick, std::int64_t rows,
                                  std::int64_t cols, std::int64_t n, const device_info& device) noexcept {
  const auto tiles = static_cast<int>((rows + 127) / 128 * ((n + 2 * cost.n - 1) / (2 * cost.n)));
  const int clusters = std::max(1, device.multiprocessors / 2);
  const int groups = static_cast<int>((cols + group_weights - 1) / group_weights);
  timed_pair_plan best{{std::min(clusters, tiles), (tiles + clusters - 1) / clusters, groups}, 0};
  best.cycles = detail::pair_cycles(cost, quick, n, best.plan, tiles);
  const int full = tiles / clusters;
  for (int waves = std::max(0, full - 1); waves <= full; ++waves) {
    const pair_plan plan{clusters, waves, groups};
    const double cycles = detail::pair_cycles(cost, quick, n, plan, tiles);
    if (cycles < best.cycles) best = {plan, cycles};
  }
  return best;
}

}  // namespace quantal::cuda
