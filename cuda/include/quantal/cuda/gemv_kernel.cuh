// The product with one or two vectors, in some formats up to four: weights stream through shared memory once and meet the vectors in
// registers.
//
// A block owns a run of rows. One or two vectors are rounded to int8 by all warps (more by gemv_prepare); then each warp keeps the part of
// them that belongs to its segment of the columns, up to eight groups of 256, four lanes to a group, and
// multiplies the segment of one row after the other (dp4a). One more warp copies rows, which are contiguous,
// into a ring of stages. Products of segments are added in the order of the segments.
//
// With `ids`, blockIdx.y is a (token, slot) pair, and its expert's matrix is read: nothing has to be sorted.
// The same kernel makes the two halves of a mixture of experts (gemv_part): its blocks then read the rows of
// several matrices, one after the other, and put their products together.
#pragma once

#include "quantal/cuda/device.hpp"
#include "quantal/cuda/fragments/lanes.hpp"
#include "quantal/cuda/moe.hpp"
#include "quantal/cuda/stream_kernel.cuh"

namespace quantal::cuda {

/// How a product is cut: by detail::plan_gemv().
struct gemv_plan {
  int log_groups;  ///< of 256 columns that a warp multiplies at once: 1 to 8; it takes 8 / groups rows
  int segments;    ///< of so many groups in a row, each with its own warps
  int teams;       ///< of `segments` warps, each with its own rows
  int passes;      ///< of two rows per lane and stage
  int stages;
  int stage_bytes;
  int blocks;       ///< along the rows
  int table_bytes;  ///< of gemv_table_bytes<F>

  constexpr int groups() const noexcept { return 1 << log_groups; }
  constexpr int together() const noexcept { return 8 >> log_groups; }  ///< rows
  constexpr int warps() const noexcept { return segments * teams; }
  /// Rows of all teams in one pass, and of a stage.
  constexpr int pass_rows() const noexcept { return 2 * together() * teams; }
  constexpr int stage_rows() const noexcept { return passes * pass_rows(); }
};

/// What becomes of the products of a block.
enum class gemv_part : std::uint8_t {
  product,  ///< of one matrix and N vectors: they are the results
  glu,  ///< of gate and up of an expert and one vector: their gated unit; blockIdx.y: a (token, slot) pair
  mix,  ///< of the experts of a token and a vector each: the weighted sum; blockIdx.y: a token
};

struct gemv_args {
  const std::byte* weights;
  std::int64_t row_stride, expert_stride;
  int rows, cols;
  const float* x;
  const std::uint8_t* codes;  ///< of the vectors, by gemv_prepare, unless gemv_rounds(n)
  const float* scales;        ///< of these
  int n;                      ///< vectors
  float* out;
  std::int64_t x_stride, out_stride;  ///< dense: floats between vectors
  const std::int32_t* ids;            ///< null: dense, one expert
  int experts, used;
  std::int64_t ids_stride, token_stride, slot_stride, out_token_stride, out_slot_stride;
  const std::byte* up;          ///< glu; `weights` is the gate
  const float *bias, *up_bias;  ///< glu, mix: [expert][row], or null
  gated_unit unit;              ///< glu
  const float* shares;          ///< mix: of (token, slot)
  std::int64_t shares_stride;   ///< between tokens
  gemv_plan plan;
};

/// Bytes of the tables that lanes look codes up in.
template <block_format F>
constexpr int gemv_table_bytes() noexcept {
  if constexpr (lane_readable<F>)
    return lane_reader<F>::tables::bytes;
  else
    return 0;
}

/// Whether the kernel pays at all, and for how many vectors; measured on an H200 and an H100. Groups of 128
/// bytes, or 192, put lanes of different groups on the same banks. Four vectors pay where tensor cores wait for
/// codes, two chunk by chunk where reading the weights takes most of the time: many bits, and none looked up.
template <block_format F>
inline constexpr bool gemv_pays = lane_readable<F> || group_size<F> % 64 != 0 || group_size<F> < 128;
template <block_format F>
inline constexpr int max_gemv_columns =
    lane_readable<F> ? (8 * F::layout.bytes < 3 * F::layout.elements && gemv_table_bytes<F>() ? 4 : 2)
    : 8 * F::layout.bytes >= 6 * F::layout.elements && !has_levels<F> ? 2
                                                                      : 1;
inline constexpr int min_gemv_pair_rows = 2048;  ///< of a matrix, for two vectors without a lane_reader

/// Vectors that the kernel for n of them is compiled for.
constexpr int gemv_columns(int n) noexcept { return n <= 2 ? n : 4; }
/// Up to two are rounded by every block for itself, more by a kernel in front.
constexpr bool gemv_rounds(int n) noexcept { return n <= 2; }

/// What blocks may take: warps beside the one that copies, blocks that work together on a multiprocessor, blocks
/// for which there are registers, shared memory, and how much of it for the ring. Where one block works and two
/// fit, the next kernel's starts beside it.
struct gemv_limits {
  int warps, blocks, fitting_blocks, shared, ring, table_bytes;
};
/// Formats whose decoding takes so long that two blocks of nine warps are better than one of twelve.
template <block_format F>
inline constexpr bool gemv_slow = !lane_readable<F>;
template <>
inline constexpr bool gemv_slow<iq3_s> = true;
template <>
inline constexpr bool gemv_slow<iq4_k> = true;
/// Measured on an H100.
template <block_format F, int N>
constexpr gemv_limits gemv_limits_of() noexcept {
  constexpr int kb = 1024, tables = gemv_table_bytes<F>();
  if ((gemv_slow<F> && N == 1) || !lane_readable<F>) return {9, 2, 2, 113 * kb, 72 * kb, tables};
  if (N == 1) return {12, 1, 2, 113 * kb, 100 * kb, tables};
  return {12, 1, 1, 200 * kb, 100 * kb, tables};
}

namespace detail {

/// Where a block of gemv_kernel keeps things in its shared memory, in bytes.
struct gemv_shared {
  int tables, barriers, scales, codes, partial, ring, bytes;

