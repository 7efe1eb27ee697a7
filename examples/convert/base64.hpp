// Bytes as tokenizer files spell them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace quantal::hf {

inline int base64_digit(char c) noexcept {
  if (c >= 'A' && c <= 'Z') return c - 'A';
  if (c >= 'a' && c <= 'z') return c - 'a' + 26;
  if (c >= '0' && c <= '9') return c - '0' + 52;
  return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/// Padded standard base64; nothing if it is anything else.
inline std::optional<std::string> from_base64(std::string_view s) {
  if (s.empty() || s.size() % 4) return std::nullopt;
  const std::size_t padding = s.ends_with("==") ? 2 : s.ends_with("=") ? 1 : 0;
  std::string out;
  std::uint32_t bits = 0;
  for (std::size_t i = 0; i < s.size(); ++i) {
    const int d = i < s.size() - padding ? base64_digit(s[i]) : 0;
    if (d < 0) return std::nullopt;
    bits = bits << 6 | static_cast<std::uint32_t>(d);
    if (i % 4 != 3) continue;
    for (int shift = 16; shift >= 0; shift -= 8) out += static_cast<char>(bits >> shift);
    bits = 0;
  }
  out.resize(out.size() - padding);
  return out;
}

}  // namespace quantal::hf
