// The preconditions of the entry points, on the CPU and on a device: shapes, strides and memory that must not
// overlap. What a caller may pass is decided here and nowhere else. All inline: the units of an arch share no
// function.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "quantal/config.hpp"
#include "quantal/format.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/status.hpp"

namespace quantal::checks {

/// No dimension of a product may be larger: counts of columns, tasks and pairs then fit an int.
inline constexpr std::int64_t largest_dimension = std::numeric_limits<std::int32_t>::max() / 2;

/// Sizes that stay at the largest number instead of wrapping. No workspace is that large.
class capped_size {
 public:
  QUANTAL_INLINE constexpr capped_size(std::int64_t v) noexcept
      : v_(v < 0 ? largest : static_cast<std::uint64_t>(v)) {}
  QUANTAL_INLINE constexpr std::size_t value() const noexcept {
    return v_ < largest ? static_cast<std::size_t>(v_) : largest;
  }

  QUANTAL_INLINE friend constexpr capped_size operator+(capped_size a, capped_size b) noexcept {
    return of(b.v_ > largest - a.v_ ? largest : a.v_ + b.v_);
  }
  QUANTAL_INLINE friend constexpr capped_size operator*(capped_size a, capped_size b) noexcept {
    return of(b.v_ != 0 && a.v_ > largest / b.v_ ? largest : a.v_ * b.v_);
  }

 private:
  static constexpr std::uint64_t largest = std::numeric_limits<std::size_t>::max();
  QUANTAL_INLINE static constexpr capped_size of(std::uint64_t v) noexcept {
    capped_size s(0);
    s.v_ = v;
    return s;
  }
  std::uint64_t v_;
};

/// Memory of a matrix or a stack of them: outer * inner runs of `run` bytes; strides are bytes. A count of 1
/// leaves its stride without meaning.
struct region {
  const void* data;
  std::int64_t outer, outer_stride, inner, inner_stride, run;

  QUANTAL_INLINE constexpr bool empty() const noexcept { return outer <= 0 || inner <= 0 || run <= 0; }
  QUANTAL_INLINE constexpr capped_size size() const noexcept {
    return capped_size(outer > 1 ? outer - 1 : 0) * outer_stride +
           capped_size(inner > 1 ? inner - 1 : 0) * inner_stride + run;
  }
  /// Lies within an address space.
  QUANTAL_INLINE constexpr bool addressable() const noexcept {
    return empty() || size().value() < std::numeric_limits<std::size_t>::max() / 4;
  }
};

namespace detail {

/// `count` runs at addresses.
struct runs {
  std::int64_t first, count, stride, run;
};
QUANTAL_INLINE std::int64_t address(const region& r) noexcept {
  return static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(r.data));
}
QUANTAL_INLINE runs runs_of(const region& r, std::int64_t inner) noexcept {
  const bool several = r.outer > 1 && r.outer_stride > 0;
  return {address(r) + inner * r.inner_stride, several ? r.outer : 1, several ? r.outer_stride : 1, r.run};
}
/// One run against many.
QUANTAL_INLINE constexpr bool meet(std::int64_t at, std::int64_t length, const runs& r) noexcept {
  const std::int64_t beyond = at - r.run - r.first;  // runs that begin at or before this end before `at`
  const std::int64_t k = beyond < 0 ? 0 : beyond / r.stride + 1;
  return k < r.count && r.first + k * r.stride < at + length;
}
QUANTAL_INLINE constexpr bool meet(const runs& x, const runs& y) noexcept {
  const runs &few = x.count < y.count ? x : y, &many = x.count < y.count ? y : x;
  for (std::int64_t i = 0; i < few.count; ++i)
    if (meet(few.first + i * few.stride, few.run, many)) return true;
  return false;
}
QUANTAL_INLINE constexpr region longer_outside(const region& r) noexcept {
  return r.outer >= r.inner ? r : region{r.data, r.inner, r.inner_stride, r.outer, r.outer_stride, r.run};
}

}  // namespace detail

/// Do two addressable regions share a byte? Runs in the gaps of others do not; to find that out takes time
/// only where regions are interleaved.
QUANTAL_INLINE bool overlap(const region& x, const region& y) noexcept {
  if (!x.data || !y.data || x.empty() || y.empty()) return false;
  const std::int64_t at = detail::address(x), other = detail::address(y);
  if (at + static_cast<std::int64_t>(x.size().value()) <= other ||
      other + static_cast<std::int64_t>(y.size().value()) <= at)
    return false;
  const region a = detail::longer_outside(x), b = detail::longer_outside(y);
  for (std::int64_t i = 0; i < a.inner; ++i)
    for (std::int64_t j = 0; j < b.inner; ++j)
      if (detail::meet(detail::runs_of(a, i), detail::runs_of(b, j))) return true;
  return false;
}