  /// For so many vectors that the block rounds, and products of each of at most `rows` rows.
  QUANTAL_HD gemv_shared(const gemv_plan& plan, int vectors, int products, int rows) noexcept {
    const int groups = vectors * plan.groups() * plan.segments;
    const auto aligned = [](int at) { return (at + 127) / 128 * 128; };
    tables = 0;
    barriers = plan.table_bytes;
    scales = aligned(barriers + 16 * plan.stages);
    codes = aligned(scales + 4 * groups);
    partial = codes + groups * group_weights;
    ring = aligned(partial + 4 * products * rows * plan.segments);
    bytes = ring + plan.stages * plan.stage_bytes;
  }
};

/// In which order a lane has the codes of a chunk of 32.
template <block_format F>
constexpr lane_order gemv_order() noexcept {
  if constexpr (lane_readable<F>) {
    return lane_reader<F>::order;
  } else {
    constexpr fragment_order order = fragment_reader<F>::order;
    return {order == fragment_order::consecutive ? 4 : 16, order == fragment_order::interleaved};
  }
}

/// The eight of 256 values that a lane rounds, in the order of its codes.
template <block_format F>
__device__ inline void load_fragment_values(const float* x, int lane, float (&v)[8]) noexcept {
  constexpr lane_order order = gemv_order<F>();
  const float* first = x + 32 * (lane >> 2) + order.first(lane & 3);
  const float* second = first + order.distance;
  float a[8];
  if (reinterpret_cast<std::uintptr_t>(x) % 16 == 0) {
    // Not through the cache of constants: the kernel in front may still write them when this one starts.
    const float4 p = *reinterpret_cast<const float4*>(first), q = *reinterpret_cast<const float4*>(second);
    a[0] = p.x, a[1] = p.y, a[2] = p.z, a[3] = p.w, a[4] = q.x, a[5] = q.y, a[6] = q.z, a[7] = q.w;
  } else {
#pragma unroll
    for (int i = 0; i < 4; ++i) a[i] = first[i], a[4 + i] = second[i];
  }
#pragma unroll
  for (int i = 0; i < 8; ++i) v[i] = a[order.interleaved ? i / 2 + 4 * (i % 2) : i];
}

/// Rounds 256 values by one warp; returns their scale. One that is not finite makes the scale so.
__device__ inline float round_values(const float (&v)[8], uint2* codes, int lane) noexcept {
  const float largest = largest_magnitude(v);
  const float inverse = largest > 0 ? 127.0f / largest : 0.0f;
  std::uint32_t words[2] = {0, 0};
#pragma unroll
  for (int i = 0; i < 8; ++i)
    words[i / 4] |= static_cast<std::uint32_t>(__float2int_rn(v[i] * inverse) & 255) << (8 * (i % 4));
  codes[lane] = make_uint2(words[0], words[1]);
  return largest / 127.0f;
}

/// A lane's codes of a group of a vector, and what their sums start from.
template <block_format F>
struct gemv_fragment {
  static constexpr int parts = split_fragments<F> ? 2 : 1;  ///< words of a fragment with scales of their own
  static constexpr int bias = fragment_reader<F>::bias;
  static constexpr bool offset = F::layout.has_offset;
  uint2 codes[8];
  std::int32_t starts[bias ? 8 : 1][parts];
  float sums[offset ? 8 : 1][parts];
  float scale;

