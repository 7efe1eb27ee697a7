// Where UTF-8 is valid.
#pragma once

#include <cstddef>
#include <string_view>

namespace quantal::mla {

/// Length of the valid UTF-8 sequence at the start of s, 0 if there is none.
inline std::size_t sequence_length(std::string_view s) {
  const auto byte = [&](std::size_t i) { return i < s.size() ? static_cast<unsigned char>(s[i]) : 0u; };
  const unsigned a = byte(0);
  if (a < 0x80) return 1;
  const auto follows = [&](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  if (a >= 0xc2 && a <= 0xdf) return follows(1) ? 2 : 0;
  if (a >= 0xe0 && a <= 0xef) {
    const bool range = !(a == 0xe0 && byte(1) < 0xa0) && !(a == 0xed && byte(1) > 0x9f);
    return follows(1) && follows(2) && range ? 3 : 0;
  }
  if (a >= 0xf0 && a <= 0xf4) {
    const bool range = !(a == 0xf0 && byte(1) < 0x90) && !(a == 0xf4 && byte(1) > 0x8f);
    return follows(1) && follows(2) && follows(3) && range ? 4 : 0;
  }
  return 0;
}

}  // namespace quantal::mla
