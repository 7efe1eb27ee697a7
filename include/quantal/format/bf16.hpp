// bf16: the upper half of a float32, one per "block" (formats.md section 3).
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct bf16 {
  static constexpr std::string_view name = "bf16";
  static constexpr std::uint32_t gguf_id = 30;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 1, .bytes = 2, .group = 1};

  struct block {
    detail::le_u16 v;
  };

  QUANTAL_HD static constexpr float value(const block& b) noexcept {
    return detail::bfloat16_to_float(b.v.get());
  }
  QUANTAL_HD static constexpr block from_float(float f) noexcept {
    block b{};
    b.v.set(detail::float_to_bfloat16(f));
    return b;
  }
};

static_assert(float_format<bf16>);

}  // namespace quantal