/// What of a format decides how long its rows are.
struct row_layout {
  int elements, row_meta, bytes;
  QUANTAL_INLINE constexpr std::int64_t row_bytes(std::int64_t cols) const noexcept {
    return row_meta + cols / elements * bytes;
  }
};
QUANTAL_INLINE constexpr row_layout rows_of(const block_layout& f) noexcept {
  return {f.elements, f.row_meta, f.bytes};
}
template <any_format F>
inline constexpr row_layout row_layout_of = rows_of(F::layout);

/// One matrix, or a stack, as GGUF stores them.
struct weight_stack {
  const std::byte* data;
  std::int64_t experts, rows, cols, row_stride, expert_stride;

  QUANTAL_INLINE constexpr region memory(const row_layout& f) const noexcept {
    return {data, experts, expert_stride, rows, row_stride, f.row_bytes(cols)};
  }
};
QUANTAL_INLINE constexpr weight_stack weights_of(const mul_mat_args& a) noexcept {
  return {a.weights, 1, a.rows, a.cols, a.weight_row_stride, 0};
}
QUANTAL_INLINE constexpr weight_stack weights_of(const mul_mat_id_args& a) noexcept {
  return {a.weights, a.experts, a.rows, a.cols, a.weight_row_stride, a.expert_stride};
}

QUANTAL_INLINE constexpr bool dimension(std::int64_t n) noexcept { return n >= 0 && n <= largest_dimension; }

QUANTAL_INLINE constexpr status check_weights(const row_layout& f, const weight_stack& w) noexcept {
  if (!dimension(w.experts) || w.experts == 0) return status::bad_shape;
  if (!dimension(w.rows) || !dimension(w.cols) || w.cols == 0 || w.cols % f.elements != 0)
    return status::bad_shape;
  if (w.rows == 0) return status::ok;
  if (!w.data) return status::null_pointer;
  const std::int64_t row = f.row_bytes(w.cols);
  if (w.row_stride < row) return status::bad_stride;
  const region one{w.data, 1, 0, w.rows, w.row_stride, row};
  if (!one.addressable()) return status::bad_stride;
  if (w.experts > 1 && w.expert_stride < static_cast<std::int64_t>(one.size().value()))
    return status::bad_stride;
  return w.memory(f).addressable() ? status::ok : status::bad_stride;
}

/// Vectors of `length` floats, `n` of them; a single one may have any stride.
QUANTAL_INLINE constexpr region vectors(const float* data, std::int64_t n, std::int64_t stride,
                                        std::int64_t length) noexcept {
  return {data, 1, 0, n, n > 1 ? 4 * stride : 0, 4 * length};
}
/// Vectors of tokens * slots.
QUANTAL_INLINE constexpr region vectors(const float* data, std::int64_t tokens, std::int64_t token_stride,
                                        std::int64_t slots, std::int64_t slot_stride,
                                        std::int64_t length) noexcept {
  return {data,      tokens, tokens > 1 ? 4 * token_stride : 0, slots, slots > 1 ? 4 * slot_stride : 0,
          4 * length};
}

/// A stride in floats whose bytes can be counted.
QUANTAL_INLINE constexpr bool stride(std::int64_t s, std::int64_t least) noexcept {
  return s >= least && s <= std::numeric_limits<std::int64_t>::max() / 8;
}

QUANTAL_INLINE constexpr region activations_of(const mul_mat_args& a) noexcept {
  return vectors(a.activations, a.n, a.activation_stride, a.cols);
}
QUANTAL_INLINE constexpr region results_of(const mul_mat_args& a) noexcept {
  return vectors(a.out, a.n, a.out_stride, a.rows);
}
QUANTAL_INLINE constexpr region activations_of(const mul_mat_id_args& a) noexcept {
  return vectors(a.activations, a.tokens, a.token_stride, a.slot_stride == 0 ? 1 : a.used, a.slot_stride,
                 a.cols);
}
QUANTAL_INLINE constexpr region results_of(const mul_mat_id_args& a) noexcept {
  return vectors(a.out, a.tokens, a.out_token_stride, a.used, a.out_slot_stride, a.rows);
}
QUANTAL_INLINE constexpr region ids_of(const mul_mat_id_args& a) noexcept {
  return {a.ids, 1, 0, a.tokens, a.tokens > 1 ? 4 * a.ids_stride : 0, 4 * a.used};
}

QUANTAL_INLINE constexpr bool nothing_to_do(const mul_mat_args& a) noexcept {
  return a.n == 0 || a.rows == 0;
}
QUANTAL_INLINE constexpr bool nothing_to_do(const mul_mat_id_args& a) noexcept {
  return a.tokens == 0 || a.used == 0 || a.rows == 0;
}

