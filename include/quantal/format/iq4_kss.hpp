// iq4_kss: 4 bits per weight and a float32 scale per row. iq4_ks with the scale byte of a group spread over
// the lowest bits of its eight words; the other 15 bits of a word carry four indices, Gray-coded (formats.md
// section 9).
//
//   row metadata: f32 D
//   offset 0   u16  words[64]   words 8g..8g+7: 32-group g; bit 0 of word m = bit m of the scale byte
//
//   indices = (word & ~1) ^ (word & ~1) >> 1: nibbles for the group's weights 2m, 2m+16, 2m+1, 2m+17
//   weight[e] = (D * (2 * scale7[g] - 127)) * (lut4_nl[q[e]] + 4 * table[g]),   g = e / 32
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/fields.hpp"
#include "quantal/format/detail/half.hpp"
#include "quantal/format/detail/scales.hpp"
#include "quantal/format/detail/tables.hpp"

namespace quantal {

struct iq4_kss : detail::row_scaled<iq4_kss, detail::float_field> {
  static constexpr std::string_view name = "iq4_kss";
  static constexpr std::uint32_t gguf_id = 146;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 256, .bytes = 128, .group = 32, .row_meta = 4};

  struct block {
    detail::le_u16 words[64];
  };

  static constexpr int levels = 16;
  QUANTAL_HD static constexpr int level(int index, int table) noexcept {
    return detail::lut4_nl(index) + 4 * table;
  }
  QUANTAL_HD static constexpr int index(const block& b, int e) noexcept {
    const unsigned w = b.words[e / 32 * 8 + e % 16 / 2].get() & 0xfffeu;
    return detail::bits(w ^ w >> 1, 8 * (e % 2) + 4 * (e % 32 / 16), 4);
  }
  QUANTAL_HD static constexpr int table(const block& b, int g) noexcept { return scale_byte(b, g).table(); }
  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return level(index(b, e), table(b, e / layout.group));
  }
  QUANTAL_HD static constexpr int sub_scale(const block& b, int g) noexcept {
    return scale_byte(b, g).scale();
  }

  static constexpr int min_sub_scale = -127, max_sub_scale = 127, sub_scale_step = 2;
  /// The four indices of word w: bits 0..3, 4..7, 8..11, 12..15 for its group's weights 2m, 2m+16,
  /// 2m+1, 2m+17 with m = w % 8. Only quadruples with an even number of set bits exist.
  QUANTAL_HD static constexpr void set_word(block& b, int w, int indices) noexcept {
    unsigned v = static_cast<unsigned>(indices);
    v ^= v >> 8;
    v ^= v >> 4;
    v ^= v >> 2;
    v ^= v >> 1;
    b.words[w].set(static_cast<std::uint16_t>((v & 0xfffeu) | (b.words[w].get() & 1u)));
  }
  QUANTAL_HD static constexpr void set_table(block& b, int g, int bit) noexcept {
    detail::set_bits(b.words[8 * g], 0, 1, bit);
  }
  /// v is odd.
  QUANTAL_HD static constexpr void set_sub_scale(block& b, int g, int v) noexcept {
    for (int m = 1; m < 8; ++m) detail::set_bits(b.words[8 * g + m], 0, 1, (v + 127) / 2 >> (m - 1) & 1);
  }

 private:
  QUANTAL_HD static constexpr detail::odd_scale scale_byte(const block& b, int g) noexcept {
    int byte = 0;
    for (int m = 0; m < 8; ++m) byte |= (b.words[8 * g + m].get() & 1) << m;
    return {static_cast<std::uint8_t>(byte)};
  }
};

static_assert(block_format<iq4_kss>);

}  // namespace quantal
