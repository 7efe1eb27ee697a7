// mul_mat on the device: out[t * out_stride + r] = sum_c W[r][c] * activations[t * activation_stride + c].
//
// Weights are GGUF bytes in device memory. Calls only launch kernels on the caller's stream: no allocation,
// no synchronisation, no global state; they may be captured in a graph. Results do not depend on timing.
#pragma once

#include <algorithm>
#include <cstddef>

#include "quantal/cuda/status.cuh"
#include "quantal/cuda/stream_kernel.cuh"
#include "quantal/cuda/tile_kernel.cuh"
#include "quantal/kernel/args.hpp"

namespace quantal::cuda {

/// How a product is cut: a tile shape, and the number of blocks that share a tile along the columns of the
/// matrix.
struct tile_plan {
  int groups, n, split;
};

namespace detail {

/// Calls fn with the tile shape of a plan; false if it is not compiled.
template <class Fn>
bool with_tile_shape(const tile_plan& plan, Fn&& fn) {
  const auto is = [&]<class Shape>() {
    if (Shape::Groups != plan.groups || Shape::N != plan.n) return false;
    fn.template operator()<Shape>();
    return true;
  };
  return is.template operator()<tile_shape<4, 8, 8, 1>>() ||
         is.template operator()<tile_shape<4, 16, 8, 1>>() ||
         is.template operator()<tile_shape<4, 32, 6, 1>>() ||
         is.template operator()<tile_shape<3, 64, 6, 1>>() ||
         is.template operator()<tile_shape<3, 128, 5, 2>>() ||
         is.template operator()<tile_shape<2, 128, 6, 2>>() ||
         is.template operator()<tile_shape<2, 256, 4, 2>>();
}

template <class Shape>
dim3 tile_grid(std::int64_t rows, std::int64_t n, int split) noexcept {
  const std::int64_t row_tiles = (rows + Shape::rows - 1) / Shape::rows;
  return dim3(static_cast<unsigned>((row_tiles + Shape::Cluster - 1) / Shape::Cluster * Shape::Cluster),
              static_cast<unsigned>((n + Shape::N - 1) / Shape::N), static_cast<unsigned>(split));
}

/// A launch in clusters along x; its prologue may overlap the kernel in front of it if it is `dependent` on
/// that.
template <class... Params, class... Args>
cudaError_t launch(void (*kernel)(Params...), dim3 grid, int threads, int shared, int cluster, bool dependent,
                   cudaStream_t stream, Args&&... args) noexcept {
  if (const auto e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared);
      e != cudaSuccess)
    return e;
  cudaLaunchAttribute attributes[2] = {};
  attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attributes[0].val.programmaticStreamSerializationAllowed = dependent;
  attributes[1].id = cudaLaunchAttributeClusterDimension;
  attributes[1].val.clusterDim.x = static_cast<unsigned>(cluster);
  attributes[1].val.clusterDim.y = attributes[1].val.clusterDim.z = 1;
  cudaLaunchConfig_t config = {};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = static_cast<std::size_t>(shared);
  config.stream = stream;
  config.attrs = attributes;
  config.numAttrs = cluster > 1 ? 2 : 1;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Args&&>(args)...);
}

}  // namespace detail

/// The plan with the least estimated time on `multiprocessors`.
inline tile_plan plan_tiles(std::int64_t rows, std::int64_t cols, std::int64_t n,
                            int multiprocessors) noexcept {
  constexpr tile_plan shapes[] = {{4, 8, 1},   {4, 16, 1},  {4, 32, 1}, {3, 64, 1},
                                  {3, 128, 1}, {2, 128, 1}, {2, 256, 1}};
  tile_plan best = shapes[0];
  double least = 1e300;
  for (const tile_plan& s : shapes) {
    const std::int64_t tiles = (rows + 64 * s.groups - 1) / (64 * s.groups) * ((n + s.n - 1) / s.n);
    const std::int64_t groups = (cols + group_weights - 1) / group_weights;
    for (int split = 1; split <= 8 && split <= groups; ++split) {
      // Cycles of a block per chunk of 64: its products, or the decode, whichever takes longer.
      const double chunk = s.groups * std::max(2.0 * s.n, 200.0);
      const double waves = static_cast<double>((tiles * split + multiprocessors - 1) / multiprocessors);
      const double chunks = 4.0 * static_cast<double>((groups + split - 1) / split);
      const double time = waves * (chunks * chunk + 3000 + (split > 1 ? 2000 + 8 * s.n : 0));
      if (time < least) {
        least = time;
        best = {s.groups, s.n, split};
      }
    }
  }
  return best;
}

/// Where the parts of the workspace lie.
struct tile_workspace {
  std::size_t prepared, partial, finished, total;
  int counters;

