// Octets: the decode of a format as tensor-core fragments want it.
//
// Rows are consumed in chunks of 32 weights. Four lanes share a row's chunk and each decodes an octet of it:
// eight weights, as unsigned bytes code + bias in two words. Which eight is the format's choice
// (octet_order), made so that an octet comes from few aligned words; the activations are laid out in the same
// order, so it costs nothing.
//
// octets<F> as written here runs on F::code and F::scale and is right for every format; the headers in
// octets/ are specialisations over the stored fields. All of it compiles for the host too, where tests
// compare the two.
#pragma once

#include "quantal/code_bias.hpp"
#include "quantal/cuda/group_bytes.hpp"
#include "quantal/formats.hpp"

namespace quantal::cuda {

/// Weights of a chunk (0..31) that lane t (0..3) holds; i = 0..7 numbers them in the octet.
enum class octet_order {
  consecutive,  ///< 8 * t + i
  halves,       ///< 4 * t + i % 4 + 16 * (i / 4): low nibbles of four bytes, then their high nibbles
  interleaved,  ///< 4 * t + i / 2 + 16 * (i % 2): low and high nibble of each byte in turn
};

QUANTAL_HD constexpr int octet_element(octet_order order, int t, int i) noexcept {
  switch (order) {
    case octet_order::halves:
      return 4 * t + i % 4 + 16 * (i / 4);
    case octet_order::interleaved:
      return 4 * t + i / 2 + 16 * (i % 2);
    default:
      return 8 * t + i;
  }
}

/// Eight codes, byte i % 4 of the word of i < 4 or i >= 4.
struct octet {
  std::uint32_t low, high;
};

/// weight = scale * code + offset.
struct affine {
  float scale, offset;
};

/// Weights per staged group of a row: blocks of every format divide it.
inline constexpr int group_weights = 256;
template <format F>
inline constexpr int group_blocks = group_weights / F::layout.elements;
template <format F>
inline constexpr int group_size = group_blocks<F>* F::layout.bytes;  ///< bytes

/// What octets<F> has where a format has no better.
template <block_format F>
struct generic_octets {
  static constexpr octet_order order = octet_order::consecutive;
  static constexpr int bias = code_bias<F>;
  static constexpr bool narrow = bias != 128;  ///< code + bias fits in 7 bits
  /// Decoding once more for every 256 vectors takes less time than writing the weights down and reading them.
  static constexpr bool quick = narrow;

  /// Octet t of chunk C (0..7) of a group of 256 weights.
  template <int C, class Bytes>
  QUANTAL_HD static octet codes(const Bytes& bytes, int t) noexcept {
    constexpr int n = F::layout.elements;
    const auto& block = bytes.template block<F>(32 * C / n);
    octet o{0, 0};
    for (int i = 0; i < 4; ++i) {
      o.low |= static_cast<std::uint32_t>(F::code(block, 32 * C % n + 8 * t + i) + bias) << (8 * i);
      o.high |= static_cast<std::uint32_t>(F::code(block, 32 * C % n + 8 * t + 4 + i) + bias) << (8 * i);
    }
    return o;
  }

  /// Scale and offset of the weights F::layout.group * g .. of the 256; called once per scale by one lane.
  template <class Bytes>
  QUANTAL_HD static affine scale(const Bytes& bytes, float row_scale, int g) noexcept {
    constexpr int per_block = F::layout.groups();
    const auto& block = bytes.template block<F>(g / per_block);
    if constexpr (F::layout.has_offset)
      return {F::scale(block, row_scale, g % per_block), F::offset(block, row_scale, g % per_block)};
    else
      return {F::scale(block, row_scale, g % per_block), 0};
  }
};

template <block_format F>
struct octets : generic_octets<F> {};

/// Of formats whose codes take more than a few instructions: looked up, computed, or put together.
template <block_format F>
struct codeword_octets : generic_octets<F> {
  static constexpr bool quick = false;
};

/// Weights of a chunk that share a scale, as far as lanes see it: 16 or 32.
template <block_format F>
inline constexpr int chunk_group = F::layout.group < 32 ? F::layout.group : 32;

/// Whether the two words of an octet have scales of their own.
template <block_format F>
inline constexpr bool split_octets = F::layout.group < 32 && octets<F>::order == octet_order::halves;

static_assert(std::is_same_v<std::uint32_t, unsigned>, "device intrinsics take unsigned");

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

}  // namespace quantal::cuda

#include "quantal/cuda/octets/bits.hpp"
#include "quantal/cuda/octets/grids.hpp"
#include "quantal/cuda/octets/k.hpp"
#include "quantal/cuda/octets/legacy.hpp"
#include "quantal/cuda/octets/tables.hpp"
#include "quantal/cuda/octets/ternary.hpp"
#include "quantal/cuda/octets/trellis.hpp"
