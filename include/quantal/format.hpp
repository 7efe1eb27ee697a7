// What a format is: a compile-time description of its bytes plus one decode to small integers and scales.
//
//   weight[e] = scale(block, row_scale, e / group) * code(block, e) + offset(block, row_scale, e / group)
//
// code() is an integer that fits in int8. The offset exists only where layout.has_offset says so; without it
// the weight is the bare product (adding +0 would lose the sign of zero). Product and sum are IEEE float32 and
// rounded separately; spec classes E, R1 and R2 (formats.md section 1.4) all decode bit-exactly this way.
//
// Everything else derives from these three functions: dequantize, vec_dot, mul_mat, mul_mat_id, quantize, the
// CUDA kernels, tests, benches and tools. Faster decoders are overloads beside them, never instead of them.
#pragma once

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <type_traits>

#include "quantal/config.hpp"

namespace quantal {

/// Where a format may be used.
enum class role : std::uint8_t {
  weight,      ///< stored in model files
  activation,  ///< an in-memory format for right-hand sides; never stored in files
};

/// Layout constants of a format. A structural type: usable as a template argument and comparable.
struct block_layout {
  int elements;             ///< weights per block (super-block for K and IQ formats)
  int bytes;                ///< stored bytes per block
  int group;                ///< weights that share one scale (and offset); divides `elements`
  int row_meta = 0;         ///< bytes of row metadata in front of every row's blocks
  bool has_offset = false;  ///< weights have an additive term (q4_1, q2_K, q4_K, ...)

