// What readers of weights hand to tensor-core instructions, and the reader that is right for every format.
//
// Rows are consumed in chunks of 32 weights. Four lanes share a row's chunk and each holds eight codes of it:
// a lane's part of the A operand of mma, two words of unsigned bytes code + bias. Which eight is the reader's
// choice (fragment_order), made so that they come from few aligned words; the activations are laid out in the
// same order, so it costs nothing.
#pragma once

#include <type_traits>

#include "quantal/code_bias.hpp"
#include "quantal/cuda/group_bytes.hpp"
#include "quantal/format.hpp"

namespace quantal::cuda {

/// Weights of a chunk (0..31) that lane t (0..3) holds; i = 0..7 numbers its codes.
enum class fragment_order {
  consecutive,  ///< 8 * t + i
  halves,       ///< 4 * t + i % 4 + 16 * (i / 4): low nibbles of four bytes, then their high nibbles
  interleaved,  ///< 4 * t + i / 2 + 16 * (i % 2): low and high nibble of each byte in turn
};

QUANTAL_HD constexpr int fragment_element(fragment_order order, int t, int i) noexcept {
  switch (order) {
    case fragment_order::halves:
      return 4 * t + i % 4 + 16 * (i / 4);
    case fragment_order::interleaved:
      return 4 * t + i / 2 + 16 * (i % 2);
    default:
      return 8 * t + i;
  }
}

/// Eight codes, byte i % 4 of the word of i < 4 or i >= 4.
struct fragment_codes {
  std::uint32_t low, high;
};

/// weight = scale * code + offset.
struct affine {
  float scale, offset;
};

static_assert(std::is_same_v<std::uint32_t, unsigned>, "device intrinsics take unsigned");

/// Weights per staged group of a row: blocks of every format divide it.
inline constexpr int group_weights = 256;
template <format F>
inline constexpr int group_blocks = group_weights / F::layout.elements;
template <format F>
inline constexpr int group_size = F::layout.bytes* group_blocks<F>;  ///< bytes

/// The alignment that rows of a format have whatever their number of columns.
template <format F>
constexpr int natural_alignment() noexcept {
  int a = 16;
  while (F::layout.bytes % a || F::layout.row_meta % a) a /= 2;
  return a;
}
/// The alignment of every group of 256 weights where rows begin at multiples of it.
template <format F>
constexpr int group_alignment() noexcept {
  int a = 16;
  while (group_size<F> % a || F::layout.row_meta % a) a /= 2;
  return a;
}

/// Codes by F::code(), weight by weight: for formats that have no better.
template <block_format F>
struct code_reader {
  static constexpr fragment_order order = fragment_order::consecutive;
  static constexpr int bias = code_bias<F>;
  static constexpr bool narrow = bias != 128;  ///< code + bias fits in 7 bits
  /// Decoding once more for every 256 vectors takes less time than writing the weights down and reading them.
  static constexpr bool quick = false;

  /// Lane t's codes of chunk C (0..7) of a group of 256 weights.
  template <int C, class Bytes>
  QUANTAL_HD static fragment_codes codes(const Bytes& bytes, int t) noexcept {
    constexpr int n = F::layout.elements;
    const auto& block = bytes.template block<F>(32 * C / n);
    fragment_codes o{0, 0};
    for (int i = 0; i < 4; ++i) {
      o.low |= static_cast<std::uint32_t>(F::code(block, 32 * C % n + 8 * t + i) + bias) << (8 * i);
      o.high |= static_cast<std::uint32_t>(F::code(block, 32 * C % n + 8 * t + 4 + i) + bias) << (8 * i);
    }
    return o;
  }
};

/// The reader of a format: hand-written where it is specialised, by the plan (planes.hpp) or by F::code()
/// elsewhere.
template <block_format F>
struct fragment_reader : code_reader<F> {};

}  // namespace quantal::cuda