  __device__ std::int32_t start(int c, int part) const noexcept {
    return bias ? starts[bias ? c : 0][part] : integer_float_bits;
  }
  /// From the codes of the group and their scale.
  __device__ void load(const std::uint8_t* from, float group_scale, int t) noexcept {
    scale = group_scale;
#pragma unroll
    for (int c = 0; c < 8; ++c) {
      codes[c] = *reinterpret_cast<const uint2*>(from + 32 * c + 8 * t);
      const int low = __dp4a(static_cast<int>(codes[c].x), 0x01010101, 0),
                high = __dp4a(static_cast<int>(codes[c].y), 0x01010101, 0);
      set(c, 0, parts == 2 ? low : low + high);
      if constexpr (parts == 2) set(c, 1, high);
    }
  }

 private:
  __device__ void set(int c, int part, int sum) noexcept {
    if constexpr (bias) starts[c][part] = integer_float_bits - bias * sum;
    if constexpr (offset) sums[c][part] = static_cast<float>(sum);
  }
};

/// The same where lanes have a quarter of the group each.
template <lane_readable F>
struct gemv_fragment<F> {
  static constexpr int groups = 64 / F::layout.group;
  static constexpr bool summed = lane_reader<F>::bias != 0 || F::layout.has_offset;
  uint4 codes[4];
  int sums[summed ? groups : 1];
  float scale;

  __device__ void load(const std::uint8_t* from, float group_scale, int t) noexcept {
    scale = group_scale;
#pragma unroll
    for (int i = 0; i < 4; ++i)
      codes[i] = *reinterpret_cast<const uint4*>(from + 16 * lane_reader<F>::run(t, i));
    if constexpr (summed) {
#pragma unroll
      for (int g = 0; g < groups; ++g) sums[g] = 0;
      unrolled<16>(
          [&]<int W>() { sums[W * groups / 16] = __dp4a(word<W>(), 0x01010101, sums[W * groups / 16]); });
    }
  }
  template <int W>
  __device__ int word() const noexcept {
    const uint4& c = codes[W / 4];
    return static_cast<int>(W % 4 == 0 ? c.x : W % 4 == 1 ? c.y : W % 4 == 2 ? c.z : c.w);
  }
};

/// Sums of the products of a lane's codes and those of N vectors, for each of its groups.
template <lane_readable F, int N>
struct lane_sums {
  static constexpr int groups = gemv_fragment<F>::groups, words = 16 / groups;
  const gemv_fragment<F> (&x)[N];
  int plus[groups][N] = {}, minus[groups][N] = {};

