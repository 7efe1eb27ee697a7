// What replaces a 256-column format where a tensor's columns do not divide (quantize.md section 5).
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "quantal/formats.hpp"

namespace quantal::plan {

/// The 32-column format that stands in for `wanted`, or null: formats of 32 columns have no stand-in, and
/// neither has a format whose stand-in does not exist.
inline const format_info* stand_in(const format_info& wanted) {
  constexpr auto to_q5_0 = std::to_array<std::string_view>({"q4_K", "iq4_k", "iq5_ks"});
  constexpr auto to_q6_0 = std::to_array<std::string_view>({"q5_K", "iq5_k"});
  constexpr auto to_q8_0 = std::to_array<std::string_view>({"q6_K", "iq6_k"});
  const auto in = [&](const auto& list) {
    return std::find(list.begin(), list.end(), wanted.name) != list.end();
  };
  if (wanted.layout.elements <= 32) return nullptr;
  return find_format(in(to_q5_0) ? "q5_0" : in(to_q6_0) ? "q6_0" : in(to_q8_0) ? "q8_0" : "iq4_nl");
}

}  // namespace quantal::plan
