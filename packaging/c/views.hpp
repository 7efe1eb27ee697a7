// Matrices of c.h as the library takes them, and in words.
#pragma once

#include <optional>
#include <string>

#include "failure.hpp"
#include "quantal/c.h"
#include "quantal/runtime.hpp"

namespace quantal::c {

/// Strides of 0 mean side by side.
inline std::int64_t stride_or(std::int64_t stride, std::int64_t dense) noexcept {
  return stride ? stride : dense;
}

template <class T>
matrix_view<T> view_of(const quantal_matrix& m) noexcept {
  return {{m.data, m.size}, m.rows, m.cols, stride_or(m.stride, m.cols)};
}
template <class T>
slots_view<T> view_of(const quantal_slots& v) noexcept {
  const std::int64_t slot = stride_or(v.slot_stride, v.cols);
  return {{v.data, v.size},
          v.tokens,
          v.slots,
          v.cols,
          stride_or(v.token_stride, checks::dense_matrix(slot, v.slots)),
          slot};
}
inline std::span<const std::byte> bytes_of(const quantal_weights& w) noexcept {
  return {static_cast<const std::byte*>(w.data), w.size};
}
inline runtime::weight_view view_of(const quantal_weights& w) noexcept {
  return {w.format, bytes_of(w), w.rows, w.cols,
          stride_or(w.stride, runtime::weight_view::dense_row(w.format, w.cols))};
}
inline runtime::weight_stack_view stack_of(const quantal_weights& w) noexcept {
  const std::int64_t row = stride_or(w.stride, runtime::weight_view::dense_row(w.format, w.cols));
  return {w.format,
          bytes_of(w),
          w.experts ? w.experts : 1,
          w.rows,
          w.cols,
          row,
          stride_or(w.expert_stride, checks::dense_matrix(row, w.rows))};
}

inline constexpr const char* bad_ids = "rows of ids are shorter than the slots of the result";
/// The ids of a product. The caller answers for their memory: their extents are those of the other operands. Nothing
/// where the rows of ids would overlap.
inline std::optional<matrix_view<const std::int32_t>> ids_of(const std::int32_t* ids, std::int64_t stride,
                                                             const quantal_slots& x,
                                                             const quantal_slots& out) noexcept {
  stride = stride_or(stride, out.slots);
  if (!checks::dimension(x.tokens) || !checks::dimension(out.slots) || !checks::dimension(stride) ||
      stride < out.slots)
    return std::nullopt;
  const auto count = static_cast<std::size_t>(x.tokens > 0 ? (x.tokens - 1) * stride + out.slots : 0);
  return matrix_view<const std::int32_t>(std::span(ids, count), x.tokens, out.slots, stride);
}

inline std::string shape(std::int64_t rows, std::int64_t cols) {
  return std::to_string(rows) + " x " + std::to_string(cols);
}
inline std::string describe(const quantal_matrix& m) {
  return shape(m.rows, m.cols) + " in " + std::to_string(m.size) + " values";
}
inline std::string describe(const quantal_slots& v) {
  return std::to_string(v.tokens) + " x " + shape(v.slots, v.cols) + " in " + std::to_string(v.size) +
         " values";
}
inline std::string describe(const quantal_weights& w) {
  const format_info* const f = find_format(w.format);
  return (f ? std::string(f->name) : "type " + std::to_string(w.format)) + " " +
         (w.experts > 1 ? std::to_string(w.experts) + " x " : "") + shape(w.rows, w.cols) + " in " +
         std::to_string(w.size) + " bytes";
}

/// Tells why a call with these operands failed.
template <class... Operands>
quantal_status refuse(status s, const char* function, std::string why, const Operands&... operands) {
  std::string between = ": ";
  ((why += between + describe(operands), between = ", "), ...);
  return fail(static_cast<quantal_status>(s), function, why);
}
/// A library status as a function of c.h answers it.
template <class... Operands>
quantal_status answer(status s, const char* function, const Operands&... operands) {
  return s == status::ok ? QUANTAL_OK : refuse(s, function, std::string(to_string(s)), operands...);
}

}  // namespace quantal::c