  __device__ explicit lane_sums(const gemv_fragment<F> (&vectors)[N]) noexcept : x(vectors) {
    if constexpr (lane_reader<F>::bias != 0)
#pragma unroll
      for (int g = 0; g < groups; ++g)
#pragma unroll
        for (int n = 0; n < N; ++n) plus[g][n] = -lane_reader<F>::bias * x[n].sums[g];
  }
  template <int W>
  __device__ void add(std::uint32_t word) noexcept {
#pragma unroll
    for (int n = 0; n < N; ++n)
      plus[W / words][n] = __dp4a(static_cast<int>(word), x[n].template word<W>(), plus[W / words][n]);
  }
  template <int W>
  __device__ void subtract(std::uint32_t word) noexcept {
#pragma unroll
    for (int n = 0; n < N; ++n)
      minus[W / words][n] = __dp4a(static_cast<int>(word), x[n].template word<W>(), minus[W / words][n]);
  }
  template <class Factor>
  __device__ float total(const lane_scales<Factor, groups>& scales, int n) const noexcept {
    Factor sum = 0;
#pragma unroll
    for (int g = 0; g < groups; ++g) sum += scales.factors[g] * static_cast<Factor>(plus[g][n] - minus[g][n]);
    return static_cast<float>(sum) * scales.scale;
  }
  template <class Factor>
  __device__ float total(const lane_affine_scales<Factor, groups>& scales, int n) const noexcept {
    Factor sum = 0;
#pragma unroll
    for (int g = 0; g < groups; ++g) sum += scales.offset_factors[g] * static_cast<Factor>(x[n].sums[g]);
    const lane_scales<Factor, groups>& linear = scales;
    return fmaf(static_cast<float>(sum), scales.offset, total(linear, n));
  }
};

/// Adds a lane's part of the product of 256 weights of a row and N vectors.
template <lane_readable F, int N, class Bytes>
__device__ inline void gemv_group(const Bytes& bytes, float row_scale, const gemv_fragment<F> (&x)[N],
                                  const typename lane_reader<F>::tables& tables, int lane,
                                  float (&sum)[N]) noexcept {
  lane_sums<F, N> sums(x);
  lane_reader<F>::codes(bytes, lane & 3, tables, sums);
  const auto scales = lane_reader<F>::scales(bytes, row_scale, lane & 3);
#pragma unroll
  for (int n = 0; n < N; ++n) sum[n] += sums.total(scales, n);
}

/// The same for other formats.
template <block_format F, int N, class Bytes>
requires(!lane_readable<F>) __device__
    inline void gemv_group(const Bytes& bytes, float row_scale, const gemv_fragment<F> (&x)[N],
                           const no_tables&, int lane, float (&sum)[N]) noexcept {
  using fragment = gemv_fragment<F>;
  const int t = lane & 3;
  const float_scales<F> scales(bytes, row_scale, t);
  const auto add = [&](const affine& a, int n, int c, int part, std::int32_t product) {
    sum[n] = fmaf(a.scale, __int_as_float(product) - integer_float, sum[n]);
    if constexpr (fragment::offset) sum[n] = fmaf(a.offset, x[n].sums[c][part], sum[n]);
  };
  const auto chunk = [&]<int C>() {
    const fragment_codes o = fragment_reader<F>::template codes<C>(bytes, t);
    if constexpr (fragment::parts == 2) {
      const affine first = scales.template at<2 * C>(lane), second = scales.template at<2 * C + 1>(lane);
#pragma unroll
      for (int n = 0; n < N; ++n) {
        add(first, n, C, 0, ptx::dot_bytes(o.low, x[n].codes[C].x, x[n].start(C, 0)));
        add(second, n, C, 1, ptx::dot_bytes(o.high, x[n].codes[C].y, x[n].start(C, 1)));
      }
    } else {
      // Of groups of 16, lanes 0 and 1 hold the first of a chunk, lanes 2 and 3 the second.
      constexpr int first = 32 * C / F::layout.group;
      const affine a = scales.template at<first>(lane, F::layout.group < 32 ? t >> 1 : 0);
#pragma unroll
      for (int n = 0; n < N; ++n)
        add(a, n, C, 0,
            ptx::dot_bytes(o.high, x[n].codes[C].y,
                           ptx::dot_bytes(o.low, x[n].codes[C].x, x[n].start(C, 0))));
    }
  };
  unrolled<8>(chunk);
}

/// Sums of a and b over the lanes of a row: even lanes get that of a, odd ones that of b.
__device__ inline float sum_pair(float a, float b, int groups, int lane) noexcept {
  const bool odd = lane & 1;
  float s = (odd ? b : a) + __shfl_xor_sync(0xffffffffu, odd ? a : b, 1);
#pragma unroll
  for (int m = 2; m < 32; m *= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, s, m);
    s += m < 4 * groups ? other : 0;
  }
  return s;
}

template <block_format F>
struct gemv_tables_of {
  using type = no_tables;
};
template <lane_readable F>
struct gemv_tables_of<F> {
  using type = typename lane_reader<F>::tables;
};
template <block_format F>
using gemv_tables = typename gemv_tables_of<F>::type;

/// What a block works on.
struct gemv_work {
  const std::byte* matrix;  ///< the first; null if an expert is missing
  int first, last;          ///< rows
  int token, slot, expert;
  const float* x;
  float* out;
};

/// The ring of stages that one warp fills and the others read.
class gemv_ring {
 public:
  /// Barriers of the block (ptx::sync_threads) beside that of all threads.
  static constexpr int vectors_asked = 1, vectors_rounded = 2;

