// A format that no model file holds: five bits in blocks of 64 weights under one half scale, 42 bytes. It has what a
// format must have and no more. Tests and benchmarks hold it to the speed of its hand-made kin: what a user adds in
// one header and one line is to be as fast as what is in the list.
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct q5_64 {
  static constexpr std::string_view name = "q5_64";
  static constexpr std::uint32_t gguf_id = 900;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 64, .bytes = 42, .group = 64};
  static constexpr int min_code = -16, max_code = 15;

  struct block {
    detail::half_bits d;
    std::uint8_t qh[8];
    std::uint8_t qs[32];
  };

  QUANTAL_HD static constexpr int code(const block& b, int e) noexcept {
    return detail::nib(b.qs[e % 32], e / 32) + 16 * detail::bit(b.qh[e / 8], e % 8) - 16;
  }
  QUANTAL_HD static constexpr float scale(const block& b, float, int) noexcept { return b.d.get(); }

  QUANTAL_HD static constexpr void set_code(block& b, int e, int code) noexcept {
    detail::set_bits(b.qs[e % 32], 4 * (e / 32), 4, (code + 16) & 15);
    detail::set_bits(b.qh[e / 8], e % 8, 1, (code + 16) >> 4);
  }
  QUANTAL_HD static constexpr void set_scale(block& b, float d) noexcept { b.d.set(d); }
};

static_assert(block_format<q5_64>);

}  // namespace quantal
