// Codes as the unsigned bytes that kernels compute with.
#pragma once

#include "quantal/format.hpp"

namespace quantal {

/// Kernels see codes as unsigned bytes, code + code_bias. Without a bias nothing has to be corrected
/// afterwards; a bias below 128 keeps the bytes within 7 bits, which int8 instructions without a u8 x s8 form
/// need.
template <block_format F>
constexpr int code_bias_of() noexcept {
  if constexpr (requires { F::min_code + F::max_code; }) {
    if (F::min_code >= 0) return 0;
    if (F::max_code - F::min_code <= 127) return -F::min_code;
  }
  return 128;
}
template <block_format F>
inline constexpr int code_bias = code_bias_of<F>();

}  // namespace quantal
