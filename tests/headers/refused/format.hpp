// A format of 32 weights that kernels take; what changes here makes one that they do not.
#pragma once

#include <quantal/format.hpp>

#ifndef BLOCK_WEIGHTS
#define BLOCK_WEIGHTS 32
#endif
#ifndef GROUP_WEIGHTS
#define GROUP_WEIGHTS 32
#endif
#ifndef MOST_CODE
#define MOST_CODE 127
#endif
#ifndef BLOCK_BYTES
#define BLOCK_BYTES BLOCK_WEIGHTS + 1
#endif
#ifndef CODE_NAME
#define CODE_NAME code
#endif
#ifndef SCALE_TYPE
#define SCALE_TYPE std::uint8_t
#endif

struct my_format {
  static constexpr std::string_view name = "mine";
  static constexpr std::uint32_t gguf_id = 9000;
  static constexpr quantal::role usage = quantal::role::weight;
  static constexpr quantal::block_layout layout{
      .elements = BLOCK_WEIGHTS, .bytes = BLOCK_BYTES, .group = GROUP_WEIGHTS};
  static constexpr int min_code = -127, max_code = MOST_CODE;
  struct block {
    SCALE_TYPE exponent;
    std::int8_t codes[BLOCK_WEIGHTS];
  };
  static constexpr int CODE_NAME(const block& b, int e) noexcept { return b.codes[e]; }
  static constexpr float scale(const block& b, float, int) noexcept { return static_cast<float>(b.exponent); }
};