  __device__ gemv_ring(std::uint8_t* shared, const gemv_shared& at, const gemv_plan& plan) noexcept
      : data_(shared + at.ring), barriers_(ptx::shared_address(shared + at.barriers)), plan_(plan) {}

  __device__ void init() const noexcept {
    for (int s = 0; s < plan_.stages; ++s) {
      ptx::init_barrier(full(s), 1);
      ptx::init_barrier(empty(s), plan_.warps());
    }
    ptx::fence_barrier_init();
  }
  __device__ std::uint32_t full(int slot) const noexcept { return barriers_ + 16 * slot; }
  __device__ std::uint32_t empty(int slot) const noexcept { return barriers_ + 16 * slot + 8; }
  __device__ std::uint8_t* slot(int s) const noexcept { return data_ + s * plan_.stage_bytes; }

  /// Copies bytes begin .. end, from the address rounded down to 16. A last unit that would reach behind the
  /// matrix is copied byte by byte.
  __device__ void fill(int s, const std::byte* begin, const std::byte* end,
                       const std::byte* matrix_end) const noexcept {
    const auto from = reinterpret_cast<std::uintptr_t>(begin) & ~std::uintptr_t{15};
    const auto limit = reinterpret_cast<std::uintptr_t>(matrix_end);
    const auto stop = (reinterpret_cast<std::uintptr_t>(end) + 15) & ~std::uintptr_t{15};
    const int whole = static_cast<int>((stop > limit ? limit & ~std::uintptr_t{15} : stop) - from);
    const auto* source = reinterpret_cast<const std::uint8_t*>(from);
    std::uint8_t* to = slot(s);
    for (int i = whole; from + i < limit && stop > limit; ++i) to[i] = source[i];
    ptx::arrive_expecting(full(s), whole);
    if (whole) ptx::bulk_copy(ptx::shared_address(to), source, whole, full(s));
  }

