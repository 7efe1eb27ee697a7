// mul_mat and mul_mat_id on the device; shapes and strides as in quantal/kernel/args.hpp, all pointers to
// device memory.
//
// Weights are GGUF bytes, their first byte aligned to 16. Calls only launch kernels on the caller's stream:
// no allocation, no synchronisation, no global state; they may be captured in a graph. Results do not depend
// on timing.
#pragma once

#include <cstddef>
#include <limits>

#include "quantal/checks.hpp"
#include "quantal/cuda/expand.cuh"
#include "quantal/cuda/gemv_kernel.cuh"
#include "quantal/cuda/launch.cuh"
#include "quantal/cuda/mma_kernel.cuh"
#include "quantal/cuda/operand_kernel.cuh"
#include "quantal/cuda/plan.cuh"
#include "quantal/cuda/route.cuh"
#include "quantal/kernel/args.hpp"
#include "quantal/status.hpp"

namespace quantal::cuda {
namespace detail {

/// Hands out aligned parts of the caller's workspace, or only counts when there is none.
class arena {
 public:
  explicit arena(void* memory) noexcept : memory_(static_cast<std::uint8_t*>(memory)) {}
  template <class T>
  T* take(std::int64_t count) noexcept {
    T* p = memory_ ? reinterpret_cast<T*>(memory_ + used_) : nullptr;
    used_ += (static_cast<std::size_t>(count) * sizeof(T) + 255) / 256 * 256;
    return p;
  }
  std::size_t used() const noexcept { return used_; }

 private:
  std::uint8_t* memory_;
  std::size_t used_ = 0;
};

/// A product whose vectors are known: dense or routed.
struct product {
  const std::byte* weights;
  std::int64_t rows, cols, row_stride, expert_stride;
  vectors x;
  columns y;
  float* out;
  device_info device;

