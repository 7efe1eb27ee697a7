// f16: IEEE binary16, one per "block" (formats.md section 3). Rounds to nearest even; overflow goes to infinity.
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct f16 {
  static constexpr std::string_view name = "f16";
  static constexpr std::uint32_t gguf_id = 1;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 1, .bytes = 2, .group = 1};

  struct block {
    detail::half_bits v;
  };

  QUANTAL_HD static constexpr float value(const block& b) noexcept { return b.v.get(); }
  QUANTAL_HD static constexpr block from_float(float f) noexcept {
    block b{};
    b.v.set(f);
    return b;
  }
};

static_assert(float_format<f16>);

}  // namespace quantal