 private:
  std::uint8_t* data_;
  std::uint32_t barriers_;
  const gemv_plan& plan_;
};

/// Matrices that a block reads, and matrix m of them.
template <gemv_part Part>
__device__ inline int gemv_matrices(const gemv_args& p) noexcept {
  return Part == gemv_part::product ? 1 : Part == gemv_part::glu ? 2 : p.used;
}
template <gemv_part Part>
__device__ inline const std::byte* gemv_matrix(const gemv_args& p, const gemv_work& work, int m) noexcept {
  if (Part == gemv_part::product || m == 0) return work.matrix;
  if (Part == gemv_part::glu) return p.up + (work.matrix - p.weights);
  return p.weights + p.ids[work.token * p.ids_stride + m] * p.expert_stride;
}

/// Which stage comes next.
struct gemv_position {
  int slot, parity;
  __device__ void advance(int stages) noexcept {
    if (++slot == stages) slot = 0, parity ^= 1;
  }
};

/// Fills the ring with the rows of the block; by one thread.
template <block_format F, gemv_part Part>
__device__ inline void gemv_copy(const gemv_args& p, const gemv_work& work, const gemv_ring& ring) noexcept {
  const std::int64_t row_size = row_bytes<F>(p.cols);
  const int step = p.plan.stage_rows();
  gemv_position at{0, 1};
  for (int m = 0; m < gemv_matrices<Part>(p); ++m) {
    const std::byte* matrix = gemv_matrix<Part>(p, work, m);
    const std::byte* end = matrix + p.row_stride * (p.rows - 1) + row_size;
    for (int row = work.first; row < work.last; row += step) {
      ptx::wait_barrier(ring.empty(at.slot), at.parity);
      const std::byte* begin = matrix + p.row_stride * row;
      ring.fill(at.slot, begin, begin + p.row_stride * (min(step, work.last - row) - 1) + row_size, end);
      at.advance(p.plan.stages);
    }
  }
}

/// Multiplies the segment of a warp of the block's rows of a matrix; results to partial[vector][row][segment].
template <block_format F, int Align, int N>
__device__ inline void gemv_multiply(const gemv_args& p, const gemv_work& work, const std::byte* matrix,
                                     const gemv_ring& ring, gemv_position& position,
                                     const gemv_fragment<F> (&x)[N], const gemv_tables<F>& tables, int group,
                                     int segment, int team, int lane, float* partial) noexcept {
  const gemv_plan& plan = p.plan;
  const int count = work.last - work.first, step = plan.stage_rows();
  const int together = plan.together(), my_row = lane >> 2 >> plan.log_groups;
  const int stride = static_cast<int>(p.row_stride);
  for (int row = 0; row < count; row += step) {
    ptx::wait_barrier(ring.full(position.slot), position.parity);
    const int here = min(step, count - row);
    const auto address = reinterpret_cast<std::uintptr_t>(matrix + p.row_stride * (work.first + row));
    const std::uint8_t* stage = ring.slot(position.slot) + (address & 15);
    for (int i = 2 * together * team; i < here; i += plan.pass_rows()) {
      float sums[2][N] = {};
#pragma unroll
      for (int u = 0; u < 2; ++u) {
        const std::uint8_t* data = stage + min(i + u * together + my_row, here - 1) * stride;
        const float scale = row_scale<F>(reinterpret_cast<const std::byte*>(data));
        const std::uint8_t* at = data + F::layout.row_meta + group * group_size<F>;
        const int skew = Align >= 4 ? 0 : static_cast<int>(reinterpret_cast<std::uintptr_t>(at) & 3);
        gemv_group<F, N>(group_bytes<Align>{reinterpret_cast<const std::uint32_t*>(at - skew), skew}, scale,
                         x, tables, lane, sums[u]);
      }
#pragma unroll
      for (int n = 0; n < N; ++n) {
        const float s = sum_pair(sums[0][n] * x[n].scale, sums[1][n] * x[n].scale, plan.groups(), lane);
        const int r = i + (lane & 1) * together + my_row;
        if ((lane & (4 * plan.groups() - 1)) < 2 && r < here)
          partial[(n * count + row + r) * plan.segments + segment] = s;
      }
    }
    __syncwarp();
    if (lane == 0) ptx::arrive(ring.empty(position.slot));
    position.advance(plan.stages);
  }
}

/// Rounds the vectors of the block, `stride` floats apart, some groups per warp at a time, so that their reads
/// overlap. Single: there is one.
template <block_format F, bool Single>
__device__ inline void gemv_round(const gemv_args& p, const float* x, std::int64_t stride, int vectors,
                                  std::uint8_t* codes, float* scales, int warp, int warps,
                                  int lane) noexcept {
  constexpr int batch = Single ? 4 : 8;
  const int real = p.cols / group_weights, groups = p.plan.groups() * p.plan.segments;
  // Every warp takes part once, whether there is a group for it or not: the copying warp waits for all.
  int from = warp;
  do {
    float v[batch][8] = {};
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      const int at = from + i * warps, n = Single ? 0 : at / groups, group = at - n * groups;
      if (at < vectors * groups && group < real)
        load_fragment_values<F>(x + n * stride + group * group_weights, lane, v[i]);
    }
    // The vectors are asked for before the weights, behind which they would queue.
    if (from == warp) ptx::arrive_threads(gemv_ring::vectors_asked, 32 * (warps + 1));
#pragma unroll
    for (int i = 0; i < batch; ++i) {
      const int at = from + i * warps;
      if (at >= vectors * groups) break;
      const float scale = round_values(v[i], reinterpret_cast<uint2*>(codes + at * group_weights), lane);
      if (lane == 0) scales[at] = scale;
    }
    from += batch * warps;
  } while (from < vectors * groups);
}