/// Everything but the weights, which may be packed.
QUANTAL_INLINE status check_vectors(const mul_mat_args& a) noexcept {
  if (!dimension(a.n)) return status::bad_shape;
  if (nothing_to_do(a)) return status::ok;
  if (!a.activations || !a.out) return status::null_pointer;
  if (a.n > 1 && (!stride(a.activation_stride, a.cols) || !stride(a.out_stride, a.rows)))
    return status::bad_stride;
  if (!activations_of(a).addressable() || !results_of(a).addressable()) return status::bad_stride;
  return overlap(results_of(a), activations_of(a)) ? status::overlap : status::ok;
}
QUANTAL_INLINE status check_vectors(const mul_mat_id_args& a) noexcept {
  if (!dimension(a.tokens) || !dimension(a.used)) return status::bad_shape;
  if (nothing_to_do(a)) return status::ok;
  if (a.tokens > largest_dimension / a.used) return status::bad_shape;
  if (!a.activations || !a.out || !a.ids) return status::null_pointer;
  const bool several = a.tokens > 1, slots = a.used > 1;
  if (several &&
      (!stride(a.ids_stride, a.used) || !stride(a.token_stride, 0) || !stride(a.out_token_stride, a.rows)))
    return status::bad_stride;
  if (slots && !stride(a.out_slot_stride, a.rows)) return status::bad_stride;
  if (a.slot_stride != 0 && !stride(a.slot_stride, a.cols)) return status::bad_stride;
  if (!activations_of(a).addressable() || !results_of(a).addressable() || !ids_of(a).addressable())
    return status::bad_stride;
  // The results of a token lie between those of the next, or those of a slot do.
  if (several && slots && a.out_token_stride < (a.used - 1) * a.out_slot_stride + a.rows &&
      a.out_slot_stride < (a.tokens - 1) * a.out_token_stride + a.rows)
    return status::bad_stride;
  return overlap(results_of(a), activations_of(a)) || overlap(results_of(a), ids_of(a)) ? status::overlap
                                                                                        : status::ok;
}

/// All arguments of a product of plain weights; ids are looked at later.
template <class Args>
QUANTAL_INLINE status check_product(const row_layout& f, const Args& a) noexcept {
  if (const status s = check_weights(f, weights_of(a)); s != status::ok) return s;
  if (const status s = check_vectors(a); s != status::ok) return s;
  return !nothing_to_do(a) && overlap(results_of(a), weights_of(a).memory(f)) ? status::overlap : status::ok;
}

/// The workspace of a product, of which `needed` bytes are used. Weights may be packed: null is not looked
/// at.
template <class Args>
QUANTAL_INLINE status check_workspace(const Args& a, const region& weights, const void* data,
                                      std::size_t size, std::size_t needed) noexcept {
  if (size < needed) return status::small_workspace;
  if (needed && !data) return status::null_pointer;
  const region w{data, 1, 0, 1, 0, static_cast<std::int64_t>(needed)};
  bool shared = overlap(w, activations_of(a)) || overlap(w, results_of(a)) || overlap(w, weights);
  if constexpr (requires { a.ids; }) shared = shared || overlap(w, ids_of(a));
  return shared ? status::overlap : status::ok;
}

/// A stack of matrices and the `size` bytes at `data` that it is packed into.
QUANTAL_INLINE status check_packing(const row_layout& f, const weight_stack& w, const void* data,
                                    std::size_t size, std::size_t needed) noexcept {
  if (const status s = check_weights(f, w); s != status::ok) return s;
  if (size < needed) return status::small_workspace;
  if (needed && !data) return status::null_pointer;
  const region memory{data, 1, 0, 1, 0, static_cast<std::int64_t>(needed)};
  return overlap(memory, w.memory(f)) ? status::overlap : status::ok;
}

/// Rows of a matrix as float32.
QUANTAL_INLINE status check_decoding(const row_layout& f, const weight_stack& w, const float* out,
                                     std::int64_t out_stride) noexcept {
  if (const status s = check_weights(f, w); s != status::ok || w.rows == 0) return s;
  if (!out) return status::null_pointer;
  if (w.rows > 1 && !stride(out_stride, w.cols)) return status::bad_stride;
  const region results = vectors(out, w.rows, out_stride, w.cols);
  if (!results.addressable()) return status::bad_stride;
  return overlap(results, w.memory(f)) ? status::overlap : status::ok;
}

/// One row of `cols` weights between floats and a format.
QUANTAL_INLINE status check_row(const row_layout& f, const void* row, const float* x, const float* importance,
                                std::int64_t cols) noexcept {
  if (cols < 0 || cols % f.elements != 0 || cols > std::numeric_limits<std::int64_t>::max() / 16)
    return status::bad_shape;
  if (!x || !row) return status::null_pointer;
  const auto apart = [](const void* a, std::int64_t a_bytes, const void* b,
                        std::int64_t b_bytes) QUANTAL_LAMBDA {
    const auto at = reinterpret_cast<std::uintptr_t>(a), other = reinterpret_cast<std::uintptr_t>(b);
    return at + static_cast<std::uintptr_t>(a_bytes) <= other ||
           other + static_cast<std::uintptr_t>(b_bytes) <= at;
  };
  const std::int64_t bytes = f.row_bytes(cols);
  return apart(row, bytes, x, 4 * cols) && (!importance || apart(row, bytes, importance, 4 * cols))
             ? status::ok
             : status::overlap;
}

}  // namespace quantal::checks