  /// The cluster size of kernels without one: 0 where launches must not overlap.
  int single() const noexcept { return device.hopper() ? 1 : 0; }
};

template <any_format F>
bool well_aligned(const product& p) noexcept {
  const auto bits = reinterpret_cast<std::uintptr_t>(p.weights) | static_cast<std::uintptr_t>(p.row_stride) |
                    static_cast<std::uintptr_t>(p.expert_stride);
  return bits % group_alignment<F>() == 0;
}

/// fn.template operator()<Align>() with what is known of the address of every group of 256 weights of the
/// product.
template <any_format F, class Fn>
cudaError_t with_alignment(const product& p, Fn&& fn) noexcept {
  if (well_aligned<F>(p)) return fn.template operator()<group_alignment<F>()>();
  if constexpr (natural_alignment<F>() < group_alignment<F>())
    return fn.template operator()<natural_alignment<F>()>();
  else
    return cudaErrorInvalidValue;
}

/// fn.template operator()<N>() for the kernel for n vectors, if there is one.
template <block_format F, class Fn>
void with_gemv_columns(std::int64_t n, Fn&& fn) noexcept {
  if constexpr (gemv_pays<F>)
    unrolled<3>([&]<int I>() {
      if constexpr (1 << I <= max_gemv_columns<F>)
        if (n <= max_gemv_columns<F> && gemv_columns(static_cast<int>(n)) == 1 << I)
          fn.template operator()<1 << I>();
    });
}

/// How gemv_kernel takes runs of blocks with these matrices; stages is 0 if it does not.
template <block_format F, int N>
gemv_plan fit_gemv(const product& p, const gemv_load& load) noexcept {
  if (!gemv_pays<F> || !p.device.hopper() || !well_aligned<F>(p)) return {};
  return plan_gemv(gemv_limits_of<F, N>(), p.rows, p.cols, p.row_stride, load, p.device);
}

/// The same of a product with n vectors and each of `matrices` matrices.
template <block_format F>
gemv_plan fit_gemv(const product& p, std::int64_t n, std::int64_t matrices) noexcept {
  gemv_plan plan{};
  if (!lane_readable<F> && n > 1 && p.rows < min_gemv_pair_rows) return plan;
  with_gemv_columns<F>(n, [&]<int N>() { plan = fit_gemv<F, N>(p, {matrices, gemv_rounds(N) ? N : 0, N}); });
  return plan;
}

inline unsigned blocks_of(std::int64_t warps) noexcept { return static_cast<unsigned>((warps + 7) / 8); }

/// Starts gemv_kernel for `runs` runs of blocks.
template <block_format F, int N, gemv_part Part>
cudaError_t launch_gemv(const gemv_args& args, const gemv_load& load, cudaStream_t stream) noexcept {
  const int rows = (args.rows + args.plan.blocks - 1) / args.plan.blocks;
  const int shared = gemv_shared(args.plan, load.vectors, load.products, rows).bytes;
  return launch(&gemv_kernel<F, group_alignment<F>(), N, Part>,
                dim3(static_cast<unsigned>(args.plan.blocks), static_cast<unsigned>(load.runs)),
                32 * (args.plan.warps() + 1),
                {std::max(shared, gemv_least_shared), gemv_limits_of<F, N>().shared}, 1, stream, args);
}

/// Products of one vector with each of `matrices` matrices, or of args.n with one.
template <block_format F>
cudaError_t launch_gemv(const gemv_args& args, std::int64_t matrices, cudaStream_t stream) noexcept {
  cudaError_t error = cudaErrorInvalidValue;
  with_gemv_columns<F>(args.n, [&]<int N>() {
    error = launch_gemv<F, N, gemv_part::product>(args, {matrices, gemv_rounds(N) ? N : 0, N}, stream);
  });
  return error;
}

/// A dense product by gemv_kernel; several vectors are rounded by a kernel of their own.
template <block_format F>
cudaError_t gemv_product(const product& p, const gemv_plan& plan, arena& memory, bool run,
                         cudaStream_t stream) noexcept {
  const std::int64_t groups = p.x.n * (p.cols / group_weights);
  const bool apart = !gemv_rounds(static_cast<int>(p.x.n));
  auto* codes = memory.take<std::uint8_t>(apart ? groups * group_weights : 0);
  auto* scales = memory.take<float>(apart ? groups : 0);
  if (!run) return cudaSuccess;
  if (apart) {
    const cudaError_t e =
        launch(&gemv_prepare<F>, dim3(blocks_of(groups)), 256, 0, 1, stream, p.x.data, p.x.stride,
               static_cast<int>(p.x.n), static_cast<int>(p.cols), codes, scales);
    if (e != cudaSuccess) return e;
  }
  gemv_args g{};
  g.weights = p.weights, g.row_stride = p.row_stride;
  g.rows = static_cast<int>(p.rows), g.cols = static_cast<int>(p.cols);
  g.x = p.x.data, g.x_stride = p.x.stride, g.n = static_cast<int>(p.x.n);
  if (apart) g.codes = codes, g.scales = scales;
  g.out = p.out, g.out_stride = p.y.out_stride;
  g.experts = 1;
  g.plan = plan;
  return launch_gemv<F>(g, 1, stream);
}

/// Products with few vectors per tile.
template <block_format F>
cudaError_t stream_product(const product& p, std::int64_t tile, unsigned column_tiles, arena& memory,
                           bool run, cudaStream_t stream) noexcept {
  cudaError_t error = cudaErrorInvalidValue;
  with_stream_shape(tile, [&]<class Shape>() {
    const std::int64_t records = (p.cols + group_weights - 1) / group_weights * p.x.n;
    auto* prepared = memory.take<std::uint8_t>(records * q8_record<F>::bytes);
    error = cudaSuccess;
    if (run && records)
      error = launch(&prepare_q8<F>, dim3(blocks_of(records)), 256, 0, p.single(), stream, p.x, prepared);
    if (!run || error != cudaSuccess) return;
    const stream_args args{p.weights,
                           p.row_stride,
                           p.expert_stride,
                           static_cast<int>(p.rows),
                           static_cast<int>(p.cols),
                           prepared,
                           p.y,
                           p.out};
    const dim3 grid(static_cast<unsigned>((p.rows + Shape::rows - 1) / Shape::rows), column_tiles);
    error = with_alignment<F>(p, [&]<int Align>() {
      return launch(
          &stream_kernel<F, Align, Shape>, grid, Shape::threads,
          {stream_shared_bytes<F, Align, Shape>(tile), stream_shared_bytes<F, Align, Shape>(Shape::n)},
          p.single(), stream, args);
    });
  });
  return error;
}

/// Activations as bf16, and `counters` words of zeros.
template <any_format F>
cudaError_t prepare(const product& p, std::uint8_t* prepared, std::uint32_t* finished, std::int64_t counters,
                    cudaStream_t stream) noexcept {
  const std::int64_t chunks = 2 * prepared_chunks(p.cols), groups = (p.x.n + 7) / 8;
  const auto go = [&]<int Chunks>() {
    const std::int64_t warps = std::max((chunks + Chunks - 1) / Chunks * groups, (counters + 31) / 32);
    return launch(&prepare_bf16<order_of<F>, Chunks>, dim3(blocks_of(warps)), 256, 0, p.single(), stream, p.x,
                  prepared, finished, static_cast<int>(counters));
  };
  // Where there are warps enough, fewer with more reads under way each.
  return chunks * groups < 1 << 16 ? go.template operator()<1>() : go.template operator()<4>();
}

/// The others.
template <any_format F>
cudaError_t tile_product(const product& p, const tile_plan& plan, unsigned column_tiles, arena& memory,
                         bool run, cudaStream_t stream) noexcept {
  cudaError_t error = cudaErrorInvalidValue;
  with_tile_shape<F>(plan, [&]<class Shape>() {
    const std::int64_t row_tiles = (p.rows + Shape::rows - 1) / Shape::rows;
    const dim3 grid(static_cast<unsigned>((row_tiles + Shape::Cluster - 1) / Shape::Cluster * Shape::Cluster),
                    column_tiles, static_cast<unsigned>(plan.split));
    const std::int64_t tiles = plan.split > 1 ? static_cast<std::int64_t>(grid.x) * grid.y : 0;
    auto* prepared = memory.take<std::uint8_t>(prepared_bytes(p.cols, (p.x.n + 7) / 8));
    auto* partial = memory.take<float>(tiles * plan.split * Shape::N * Shape::rows);
    auto* finished = memory.take<std::uint32_t>(tiles);
    error = cudaSuccess;
    if (!run) return;
    error = prepare<F>(p, prepared, finished, tiles, stream);
    if (error != cudaSuccess) return;
    const tile_args args{p.weights,
                         p.row_stride,
                         p.expert_stride,
                         static_cast<int>(p.rows),
                         static_cast<int>(p.cols),
                         prepared,
                         p.y,
                         p.out,
                         plan.split,
                         partial,
                         finished};
    error = with_alignment<F>(p, [&]<int Align>() {
      return launch(&tile_kernel<F, Align, Shape>, grid, Shape::threads, tile_shared_bytes<F, Align, Shape>(),
                    Shape::Cluster, stream, args);
    });
  });
  return error;
}

/// Vectors per tile of the product for devices without wgmma, for `each` vectors per matrix.
inline int mma_columns(std::int64_t each) noexcept { return each <= 16 ? 16 : 64; }

/// Products of tiles of N = mma_columns() vectors on devices without wgmma.
template <any_format F>
cudaError_t mma_product(const product& p, int columns, unsigned column_tiles, arena& memory, bool run,
                        cudaStream_t stream) noexcept {
  if constexpr (block_format<F> || F::layout.bytes == 2) {
    auto* prepared = memory.take<std::uint8_t>(prepared_bytes(p.cols, (p.x.n + 7) / 8));
    if (!run) return cudaSuccess;
    const cudaError_t error = prepare<F>(p, prepared, nullptr, 0, stream);
    if (error != cudaSuccess) return error;
    const tile_args args{p.weights,
                         p.row_stride,
                         p.expert_stride,
                         static_cast<int>(p.rows),
                         static_cast<int>(p.cols),
                         prepared,
                         p.y,
                         p.out,
                         1,
                         nullptr,
                         nullptr};
    const auto go = [&]<class Shape>(const Shape&) {
      const dim3 grid(static_cast<unsigned>((p.rows + Shape::rows - 1) / Shape::rows), column_tiles);
      return with_alignment<F>(p, [&]<int Align>() {
        return launch(&mma_kernel<F, Align, Shape>, grid, Shape::threads, mma_shared_bytes<F, Align, Shape>(),
                      p.single(), stream, args);
      });
    };
    return columns == 16 ? go(mma_shape<16>{}) : go(mma_shape<64>{});
  } else {
    return cudaErrorInvalidValue;
  }
}

/// Products with so many vectors that the weights are decoded to the workspace first.
template <any_format F, class Operand>
cudaError_t operand_product(const product& p, arena& memory, bool run, cudaStream_t stream) noexcept {
  constexpr bool scaled = std::is_same_v<Operand, e4m3_operand>;
  const std::int64_t row_groups = (p.rows + 255) / 256 * 32, vector_groups = (p.x.n + 7) / 8;
  auto* weights = memory.take<std::uint8_t>(operand_bytes<Operand>(p.cols, row_groups));
  auto* activations = memory.take<std::uint8_t>(operand_bytes<Operand>(p.cols, vector_groups));
  auto* row_bounds_of = memory.take<float>(scaled ? p.rows : 0);
  auto* vector_bounds_of = memory.take<float>(scaled ? p.x.n : 0);
  if (!run) return cudaSuccess;

  const std::int64_t warps = operand_chunks<Operand>(p.cols) * (Operand::chunk_values / 32) * vector_groups;
  cudaError_t error;
  if constexpr (scaled) {
    error = launch(&row_bounds<F>, dim3(blocks_of(p.rows)), 256, 0, 1, stream, p.weights, p.row_stride,
                   static_cast<int>(p.rows), static_cast<int>(p.cols), row_bounds_of);
    if (error == cudaSuccess)
      error = launch(&vector_bounds<256>, dim3(static_cast<unsigned>(p.x.n)), 256, 0, 1, stream, p.x,
                     vector_bounds_of);
    if (error == cudaSuccess)
      error = launch(&prepare_e4m3<order_of<F>>, dim3(blocks_of(warps)), 256, 0, 1, stream, p.x,
                     vector_bounds_of, activations);
  } else {
    error = prepare<F>(p, activations, nullptr, 0, stream);
  }
  if (error != cudaSuccess) return error;

  const expand_args expanded{
      p.weights,  p.row_stride, static_cast<int>(p.rows), static_cast<int>(p.cols), weights,
      row_groups, row_bounds_of};
  constexpr int per_block = expand_warps * expand_groups * group_weights;
  const dim3 grid(static_cast<unsigned>((p.rows + 15) / 16),
                  static_cast<unsigned>((p.cols + per_block - 1) / per_block));
  error = with_alignment<F>(p, [&]<int Align>() {
    return launch(&expand<F, Align, Operand>, grid, 32 * expand_warps,
                  expand_warps * expand_ring<F, Align>::bytes, 1, stream, expanded);
  });
  if (error != cudaSuccess) return error;

  using shape = operand_shape;
  const operand_args args{weights,
                          activations,
                          static_cast<int>(p.rows),
                          static_cast<int>(p.cols),
                          static_cast<int>(p.x.n),
                          row_groups,
                          p.out,
                          p.y.out_stride,
                          row_bounds_of,
                          vector_bounds_of};
  const int clusters =
      std::min(operand_tiles(args.rows, args.n).count(), p.device.multiprocessors / shape::cluster);
  return launch(&operand_kernel<Operand>, dim3(static_cast<unsigned>(shape::cluster * clusters)),
                shape::threads, shape::shared_bytes, shape::cluster, stream, args);
}

/// The plan of pair_kernel if it is faster than that of tile_kernel and the rows' bytes leave room for it;
/// otherwise clusters is 0.
template <block_format F, class Shape>
pair_plan fit_pairs(const product& p, const pair_cost& cost, const tile_plan& tiles) noexcept {
  if (tiles.n != 256) return {};
  // Groups are counted in int.
  if ((p.rows + 127) / 128 * ((p.x.n + 255) / 256) * (p.cols / group_weights + 1) > 1 << 30) return {};
  if (!(well_aligned<F>(p) ? pair_fits<F, group_alignment<F>(), Shape>
                           : pair_fits<F, natural_alignment<F>(), Shape>))
    return {};
  constexpr bool quick = fragment_reader<F>::quick;
  const auto pairs = plan_pairs(cost, quick, p.rows, p.cols, p.x.n, p.device);
  return pairs.cycles < wide_cycles(quick, tiles, p.rows, p.cols, p.x.n, p.device) ? pairs.plan : pair_plan{};
}

/// Products with so many vectors that two blocks share what they decode.
template <block_format F, class Shape>
cudaError_t pair_product(const product& p, const pair_plan& plan, arena& memory, bool run,
                         cudaStream_t stream) noexcept {
  const pair_tiles<Shape> tiles(static_cast<int>(p.rows), static_cast<int>(p.x.n));
  const bool shares = plan.share(plan.clusters, tiles.count()) > 0;
  const std::int64_t counters = shares ? tiles.count() * Shape::cluster : 0;
  auto* prepared = memory.take<std::uint8_t>(prepared_bytes(p.cols, (p.x.n + 7) / 8));
  auto* partial =
      memory.take<float>(shares ? std::int64_t{plan.clusters} * 2 * Shape::cluster * Shape::tile_values : 0);
  auto* finished = memory.take<std::uint32_t>(counters);
  if (!run) return cudaSuccess;
  const cudaError_t error = prepare<F>(p, prepared, finished, counters, stream);
  if (error != cudaSuccess) return error;
  const pair_args args{p.weights,
                       p.row_stride,
                       static_cast<int>(p.rows),
                       static_cast<int>(p.cols),
                       static_cast<int>(p.x.n),
                       prepared,
                       p.out,
                       p.y.out_stride,
                       plan,
                       partial,
                       finished};
  return with_alignment<F>(p, [&]<int Align>() {
    if constexpr (pair_fits<F, Align, Shape>)
      return launch(&pair_kernel<F, Align, Shape>,
                    dim3(static_cast<unsigned>(Shape::cluster * plan.clusters)), Shape::threads,
                    Shape::template shared_bytes<F, Align>(), Shape::cluster, stream, args);
    else
      return cudaErrorInvalidValue;
  });
}

/// Whether there are vectors enough to decode to the workspace; limits measured on an H200.
template <any_format F>
bool expands(const product& p, precision policy) noexcept {
  if (p.rows < 256 || !p.device.hopper()) return false;
  if (policy == precision::fp8) return p.x.n >= 1024;
  if constexpr (block_format<F>)
    return !fragment_reader<F>::quick && p.x.n >= 2048;
  else
    return p.x.n >= 512;
}

/// What a device asks of weights beside what the host does.
template <any_format F>
status check_on_device(const checks::weight_stack& w, const device_info& device) noexcept {
  if (w.row_stride % natural_alignment<F>() || (w.experts > 1 && w.expert_stride % natural_alignment<F>()))
    return status::bad_stride;
  if (reinterpret_cast<std::uintptr_t>(w.data) % 16) return status::bad_alignment;
  if (device.multiprocessors <= 0) return status::device_error;
  return device.major < 8 || (float_format<F> && F::layout.bytes > 2) ? status::unsupported : status::ok;
}

/// What the host checks too (checks.hpp), then what a device asks for besides.
template <any_format F, class Args>
status check(const Args& a, const device_info& device) noexcept {
  const status s = checks::check_product(checks::row_layout_of<F>, a);
  return s == status::ok ? check_on_device<F>(checks::weights_of(a), device) : s;
}

/// Few enough experts and pairs for the kernels that sort them.
inline bool countable(const mul_mat_id_args& a) noexcept {
  return a.experts <= 8192 && checks::dimension(a.tokens) && checks::dimension(a.used) &&
         (a.used == 0 || a.tokens <= checks::largest_dimension / a.used);
}

template <any_format F>
cudaError_t mul_mat(const mul_mat_args& a, precision policy, const device_info& device, arena& memory,
                    bool run, cudaStream_t stream) noexcept {
  const product p{a.weights,
                  a.rows,
                  a.cols,
                  a.weight_row_stride,
                  0,
                  {a.activations, a.n, a.cols, a.activation_stride, nullptr, nullptr},
                  {a.n, a.out_stride, nullptr, nullptr, nullptr},
                  a.out,
                  device};
  if constexpr (block_format<F>) {
    if (const gemv_plan plan = fit_gemv<F>(p, a.n, 1); policy == precision::q8 && plan.stages) {
      return gemv_product<F>(p, plan, memory, run, stream);
    }
    if (policy == precision::q8 && a.n <= max_stream_columns)
      return stream_product<F>(p, a.n, 1, memory, run, stream);
  }
  if (!device.hopper()) {
    const int n = mma_columns(a.n);
    return mma_product<F>(p, n, static_cast<unsigned>((a.n + n - 1) / n), memory, run, stream);
  }
  if (expands<F>(p, policy))
    return policy == precision::fp8 ? operand_product<F, e4m3_operand>(p, memory, run, stream)
                                    : operand_product<F, bf16_operand>(p, memory, run, stream);
  const tile_plan plan = plan_dense_tiles<F>(a.rows, a.cols, a.n, device);
  if constexpr (block_format<F>) {
    if (a.n > 256) {
      const auto pairs = fit_pairs<F, wide_pairs<F>>(p, pair_costs[0], plan);
      if (pairs.clusters) return pair_product<F, wide_pairs<F>>(p, pairs, memory, run, stream);
    } else if (a.n > 128) {
      const auto pairs = fit_pairs<F, pair_shape<128>>(p, pair_costs[1], plan);
      if (pairs.clusters) return pair_product<F, pair_shape<128>>(p, pairs, memory, run, stream);
    }
  }
  return tile_product<F>(p, plan, static_cast<unsigned>((a.n + plan.n - 1) / plan.n), memory, run, stream);
}

template <any_format F>
cudaError_t mul_mat_id(const mul_mat_id_args& a, precision policy, const device_info& device, arena& memory,
                       bool run, cudaStream_t stream) noexcept {
  const std::int64_t pairs = a.tokens * a.used, positions = routed_positions(pairs, a.experts);
  if constexpr (block_format<F>) {
    const product p{a.weights, a.rows, a.cols, a.weight_row_stride, a.expert_stride, {}, {}, a.out, device};
    if (policy == precision::q8 && pairs <= max_gemv_pairs<F>) {
      if (const gemv_plan plan = fit_gemv<F>(p, 1, pairs); plan.stages) {
        if (!run) return cudaSuccess;
        gemv_args g{};
        g.weights = a.weights, g.row_stride = a.weight_row_stride, g.expert_stride = a.expert_stride;
        g.rows = static_cast<int>(a.rows), g.cols = static_cast<int>(a.cols);
        g.x = a.activations, g.out = a.out, g.n = 1;
        g.ids = a.ids, g.experts = static_cast<int>(a.experts), g.used = static_cast<int>(a.used);
        g.ids_stride = a.ids_stride, g.token_stride = a.token_stride, g.slot_stride = a.slot_stride;
        g.out_token_stride = a.out_token_stride, g.out_slot_stride = a.out_slot_stride;
        g.plan = plan;
        return launch_gemv<F>(g, pairs, stream);
      }
    }
  }
  // What an expert gets on average decides for all.
  const std::int64_t each = pairs / std::min(pairs, a.experts);
  const bool streams = block_format<F> && policy == precision::q8 && each <= max_routed_stream_columns;
  tile_plan plan{};
  if (!streams && device.hopper())
    plan = plan_tiles<F>(many_tiles, a.rows, a.cols, device, 1, [&](std::int64_t n) {
      return expected_tiles(pairs, std::min(pairs, a.experts), n);
    });
  const int tile_columns = streams ? 8 : device.hopper() ? plan.n : mma_columns(each);
  const std::int64_t tiles = routed_tiles(pairs, a.experts, tile_columns);

  route_args r{};
  r.ids = a.ids;
  r.tokens = a.tokens, r.used = a.used, r.ids_stride = a.ids_stride;
  r.token_stride = a.token_stride, r.slot_stride = a.slot_stride;
  r.out_token_stride = a.out_token_stride, r.out_slot_stride = a.out_slot_stride;
  r.experts = static_cast<int>(a.experts), r.tile_columns = tile_columns;
  r.starts = memory.take<std::int32_t>(a.experts + 1);
  r.source = memory.take<std::int64_t>(positions);
  r.out_offset = memory.take<std::int64_t>(positions);
  r.tiles = memory.take<column_tile>(tiles);
  r.tile_count = memory.take<std::int32_t>(1);
  r.out = a.out, r.rows = a.rows;
  if (run) {
    const int blocks = device.hopper() ? route_blocks(pairs) : 0;
    const auto e = launch(&route<1024>, dim3(std::max(1, blocks)), 32 * route_warps(a.experts),
                          route_shared_bytes(a.experts), blocks, stream, r);
    if (e != cudaSuccess) return e;
  }
  const product p{a.weights,
                  a.rows,
                  a.cols,
                  a.weight_row_stride,
                  a.expert_stride,
                  {a.activations, positions, a.cols, 0, r.source, r.starts + (r.starts ? a.experts : 0)},
                  {positions, 0, r.tiles, r.tile_count, r.out_offset},
                  a.out,
                  device};
  if constexpr (block_format<F>) {
    if (streams) return stream_product<F>(p, tile_columns, static_cast<unsigned>(tiles), memory, run, stream);
  }
  if (!device.hopper())
    return mma_product<F>(p, tile_columns, static_cast<unsigned>(tiles), memory, run, stream);
  return tile_product<F>(p, plan, static_cast<unsigned>(tiles), memory, run, stream);
}

}  // namespace detail

/// Bytes of device memory, aligned to 256, that mul_mat needs for these shapes.
template <any_format F>
std::size_t mul_mat_workspace(const mul_mat_args& a, precision policy, const device_info& device) noexcept {
  if (a.n <= 0 || a.rows <= 0) return 0;
  if (!checks::dimension(a.n) || !checks::dimension(a.rows) || !checks::dimension(a.cols))
    return std::numeric_limits<std::size_t>::max();
  detail::arena count(nullptr);
  detail::mul_mat<F>(a, policy, device, count, false, nullptr);
  return count.used();
}

/// out[t * out_stride + r] = sum_c W[r][c] * activations[t * activation_stride + c].
template <any_format F>
status mul_mat(const mul_mat_args& a, precision policy, const device_info& device, void* workspace,
               std::size_t bytes, cudaStream_t stream) noexcept {
  if (const status s = detail::check<F>(a, device); s != status::ok || checks::nothing_to_do(a)) return s;
  const checks::region weights = checks::weights_of(a).memory(checks::row_layout_of<F>);
  if (const status s =
          checks::check_workspace(a, weights, workspace, bytes, mul_mat_workspace<F>(a, policy, device));
      s != status::ok)
    return s;
  detail::arena memory(workspace);
  return detail::mul_mat<F>(a, policy, device, memory, true, stream) == cudaSuccess ? status::ok
                                                                                    : status::device_error;
}

/// Bytes of device memory, aligned to 256, that mul_mat_id needs for these shapes, whatever the ids.
template <any_format F>
std::size_t mul_mat_id_workspace(const mul_mat_id_args& a, precision policy,
                                 const device_info& device) noexcept {
  if (a.tokens <= 0 || a.used <= 0 || a.experts <= 0 || a.rows <= 0) return 0;
  if (!detail::countable(a) || !checks::dimension(a.rows) || !checks::dimension(a.cols))
    return std::numeric_limits<std::size_t>::max();
  detail::arena count(nullptr);
  detail::mul_mat_id<F>(a, policy, device, count, false, nullptr);
  return count.used();
}

/// The product through the expert of each (token, slot). Ids stay on the device, so a bad one cannot be
/// reported: the results of its pair are NaN.
template <any_format F>
status mul_mat_id(const mul_mat_id_args& a, precision policy, const device_info& device, void* workspace,
                  std::size_t bytes, cudaStream_t stream) noexcept {
  if (const status s = detail::check<F>(a, device); s != status::ok || checks::nothing_to_do(a)) return s;
  if (!detail::countable(a)) return status::bad_shape;
  const checks::region weights = checks::weights_of(a).memory(checks::row_layout_of<F>);
  if (const status s =
          checks::check_workspace(a, weights, workspace, bytes, mul_mat_id_workspace<F>(a, policy, device));
      s != status::ok)
    return s;
  detail::arena memory(workspace);
  return detail::mul_mat_id<F>(a, policy, device, memory, true, stream) == cudaSuccess ? status::ok
                                                                                       : status::device_error;
}

}  // namespace quantal::cuda