/// The codes of vectors that gemv_prepare has rounded; one too many repeats the last one. Groups behind the
/// row have a scale of zero.
template <block_format F, int N>
__device__ inline void gemv_load_prepared(const gemv_args& p, int group, int t,
                                          gemv_fragment<F> (&x)[N]) noexcept {
  const int groups = p.cols / group_weights, at = min(group, groups - 1);
#pragma unroll
  for (int n = 0; n < N; ++n) {
    const std::int64_t i = static_cast<std::int64_t>(min(n, p.n - 1)) * groups + at;
    x[n].load(p.codes + i * group_weights, group < groups ? p.scales[i] : 0.0f, t);
  }
}

/// What the block at this place of the grid works on.
template <gemv_part Part>
__device__ inline gemv_work gemv_find(const gemv_args& p) noexcept {
  gemv_work work{};
  work.first = static_cast<int>(static_cast<std::int64_t>(p.rows) * blockIdx.x / gridDim.x);
  work.last = static_cast<int>(static_cast<std::int64_t>(p.rows) * (blockIdx.x + 1) / gridDim.x);
  const int y = static_cast<int>(blockIdx.y);
  bool found = true;
  if constexpr (Part == gemv_part::mix) {
    work.token = y;
    for (int j = 0; j < p.used; ++j) {
      const int e = p.ids[work.token * p.ids_stride + j];
      found = found && e >= 0 && e < p.experts;
    }
    work.expert = p.ids[work.token * p.ids_stride];
  } else if (p.ids) {
    work.token = y / p.used, work.slot = y % p.used;
    work.expert = p.ids[work.token * p.ids_stride + work.slot];
    found = work.expert >= 0 && work.expert < p.experts;
  }
  work.x = p.x + work.token * p.token_stride + work.slot * p.slot_stride;
  work.out = p.out + work.token * p.out_token_stride + work.slot * p.out_slot_stride;
  if (found) work.matrix = p.weights + work.expert * p.expert_stride;
  return work;
}

__device__ inline float gated(const gated_unit& unit, float g, float u) noexcept {
  // NaN stays what it is.
  if (g > unit.limit) g = unit.limit;
  if (u > unit.limit) u = unit.limit;
  if (u < -unit.limit) u = -unit.limit;
  return g / (1 + __expf(-unit.alpha * g)) * (u + unit.shift);
}

/// Writes what the block's products make, from partial[product][row][segment].
template <gemv_part Part>
__device__ inline void gemv_store(const gemv_args& p, const gemv_work& work, const float* partial,
                                  int thread) noexcept {
  const int count = work.last - work.first, segments = p.plan.segments;
  const auto sum_of = [&](int i) {
    float sum = 0;
    for (int s = 0; s < segments; ++s) sum += partial[i * segments + s];
    return sum;
  };
  const auto bias_of = [&](const float* bias, int expert, int r) {
    return bias ? bias[static_cast<std::int64_t>(expert) * p.rows + work.first + r] : 0.0f;
  };
  const int results = Part == gemv_part::product ? p.n * count : count;
  for (int i = thread; i < results; i += static_cast<int>(blockDim.x)) {
    if constexpr (Part == gemv_part::product) {
      const int n = i / count, r = i - n * count;
      work.out[n * p.out_stride + work.first + r] = sum_of(i);
    } else if constexpr (Part == gemv_part::glu) {
      work.out[work.first + i] = gated(p.unit, sum_of(i) + bias_of(p.bias, work.expert, i),
                                       sum_of(count + i) + bias_of(p.up_bias, work.expert, i));
    } else {
      float sum = 0;
      for (int m = 0; m < p.used; ++m)
        sum += p.shares[work.token * p.shares_stride + m] *
               (sum_of(m * count + i) + bias_of(p.bias, p.ids[work.token * p.ids_stride + m], i));
      work.out[work.first + i] = sum;
    }
  }
}

}  // namespace detail

/// Rounds vectors for gemv_kernel: one warp per group of 256.
template <block_format F>
__global__ void gemv_prepare(const float* x, std::int64_t x_stride, int n, int cols, std::uint8_t* codes,
                             float* scales) {
  ptx::wait_for_prerequisites();
  ptx::launch_dependents();
  const int groups = cols / group_weights;
  const int i = static_cast<int>((blockIdx.x * blockDim.x + threadIdx.x) / 32), lane = threadIdx.x % 32;
  if (i >= n * groups) return;
  float v[8];
  detail::load_fragment_values<F>(x + i / groups * x_stride + i % groups * group_weights, lane, v);
  const float scale = detail::round_values(
      v, reinterpret_cast<uint2*>(codes + static_cast<std::int64_t>(i) * group_weights), lane);
  if (lane == 0) scales[i] = scale;
}

