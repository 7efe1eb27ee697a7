// File types (general.file_type, gguf.md section 5): their names and numbers, their base formats, and which program knows them.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "quantal/formats.hpp"

namespace quantal::plan {

/// Whose mixes, stand-ins and kept tensors a plan follows.
enum class dialect : std::uint8_t { llama_cpp, ik };

/// Which programs have a file type of this name.
enum class owner : std::uint8_t { both, llama_cpp, ik };

struct file_type {
  std::string_view name;  ///< as on command lines: "Q4_K_M"
  std::uint32_t id;       ///< general.file_type
  std::string_view base;  ///< format of everything that no rule of its mix names
  owner known_to = owner::both;

  /// F32, F16 and BF16: everything gets the base type, no mix.
  bool is_float() const noexcept { return base == "f32" || base == "f16" || base == "bf16"; }
  /// COPY: every tensor stays as it is.
  bool is_copy() const noexcept { return base.empty(); }
};

std::span<const file_type> file_types();
/// By name (case-insensitive, with the short forms Q3_K, Q4_K, Q5_K) or by number; null if unknown. Where both programs
/// use a number, it means llama.cpp's type.
const file_type* find_file_type(std::string_view text);
/// By name only.
const file_type* find_file_type_by_name(std::string_view name);
/// "Q4_0, Q4_K_M, ...": the file types whose base format can be quantized to here.
std::string known_file_types();

/// Whether the programs of a dialect read a format: iq4_k is ik_llama.cpp's only, tq1_0 llama.cpp's only.
bool reads(dialect d, const format_info& format);
/// "llama.cpp" or "ik_llama.cpp".
std::string_view program_name(dialect d);

}  // namespace quantal::plan
