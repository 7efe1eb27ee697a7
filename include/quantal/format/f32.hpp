// f32: plain floats, one per "block" (formats.md section 3).
#pragma once

#include "quantal/format.hpp"
#include "quantal/format/detail/half.hpp"

namespace quantal {

struct f32 {
  static constexpr std::string_view name = "f32";
  static constexpr std::uint32_t gguf_id = 0;
  static constexpr role usage = role::weight;
  static constexpr block_layout layout{.elements = 1, .bytes = 4, .group = 1};

  struct block {
    detail::float_field v;
  };

  QUANTAL_HD static constexpr float value(const block& b) noexcept { return b.v.get(); }
  QUANTAL_HD static constexpr block from_float(float f) noexcept {
    block b{};
    b.v.set(f);
    return b;
  }
};

static_assert(float_format<f32>);

}  // namespace quantal
