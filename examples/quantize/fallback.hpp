// What replaces a format where a tensor's columns are no multiple of its block (quantize.md section 5).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "file_types.hpp"

namespace quantal::plan {

/// The 32-column format that stands in for `wanted`; null for formats that have none.
inline const format_info* stand_in(const format_info& wanted, dialect d) {
  struct row {
    std::string_view wanted, llama_cpp, ik;
  };
  constexpr auto table = std::to_array<row>({
      {"q2_K", "q4_0", "iq4_nl"},
      {"q3_K", "q4_0", "iq4_nl"},
      {"q4_K", "q5_0", "q5_0"},
      {"iq4_k", "q5_0", "q5_0"},
      {"iq5_ks", "q5_0", "q5_0"},
      {"q5_K", "q5_1", "q6_0"},
      {"iq5_k", "q5_1", "q6_0"},
      {"q6_K", "q8_0", "q8_0"},
      {"iq6_k", "q8_0", "q8_0"},
      {"tq1_0", "q4_0", "q4_0"},
      {"tq2_0", "q4_0", "q4_0"},
      {"q1_0", "q4_0", "q4_0"},
      {"q2_0", "q4_0", "q4_0"},
      {"nvfp4", "q4_0", "q4_0"},
  });
  if (wanted.layout.elements <= 32) return nullptr;
  const auto r =
      std::find_if(table.begin(), table.end(), [&](const row& x) { return x.wanted == wanted.name; });
  if (r == table.end()) return find_format("iq4_nl");
  return find_format(d == dialect::ik ? r->ik : r->llama_cpp);
}

/// The format that a tensor of `cols` columns gets: the wanted one, its stand-in, or f16 where no block fits.
inline const format_info& fitting(const format_info& wanted, std::int64_t cols, dialect d) {
  const auto fits = [&](const format_info* f) { return f && cols % f->layout.elements == 0; };
  if (fits(&wanted)) return wanted;
  const format_info* other = stand_in(wanted, d);
  return fits(other) ? *other : *find_format("f16");
}

}  // namespace quantal::plan