  tile_workspace(std::int64_t rows, std::int64_t cols, std::int64_t n, const tile_plan& plan) noexcept {
    const auto round = [](std::int64_t bytes) { return static_cast<std::size_t>((bytes + 255) / 256 * 256); };
    std::int64_t tiles = 0, tile_floats = 0;
    detail::with_tile_shape(plan, [&]<class Shape>() {
      const dim3 grid = detail::tile_grid<Shape>(rows, n, plan.split);
      tiles = static_cast<std::int64_t>(grid.x) * grid.y;
      tile_floats = Shape::rows * Shape::N;
    });
    counters = plan.split > 1 ? static_cast<int>(tiles) : 0;
    prepared = 0;
    partial = round(prepared_bytes(cols, (n + 7) / 8));
    finished = partial + (plan.split > 1 ? round(tiles * plan.split * tile_floats * 4) : 0);
    total = finished + round(4 * counters);
  }
};

template <block_format F>
status launch_tiles(const mul_mat_args& a, const tile_plan& plan, void* workspace,
                    cudaStream_t stream) noexcept {
  const std::int64_t groups = (a.n + 7) / 8;
  auto* memory = static_cast<std::uint8_t*>(workspace);
  const tile_workspace layout(a.rows, a.cols, a.n, plan);
  const prepare_args prepare{a.activations,
                             a.n,
                             a.activation_stride,
                             a.cols,
                             groups,
                             memory + layout.prepared,
                             reinterpret_cast<std::uint32_t*>(memory + layout.finished),
                             layout.counters};
  const std::int64_t warps = 2 * prepared_chunks(a.cols) * groups;
  const std::int64_t blocks = std::max<std::int64_t>((warps + 7) / 8, (layout.counters + 255) / 256);
  prepare_bf16<octets<F>::order><<<static_cast<unsigned>(blocks), 256, 0, stream>>>(prepare);
  const tile_args tiles{a.weights,
                        a.weight_row_stride,
                        static_cast<int>(a.rows),
                        static_cast<int>(a.cols),
                        prepare.out,
                        groups,
                        static_cast<int>(a.n),
                        a.out,
                        a.out_stride,
                        plan.split,
                        reinterpret_cast<float*>(memory + layout.partial),
                        prepare.finished};
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(a.weights) | static_cast<std::uintptr_t>(a.weight_row_stride)) %
          group_alignment<F>() ==
      0;
  cudaError_t error = cudaErrorInvalidValue;
  detail::with_tile_shape(plan, [&]<class Shape>() {
    const auto go = [&]<int Align>() {
      error = detail::launch(&tile_kernel<F, Align, Shape>, detail::tile_grid<Shape>(a.rows, a.n, plan.split),
                             Shape::threads, tile_shared_bytes<F, Align, Shape>(), Shape::Cluster, true,
                             stream, tiles);
    };
    if (aligned)
      go.template operator()<group_alignment<F>()>();
    else if constexpr (natural_alignment<F>() != group_alignment<F>())
      go.template operator()<natural_alignment<F>()>();
  });
  return error == cudaSuccess ? status::ok : status::device_error;
}

template <block_format F, class Shape>
status launch_stream(const mul_mat_args& a, void* workspace, cudaStream_t stream) noexcept {
  const q8_prepare_args prepare{a.activations, a.n, a.activation_stride, a.cols,
                                static_cast<std::uint8_t*>(workspace)};
  if (!Shape::Rounds) {
    const std::int64_t warps = (a.cols + group_weights - 1) / group_weights * a.n;
    prepare_q8<F><<<static_cast<unsigned>((warps + 7) / 8), 256, 0, stream>>>(prepare);
  }
  const stream_args args{a.weights,   a.weight_row_stride, static_cast<int>(a.rows), static_cast<int>(a.cols),
                         prepare.out, a.activations,       a.activation_stride,      static_cast<int>(a.n),
                         a.out,       a.out_stride};
  const dim3 grid(static_cast<unsigned>((a.rows + Shape::rows - 1) / Shape::rows),
                  static_cast<unsigned>((a.n + Shape::n - 1) / Shape::n));
  const bool aligned =
      (reinterpret_cast<std::uintptr_t>(a.weights) | static_cast<std::uintptr_t>(a.weight_row_stride)) %
          group_alignment<F>() ==
      0;
  cudaError_t error = cudaErrorInvalidValue;
  const auto go = [&]<int Align>() {
    error = detail::launch(&stream_kernel<F, Align, Shape>, grid, Shape::threads,
                           stream_shared_bytes<F, Align, Shape>(static_cast<int>(a.n)), 1, !Shape::Rounds,
                           stream, args);
  };
  if (aligned)
    go.template operator()<group_alignment<F>()>();
  else if constexpr (natural_alignment<F>() != group_alignment<F>())
    go.template operator()<natural_alignment<F>()>();
  return error == cudaSuccess ? status::ok : status::device_error;
}

}  // namespace quantal::cuda
