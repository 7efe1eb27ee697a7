// iq2_xxs: 2.0625 bits per weight. Groups of 8 weights are vectors of a 256-entry grid with signs of even
// parity; 4-bit scales per 32 under one f16 per 256 (formats.md section 7).
//
//   offset 0   f16  d
//   offset 2   eight records of 8 bytes, one per 32 weights: u8 idx[4], u32 w
//              w: bits 7t..7t+6 sign index of 8-group t, bits 28..31 scale
//
//   weight[e] = ((d * (0.5 + s)) / 4) * (+-grid[idx[t]][k])
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/codebook/grid_iq2_xxs.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/signs7.hpp"

namespace quantal {

struct iq2_xxs : detail::odd_super_scaled<iq2_xxs> {
  static constexpr std::string_view name = "iq2_xxs";
  static constexpr std::uint32_t gguf_id = 16;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 66, .group = 32};
  static constexpr int min_code = -43, max_code = 43;

  struct record {
    std::uint8_t grid[4];
    detail::le_u32 w;
  };
  struct block {
    detail::half_bits d;
    record groups[8];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const record& r = b.groups[e / 32];
    const int t = e % 32 / 8, k = e % 8;
    const int magnitude = detail::grid_iq2_xxs(r.grid[t], k);
    return detail::bit(detail::signs7(detail::bits(r.w.get(), 7 * t, 7)), k) ? -magnitude : magnitude;
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return detail::bits(b.groups[g].w.get(), 28, 4);
  }

  // Grid and sub-scale parameters, as the quantizer sees them.
  static constexpr int vector = 8, grid_size = 256, max_sub_scale = 15;
  static constexpr bool even_signs = true;
  static constexpr float scale_unit = 0.125f;  ///< scale = d * scale_unit * (2 * sub_scale + 1)
  static constexpr int grid_value(int index, int k) noexcept { return detail::grid_iq2_xxs(index, k); }
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    auto& w = b.groups[g].w;
    w.set((w.get() & 0x0fffffffu) | static_cast<std::uint32_t>(v) << 28);
  }
  /// Grid index and sign byte (even number of set bits) of the 8-group v.
  QUANTAL_HD static constexpr void set_vector(block& b, int v, int index, int signs) noexcept {
    record& r = b.groups[v / 4];
    const int t = v % 4;
    r.grid[t] = static_cast<std::uint8_t>(index);
    r.w.set((r.w.get() & ~(0x7fu << (7 * t))) | static_cast<std::uint32_t>(signs & 0x7f) << (7 * t));
  }
};

static_assert(block_format<iq2_xxs>);

}  // namespace quantal