  constexpr int groups() const { return elements / group; }
  /// Bits per weight of the blocks alone.
  constexpr double bpw() const { return 8.0 * bytes / elements; }
  constexpr bool operator==(const block_layout&) const = default;
};

/// What every format says about itself.
template <class F>
concept format = requires {
  { F::name } -> std::convertible_to<std::string_view>;  // spelled as on command lines: "q4_K"
  { F::gguf_id } -> std::convertible_to<std::uint32_t>;  // tensor type number in GGUF files
  { F::layout } -> std::convertible_to<block_layout>;
  { F::usage } -> std::convertible_to<role>;
  typename F::block;
}
&&std::is_trivially_copyable_v<typename F::block> && alignof(typename F::block) == 1 &&
    sizeof(typename F::block) == static_cast<std::size_t>(F::layout.bytes) &&
    F::layout.elements % F::layout.group == 0;

/// A quantized format: integer codes with scales (and offsets) per group.
template <class F>
concept block_format = format<F> && requires(const typename F::block& b, float row_scale, int i) {
  { F::code(b, i) } -> std::same_as<int>;
  { F::scale(b, row_scale, i) } -> std::same_as<float>;
} &&(!F::layout.has_offset ||
     requires(const typename F::block& b, float row_scale, int i) {
       { F::offset(b, row_scale, i) } -> std::same_as<float>;
     }) &&
    (F::layout.row_meta == 0 || requires(const std::byte* row) {
      { F::row_scale(row) } -> std::same_as<float>;
    });

/// f32, f16, bf16: one element per block, decoded to its float value.
template <class F>
concept float_format = format<F> && F::layout.elements == 1 && requires(const typename F::block& b, float v) {
  { F::value(b) } -> std::same_as<float>;
  { F::from_float(v) } -> std::same_as<typename F::block>;
};

template <class F>
concept any_format = block_format<F> || float_format<F>;

/// What kernels rely on in a quantized format, beyond its functions. Each demand has a reason in the kernels.
namespace demands {

/// Kernels decode slices of 256 weights, which are whole blocks.
template <block_format F>
inline constexpr bool block_divides_slice = F::layout.elements > 0 && 256 % F::layout.elements == 0;
/// Activations are summed by 32 for the bias of codes and for offsets, so that rows are whole 32s.
template <block_format F>
inline constexpr bool block_of_32s = F::layout.elements % 32 == 0;
/// A slice has at most 16 scales; int8 products are added up within 16, 32 or 128 weights of one scale.
template <block_format F>
inline constexpr bool group_of_kernels =
    F::layout.group == 16 || F::layout.group == 32 || F::layout.group == 64 || F::layout.group % 128 == 0;
/// Codes are operands of int8 dot products. Formats that state their range are held to it.
template <block_format F>
constexpr bool codes_are_int8() noexcept {
  if constexpr (requires { F::min_code + F::max_code; })
    return F::min_code >= -128 && F::max_code <= 127 && F::min_code <= F::max_code;
  else
    return true;
}
/// Blocks lie side by side behind the metadata of their row.
template <block_format F>
inline constexpr bool bytes_in_rows = F::layout.bytes > 0 && F::layout.row_meta >= 0;

template <block_format F>
inline constexpr bool met =
    block_divides_slice<F>&& block_of_32s<F>&& group_of_kernels<F>&& codes_are_int8<F>() && bytes_in_rows<F>;

}  // namespace demands

/// A format that kernels multiply.
template <class F>
concept kernel_format = float_format<F> ||(block_format<F>&& demands::met<F>);

/// Says in one sentence what a format lacks: static_assert(check_format<my_format>()) behind its definition. The list
/// of formats and the products do so for each of theirs.
template <class F>
constexpr bool check_format() noexcept {
  static_assert(alignof(typename F::block) == 1,
                "quantal: a block is made of bytes, so that it may lie at any address");
  static_assert(std::is_trivially_copyable_v<typename F::block>, "quantal: a block is copied as bytes");
  static_assert(sizeof(typename F::block) == static_cast<std::size_t>(F::layout.bytes),
                "quantal: layout.bytes is the size of the block");
  static_assert(F::layout.elements % F::layout.group == 0, "quantal: the group divides the block");
  static_assert(any_format<F>,
                "quantal: a format has name, gguf_id, layout, usage, code(block, e), "
                "scale(block, row_scale, g), and where its layout says so offset(block, row_scale, g) "
                "and row_scale(row)");
  if constexpr (block_format<F>) {
    static_assert(demands::block_divides_slice<F>,
                  "quantal: the block divides 256 weights, a slice of the kernels");
    static_assert(demands::block_of_32s<F>, "quantal: the block is a multiple of 32 weights");
    static_assert(demands::group_of_kernels<F>, "quantal: a group is 16, 32, 64, 128 or 256 weights");
    static_assert(demands::codes_are_int8<F>(), "quantal: codes lie within int8, min_code before max_code");
    static_assert(demands::bytes_in_rows<F>, "quantal: a block has bytes and row metadata is not negative");
  }
  return kernel_format<F>;
}

/// Bytes of a row of `cols` weights; `cols` must be a multiple of F::layout.elements.
template <format F>
constexpr std::int64_t row_bytes(std::int64_t cols) noexcept {
  return F::layout.row_meta + cols / F::layout.elements * F::layout.bytes;
}

/// The scale in front of a row, 1 for formats without row metadata.
template <block_format F>
QUANTAL_HD float row_scale(const std::byte* row) noexcept {
  if constexpr (F::layout.row_meta > 0)
    return F::row_scale(row);
  else
    return 1.0f;
}

/// Blocks of a row, behind its metadata. Blocks have alignment 1: any byte address is valid.
template <format F>
QUANTAL_HD const typename F::block* row_blocks(const std::byte* row) noexcept {
  return reinterpret_cast<const typename F::block*>(row + F::layout.row_meta);
}
template <format F>
QUANTAL_HD typename F::block* row_blocks(std::byte* row) noexcept {
  return reinterpret_cast<typename F::block*>(row + F::layout.row_meta);
}

/// A format whose weights are not quite scale * code says so by a weight() of its own. It may differ in the sign of
/// zero only (iq3_kt has negative zeros, integers have none), so that products never need to know.
template <class F>
concept has_own_weight = requires(const typename F::block& b, float row_scale, int e) {
  { F::weight(b, row_scale, e) } -> std::same_as<float>;
};

/// Weight `e` of a block: the definition that every faster path must reproduce.
template <block_format F>
QUANTAL_HD constexpr float weight(const typename F::block& b, float row_scale, int e) noexcept {
  if constexpr (has_own_weight<F>) return F::weight(b, row_scale, e);
  const int g = e / F::layout.group;
  const float product = F::scale(b, row_scale, g) * static_cast<float>(F::code(b, e));
  if constexpr (F::layout.has_offset)
    return product + F::offset(b, row_scale, g);
  else
    return product;
}

/// A type list; `all_formats` (formats.hpp) is the one that the project folds over.
template <class... Fs>
struct format_list {
  static constexpr std::size_t size = sizeof...(Fs);

  /// Calls `f.template operator()<F>()` for every format of the list, in order.
  template <class Fn>
  static constexpr void for_each(Fn&& f) {
    (f.template operator()<Fs>(), ...);
  }
};

}  // namespace quantal
