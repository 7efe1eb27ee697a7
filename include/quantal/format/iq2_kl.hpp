// iq2_kl: 2.6875 bits per weight and an f16 scale per row. Pairs of neighbouring weights from a codebook of
// 32 pairs; signed 6-bit scales per 32 (formats.md section 9).
//
//   row metadata: f16 D
//   offset 0    u16  scales_h      bits 2g, 2g+1: scale bits 4, 5 of 32-group g
//   offset 2    u8   scales_l[4]   nibble g / 4 of byte g % 4: scale bits 0..3
//   offset 6    u8   qs[64]        nibble g % 2 of byte 16 * (g / 2) + p: low four bits of pair p of group g
//   offset 70   u8   qh[16]        bit g of byte p: fifth bit of pair p of group g
//
//   weight[e] = (D * (scale6[g] - 32)) * pairs2_kl[q[e / 2]][e % 2],   g = e / 32,  p = e % 32 / 2
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq2_kl : detail::row_scaled<iq2_kl, detail::half_bits> {
  static constexpr std::string_view name = "iq2_kl";
  static constexpr std::uint32_t gguf_id = 157;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 86, .group = 32, .row_meta = 2};
  static constexpr int min_code = -63, max_code = 47;

  struct block {
    detail::le_u16 scales_h;
    detail::nibble_halves<8> scales_l;
    detail::nibble_halves<32> qs[4];
    std::uint8_t qh[16];
  };

  static constexpr int vector = 2, grid_size = 32;
  QUANTAL_HD static constexpr int grid_value(int index, int k) noexcept {
    return detail::pairs2_kl(index, k);
  }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    const int pair = e % 32 / 2;
    const int low = b.qs[e / 64].get(e % 64 / 32 * 16 + pair);
    return grid_value(low + 16 * detail::bit(b.qh[pair], e / 32), e % 2);
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return b.scales_l.get(g) + 16 * detail::bits(b.scales_h.get(), 2 * g, 2) - 32;
  }

  static constexpr int min_sub_scale = -32, max_sub_scale = 31;
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    b.scales_l.set(g, (v + 32) & 15);
    detail::set_bits(b.scales_h, 2 * g, 2, (v + 32) >> 4);
  }
  /// Codebook index of the pair v (weights 2v and 2v + 1).
  QUANTAL_HD static constexpr void set_grid(block& b, int v, int index) noexcept {
    b.qs[v / 32].set(v % 32, index & 15);
    detail::set_bits(b.qh[v % 16], v / 16, 1, index >> 4);
  }
};

static_assert(block_format<iq2_kl>);

}  // namespace quantal
