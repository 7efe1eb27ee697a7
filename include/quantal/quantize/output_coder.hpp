// A format and an arch as output-aware quantization sees them: pointers, so that one driver serves all.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantal/simd/as_written.hpp"
#include "quantal/status.hpp"

namespace quantal::quantize {

inline constexpr int code_group = 8;

/// Eight weights that choose together, the first at column `first` of the row.
struct group_target {
  const float* x;
  const float* y;
  const float* factor;  ///< U, row-major
  std::int64_t stride;  ///< of its rows
};

/// What the error of some weights costs when their scale or their offset moves, all codes staying. The
/// weights are scale * q + offset * u, and `residual` is what an error there meets: error * P.
struct scale_problem {
  double qq = 0, qu = 0, uu = 0;  ///< q P q, q P u, u P u
  double qr = 0, ur = 0;          ///< q . residual, u . residual
  float scale = 1, offset = 1;    ///< now

  /// What is removed of the error.
  double gain(double s, double o) const noexcept {
    const double a = s - scale, b = o - offset;
    return mul(a, 2 * qr - mul(a, qq) - mul(2 * b, qu)) + mul(b, 2 * ur - mul(b, uu));
  }
  /// The best scale for an offset, and the best offset for a scale.
  float best_scale(double o) const noexcept {
    return qq > 0 ? static_cast<float>(scale + (qr - mul(o - offset, qu)) / qq) : scale;
  }
  float best_offset(double s) const noexcept {
    return uu > 0 ? static_cast<float>(offset + (ur - mul(s - scale, qu)) / uu) : offset;
  }
  /// The best scale where the offset is free too.
  float best_joint_scale() const noexcept {
    const double det = mul(qq, uu) - mul(qu, qu);
    if (!(det > 1e-6 * qq * uu)) return best_scale(offset);
    return static_cast<float>(scale + (mul(uu, qr) - mul(qu, ur)) / det);
  }
};

/// Which weights share the scale that the scales of groups are multiples of.
enum class shared_scale : std::uint8_t { none, block, row };

/// A format, as the driver in output_aware.hpp sees it: one driver serves all.
struct output_coder {
  int elements;         ///< weights per block: cols is a multiple of it
  int bytes, row_meta;  ///< of a block, and before the blocks of a row
  int group;            ///< weights of one scale
  bool has_offset;
  int run;  ///< neighbours among eight weights that choose together: output_metric_options::run
  shared_scale shared;
  std::int64_t (*row_bytes)(std::int64_t cols) noexcept;
  status (*quantize)(const float* x, const float* importance, std::byte* row, std::int64_t cols) noexcept;
  void (*dequantize)(const std::byte* row, float* out, std::int64_t cols) noexcept;
  /// Stores the codes of eight weights and tells what they decode to.
  void (*choose)(std::byte* row, std::int64_t first, const group_target&, float* decoded) noexcept;
  /// `count` weights from `first` on, both multiples of 8.
  void (*decode)(const std::byte* row, std::int64_t first, std::int64_t count, float* out) noexcept;
  /// The codes of a group, and its scale and offset.
  void (*codes)(const std::byte* row, std::int64_t first, float* q, scale_problem&) noexcept;
  /// Stores a better scale (and offset) of the group; false if there is none.
  bool (*move_scale)(std::byte* row, std::int64_t first, const scale_problem&) noexcept;
  /// The same for what groups share; scale and offset are factors of what is stored.
  bool (*move_shared)(std::byte* row, std::int64_t first, const scale_problem&) noexcept;

  std::byte* block(std::byte* row, std::int64_t first) const noexcept {
    return row + row_meta + first / elements * bytes;
  }
};

/// y += e u. e: rows x k, u: k x cols, y: rows x cols, row-major with strides; cols is a multiple of 16.
template <class T>
using product_of = void (*)(const T* e, std::int64_t e_stride, const T* u, std::int64_t u_stride, T* y,
                            std::int64_t y_stride, int rows, std::int64_t k, std::int64_t cols) noexcept;
using row_product = product_of<float>;
using factor_product = product_of<double>;

/// Columns of `u` come in multiples of this.
inline constexpr int product_columns = 16;

}  // namespace quantal::quantize
