// Matrices as their owner has them: memory with its length, extents, and a stride where rows do not lie side
// by side. A product of views checks that the memory holds what the extents say, and is then the product of
// the same mul_mat_args. Views own nothing and allocate nothing.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <type_traits>
#include <utility>

#include "quantal/checks.hpp"
#include "quantal/executor.hpp"
#include "quantal/format.hpp"
#include "quantal/kernel/args.hpp"
#include "quantal/kernel/pack_args.hpp"
#include "quantal/status.hpp"

namespace quantal {

/// `rows` rows of `cols` values. Activations have a row per token, ids of experts too.
template <class T>
struct matrix_view {
  std::span<T> data;
  std::int64_t rows = 0, cols = 0;
  std::int64_t stride = 0;  ///< values between rows

  constexpr matrix_view() noexcept = default;
  /// Rows side by side.
  constexpr matrix_view(std::span<T> memory, std::int64_t row_count, std::int64_t col_count) noexcept
      : matrix_view(memory, row_count, col_count, col_count) {}
  constexpr matrix_view(std::span<T> memory, std::int64_t row_count, std::int64_t col_count,
                        std::int64_t row_stride) noexcept
      : data(memory), rows(row_count), cols(col_count), stride(row_stride) {}
  /// A view to read from, of one to write to.
  template <class U>
  requires std::same_as<const U, T>
  constexpr matrix_view(const matrix_view<U>& v) noexcept
      : data(v.data), rows(v.rows), cols(v.cols), stride(v.stride) {}
};
template <class Memory, class... Extents>
matrix_view(Memory&&, Extents...)
    -> matrix_view<std::remove_reference_t<decltype(*std::data(std::declval<Memory&>()))>>;

namespace checks {
/// Bytes of a row, 0 for lengths that no product takes.
QUANTAL_INLINE constexpr std::int64_t dense_row(const row_layout& f, std::int64_t cols) noexcept {
  return dimension(cols) ? f.row_bytes(cols) : 0;
}
/// `count` rows of `size` bytes or values, 0 where no product takes them. Rows of float32 have four bytes a
/// value.
QUANTAL_INLINE constexpr std::int64_t dense_matrix(std::int64_t size, std::int64_t count) noexcept {
  return size >= 0 && size <= 4 * largest_dimension && dimension(count) ? size * count : 0;
}
}  // namespace checks

/// A weight matrix of format F as GGUF stores it: `rows` rows of `cols` weights.
template <any_format F>
struct weight_view {
  std::span<const std::byte> data;
  std::int64_t rows = 0, cols = 0;  ///< cols: a multiple of the format's block
  std::int64_t stride = 0;          ///< bytes between rows

  constexpr weight_view() noexcept = default;
  /// Rows side by side.
  constexpr weight_view(std::span<const std::byte> memory, std::int64_t row_count,
                        std::int64_t col_count) noexcept
      : weight_view(memory, row_count, col_count, checks::dense_row(checks::row_layout_of<F>, col_count)) {}
  constexpr weight_view(std::span<const std::byte> memory, std::int64_t row_count, std::int64_t col_count,
                        std::int64_t row_stride) noexcept
      : data(memory), rows(row_count), cols(col_count), stride(row_stride) {}
};

/// A stack of matrices of one shape: the experts of mul_mat_id.
template <any_format F>
struct weight_stack_view {
  std::span<const std::byte> data;
  std::int64_t experts = 0, rows = 0, cols = 0;
  std::int64_t stride = 0;         ///< bytes between rows
  std::int64_t expert_stride = 0;  ///< bytes between matrices