template <block_format F, int Align, int N, gemv_part Part = gemv_part::product>
__global__ void __launch_bounds__(32 * (gemv_limits_of<F, N>().warps + 1),
                                  gemv_limits_of<F, N>().fitting_blocks)
    gemv_kernel(const __grid_constant__ gemv_args p) {
  static_assert(N == 1 || Part == gemv_part::product);
  if constexpr (!ptx::hopper) {
    ptx::trap();
  } else {
    extern __shared__ __align__(128) std::uint8_t gemv_memory[];
    constexpr bool rounds = gemv_rounds(N);
    const int thread = ptx::thread_index(), warp = thread / 32, lane = thread % 32, warps = p.plan.warps();
    const int matrices = detail::gemv_matrices<Part>(p);
    const int vectors = Part == gemv_part::mix ? matrices : rounds ? N : 0;
    const detail::gemv_shared at(p.plan, vectors, N * matrices, (p.rows + gridDim.x - 1) / gridDim.x);
    auto* scales = reinterpret_cast<float*>(gemv_memory + at.scales);
    auto* partial = reinterpret_cast<float*>(gemv_memory + at.partial);
    const detail::gemv_ring ring(gemv_memory, at, p.plan);
    ptx::launch_dependents();
    if (thread == 32 * warps) ring.init();
    detail::gemv_tables<F>::fill(gemv_memory + at.tables, thread, static_cast<int>(blockDim.x));
    __syncthreads();
    // The kernel that prepares vectors has waited already, and only then lets this one start.
    if constexpr (rounds) ptx::wait_for_prerequisites();
    const detail::gemv_work work = detail::gemv_find<Part>(p);
    if (!work.matrix) {
      for (int r = work.first + thread; r < work.last; r += blockDim.x)
        work.out[r] = __int_as_float(0x7fffffff);
      return;
    }
    if (warp == warps) {
      if constexpr (rounds) ptx::sync_threads(detail::gemv_ring::vectors_asked, 32 * (warps + 1));
      if (lane == 0) detail::gemv_copy<F, Part>(p, work, ring);
    } else {
      const int segment = warp % p.plan.segments, groups = p.plan.groups() * p.plan.segments;
      const int group = segment * p.plan.groups() + (lane >> 2 & (p.plan.groups() - 1));
      detail::gemv_fragment<F> x[N];
      const auto load_rounded = [&](int first) {
#pragma unroll
        for (int n = 0; n < N; ++n) {
          const int i = (first + n) * groups + group;
          x[n].load(gemv_memory + at.codes + i * group_weights, scales[i], lane & 3);
        }
      };
      if constexpr (rounds) {
        constexpr bool single = N == 1 && Part != gemv_part::mix;
        const std::int64_t stride = Part == gemv_part::mix ? p.slot_stride : p.x_stride;
        detail::gemv_round<F, single>(p, work.x, stride, vectors, gemv_memory + at.codes, scales, warp, warps,
                                      lane);
        ptx::sync_threads(detail::gemv_ring::vectors_rounded, 32 * warps);
        load_rounded(0);
      } else {
        ptx::wait_for_prerequisites();
        detail::gemv_load_prepared<F, N>(p, group, lane & 3, x);
      }
      const detail::gemv_tables<F> tables(ptx::shared_address(gemv_memory + at.tables), lane);
      detail::gemv_position position{0, 0};
      for (int m = 0; m < matrices; ++m) {
        if (Part == gemv_part::mix && m > 0) load_rounded(m);
        // Groups behind the row have codes of zero; they meet the bytes of the last one.
        detail::gemv_multiply<F, Align, N>(p, work, detail::gemv_matrix<Part>(p, work, m), ring, position, x,
                                           tables, min(group, p.cols / group_weights - 1), segment,
                                           warp / p.plan.segments, lane,
                                           partial + m * (work.last - work.first) * p.plan.segments);
      }
    }
    __syncthreads();
    detail::gemv_store<Part>(p, work, partial, thread);
  }
}

}  // namespace quantal::cuda
