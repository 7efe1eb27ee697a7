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
  { F::name } -> std::convertible_to<std::string_view>;       // spelled as on command lines: "q4_K"
  { F::gguf_id } -> std::convertible_to<std::uint32_t>;       // tensor type number in GGUF files
  { F::layout } -> std::convertible_to<block_layout>;
  { F::usage } -> std::convertible_to<role>;
  typename F::block;
} && std::is_trivially_copyable_v<typename F::block> && alignof(typename F::block) == 1 &&
    sizeof(typename F::block) == static_cast<std::size_t>(F::layout.bytes) &&
    F::layout.elements % F::layout.group == 0;

/// A quantized format: integer codes with scales (and offsets) per group.
template <class F>
concept block_format = format<F> && requires(const typename F::block& b, float row_scale, int i) {
  { F::code(b, i) } -> std::same_as<int>;
  { F::scale(b, row_scale, i) } -> std::same_as<float>;
} && (!F::layout.has_offset || requires(const typename F::block& b, float row_scale, int i) {
  { F::offset(b, row_scale, i) } -> std::same_as<float>;
}) && (F::layout.row_meta == 0 || requires(const std::byte* row) {
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

/// Bytes of a row of `cols` weights; `cols` must be a multiple of F::layout.elements.
template <format F>
constexpr std::int64_t row_bytes(std::int64_t cols) noexcept {
  return F::layout.row_meta + cols / F::layout.elements * F::layout.bytes;
}

/// The scale in front of a row, 1 for formats without row metadata.
template <block_format F>
QUANTAL_HD float row_scale(const std::byte* row) noexcept {
  if constexpr (F::layout.row_meta > 0) return F::row_scale(row);
  else return 1.0f;
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
  if constexpr (F::layout.has_offset) return product + F::offset(b, row_scale, g);
  else return product;
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