  constexpr weight_stack_view() noexcept = default;
  /// Rows and matrices side by side.
  constexpr weight_stack_view(std::span<const std::byte> memory, std::int64_t expert_count,
                              std::int64_t row_count, std::int64_t col_count) noexcept
      : weight_stack_view(
            memory, expert_count, row_count, col_count,
            checks::dense_row(checks::row_layout_of<F>, col_count),
            checks::dense_matrix(checks::dense_row(checks::row_layout_of<F>, col_count), row_count)) {}
  constexpr weight_stack_view(std::span<const std::byte> memory, std::int64_t expert_count,
                              std::int64_t row_count, std::int64_t col_count, std::int64_t row_stride,
                              std::int64_t matrix_stride) noexcept
      : data(memory),
        experts(expert_count),
        rows(row_count),
        cols(col_count),
        stride(row_stride),
        expert_stride(matrix_stride) {}
};

/// `slots` vectors of `cols` values for each of `tokens` tokens: activations and results of mul_mat_id.
template <class T>
struct slots_view {
  std::span<T> data;
  std::int64_t tokens = 0, slots = 0, cols = 0;
  std::int64_t token_stride = 0, slot_stride = 0;  ///< values

  constexpr slots_view() noexcept = default;
  /// Slots and tokens side by side.
  constexpr slots_view(std::span<T> memory, std::int64_t token_count, std::int64_t slot_count,
                       std::int64_t col_count) noexcept
      : slots_view(memory, token_count, slot_count, col_count, checks::dense_matrix(col_count, slot_count),
                   col_count) {}
  constexpr slots_view(std::span<T> memory, std::int64_t token_count, std::int64_t slot_count,
                       std::int64_t col_count, std::int64_t between_tokens,
                       std::int64_t between_slots) noexcept
      : data(memory),
        tokens(token_count),
        slots(slot_count),
        cols(col_count),
        token_stride(between_tokens),
        slot_stride(between_slots) {}
  /// One vector per token, which all its slots share where it is an activation.
  constexpr slots_view(const matrix_view<T>& m) noexcept
      : slots_view(m.data, m.rows, 1, m.cols, m.stride, 0) {}
  template <class U>
  requires std::same_as<const U, T>
  constexpr slots_view(const matrix_view<U>& m) noexcept
      : slots_view(m.data, m.rows, 1, m.cols, m.stride, 0) {}
  template <class U>
  requires std::same_as<const U, T>
  constexpr slots_view(const slots_view<U>& v) noexcept
      : slots_view(v.data, v.tokens, v.slots, v.cols, v.token_stride, v.slot_stride) {}
};

/// Works on the calling thread alone.
inline serial_executor calling_thread;

/// How a product of views runs. The workspace is what mul_mat_workspace or its like says, in bytes.
struct product_options {
  activation policy = activation::q8;
  executor_ref executor = calling_thread;
  std::span<std::byte> workspace = {};
};

/// Preconditions of views, with those of checks.hpp behind them.
namespace checks {

/// Memory of `size` values against a region in values.
QUANTAL_INLINE constexpr status check_extents(std::size_t size, const region& r) noexcept {
  return r.empty() || r.size().value() <= size ? status::ok : status::short_buffer;
}

template <class T>
QUANTAL_INLINE constexpr status check_view(const matrix_view<T>& m) noexcept {
  if (!dimension(m.rows) || !dimension(m.cols)) return status::bad_shape;
  if (m.rows == 0 || m.cols == 0) return status::ok;
  if (!m.data.data()) return status::null_pointer;
  if (m.rows > 1 && !stride(m.stride, m.cols)) return status::bad_stride;
  return check_extents(m.data.size(), {nullptr, 1, 0, m.rows, m.rows > 1 ? m.stride : 0, m.cols});
}

template <class T>
QUANTAL_INLINE constexpr status check_view(const slots_view<T>& v) noexcept {
  if (!dimension(v.tokens) || !dimension(v.slots) || !dimension(v.cols)) return status::bad_shape;
  if (v.tokens == 0 || v.slots == 0 || v.cols == 0) return status::ok;
  if (!v.data.data()) return status::null_pointer;
  if (v.tokens > 1 && !stride(v.token_stride, 0)) return status::bad_stride;
  if (v.slots > 1 && !stride(v.slot_stride, 0)) return status::bad_stride;
  return check_extents(v.data.size(), {nullptr, v.tokens, v.tokens > 1 ? v.token_stride : 0, v.slots,
                                       v.slots > 1 ? v.slot_stride : 0, v.cols});
}

/// Weights of `size` bytes.
QUANTAL_INLINE constexpr status check_view(const row_layout& f, const weight_stack& w,
                                           std::size_t size) noexcept {
  if (const status s = check_weights(f, w); s != status::ok || w.rows == 0) return s;
  return check_extents(size, w.memory(f));
}

/// Without the length of the memory.
template <class W>
QUANTAL_INLINE constexpr weight_stack stack_of(const W& w) noexcept {
  if constexpr (requires { w.experts; })
    return {w.data.data(), w.experts, w.rows, w.cols, w.stride, w.expert_stride};
  else
    return {w.data.data(), 1, w.rows, w.cols, w.stride, 0};
}

/// The vectors of a product: each view by itself, then whether they fit together and the weights.
template <class W>
QUANTAL_INLINE constexpr status check_columns(const W& w, const matrix_view<const float>& x,
                                              const matrix_view<float>& out) noexcept {
  if (const status s = check_view(x); s != status::ok) return s;
  if (const status s = check_view(out); s != status::ok) return s;
  return x.cols == w.cols && out.cols == w.rows && out.rows == x.rows ? status::ok : status::bad_shape;
}
template <class W>
QUANTAL_INLINE constexpr status check_columns(const W& w, const slots_view<const float>& x,
                                              const matrix_view<const std::int32_t>& ids,
                                              const slots_view<float>& out) noexcept {
  if (const status s = check_view(x); s != status::ok) return s;
  if (const status s = check_view(ids); s != status::ok) return s;
  if (const status s = check_view(out); s != status::ok) return s;
  const bool tokens = x.tokens == ids.rows && out.tokens == ids.rows;
  const bool slots = (x.slots == 1 || x.slots == ids.cols) && out.slots == ids.cols;
  return tokens && slots && x.cols == w.cols && out.cols == w.rows ? status::ok : status::bad_shape;
}

/// Packed weights as args_of() takes weights: their shape alone, since their memory is their own matter.
struct packed_shape {
  std::span<const std::byte> data;
  std::int64_t experts, rows, cols, stride, expert_stride;
};
QUANTAL_INLINE constexpr packed_shape shape_of(const packed_weights& w) noexcept {
  return {{}, w.experts, w.rows, w.cols, 0, 0};
}

/// All views of a product; without vectors, the weights alone.
template <class W, class... Vectors>
QUANTAL_INLINE constexpr status check_views(const row_layout& f, const W& w,
                                            const Vectors&... vectors) noexcept {
  if (const status s = check_view(f, stack_of(w), w.data.size()); s != status::ok) return s;
  if constexpr (sizeof...(vectors) == 0)
    return status::ok;
  else
    return check_columns(w, vectors...);
}

}  // namespace checks

/// The arguments of a product of views, which have not been checked.
template <class W>
QUANTAL_INLINE constexpr mul_mat_args args_of(const W& w, const matrix_view<const float>& x,
                                              const matrix_view<float>& out) noexcept {
  return {w.data.data(), w.rows,   w.cols,          w.stride,  x.data.data(),
          x.rows,        x.stride, out.data.data(), out.stride};
}
template <class W>
QUANTAL_INLINE constexpr mul_mat_id_args args_of(const W& w, const slots_view<const float>& x,
                                                 const matrix_view<const std::int32_t>& ids,
                                                 const slots_view<float>& out) noexcept {
  return {.weights = w.data.data(),
          .experts = w.experts,
          .rows = w.rows,
          .cols = w.cols,
          .weight_row_stride = w.stride,
          .expert_stride = w.expert_stride,
          .activations = x.data.data(),
          .tokens = x.tokens,
          .token_stride = x.token_stride,
          .slot_stride = x.slots == 1 ? 0 : x.slot_stride,
          .ids = ids.data.data(),
          .used = ids.cols,
          .ids_stride = ids.stride,
          .out = out.data.data(),
          .out_token_stride = out.token_stride,
          .out_slot_stride = out.slot_stride};
}

}  // namespace quantal
