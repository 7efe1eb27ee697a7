#include "file_types.hpp"

#include <algorithm>
#include <array>
#include <charconv>

#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

constexpr auto table = std::to_array<file_type>({
    {"COPY", 0, ""},
    {"F32", 0, "f32"},
    {"F16", 1, "f16"},
    {"BF16", 32, "bf16"},
    {"Q8_0", 7, "q8_0"},
    {"Q6_K", 18, "q6_K"},
    {"Q5_K_M", 17, "q5_K"},
    {"Q5_K_S", 16, "q5_K"},
    {"Q5_1", 9, "q5_1"},
    {"Q5_0", 8, "q5_0"},
    {"Q4_K_M", 15, "q4_K"},
    {"Q4_K_S", 14, "q4_K"},
    {"Q4_1", 3, "q4_1"},
    {"Q4_0", 2, "q4_0"},
    {"IQ4_NL", 25, "iq4_nl"},
    {"IQ4_XS", 30, "iq4_xs"},
    {"Q3_K_L", 13, "q3_K"},
    {"Q3_K_M", 12, "q3_K"},
    {"Q3_K_S", 11, "q3_K"},
    {"IQ3_M", 27, "iq3_s"},
    {"IQ3_S", 26, "iq3_s"},
    {"IQ3_XS", 22, "iq3_s"},
    {"IQ3_XXS", 23, "iq3_xxs"},
    {"Q2_K", 10, "q2_K"},
    {"Q2_K_S", 21, "q2_K"},
    {"IQ2_M", 29, "iq2_s"},
    {"IQ2_S", 28, "iq2_xs"},
    {"IQ2_XS", 20, "iq2_xs"},
    {"IQ2_XXS", 19, "iq2_xxs"},
    {"IQ1_M", 31, "iq1_m"},
    {"IQ1_S", 24, "iq1_s"},
    {"TQ2_0", 37, "tq2_0", owner::llama_cpp},
    {"TQ1_0", 36, "tq1_0", owner::llama_cpp},
    {"Q2_0", 41, "q2_0", owner::llama_cpp},
    {"Q1_0", 40, "q1_0", owner::llama_cpp},
    {"MXFP4_MOE", 38, "mxfp4", owner::llama_cpp},
    {"NVFP4", 39, "nvfp4", owner::llama_cpp},
    {"MXFP4", 38, "mxfp4", owner::ik},
    {"Q6_0", 135, "q6_0", owner::ik},
    {"IQ6_K", 142, "iq6_k", owner::ik},
    {"IQ5_K", 141, "iq5_k", owner::ik},
    {"IQ5_KS", 150, "iq5_ks", owner::ik},
    {"IQ4_K", 140, "iq4_k", owner::ik},
    {"IQ4_KS", 145, "iq4_ks", owner::ik},
    {"IQ4_KSS", 148, "iq4_kss", owner::ik},
    {"IQ4_KT", 153, "iq4_kt", owner::ik},
    {"IQ3_K", 139, "iq3_k", owner::ik},
    {"IQ3_KS", 154, "iq3_ks", owner::ik},
    {"IQ3_KT", 152, "iq3_kt", owner::ik},
    {"IQ2_KL", 155, "iq2_kl", owner::ik},
    {"IQ2_K", 138, "iq2_k", owner::ik},
    {"IQ2_KS", 147, "iq2_ks", owner::ik},
    {"IQ2_KT", 151, "iq2_kt", owner::ik},
    {"IQ1_KT", 156, "iq1_kt", owner::ik},
});

bool writable(const file_type& t) {
  const auto* f = find_format(t.base);
  return t.is_copy() || (f && runtime::can_quantize(f->gguf_id));
}

}  // namespace

std::span<const file_type> file_types() { return table; }

const file_type* find_file_type_by_name(std::string_view name) {
  std::string wanted = text::lower(name);
  if (wanted == "q3_k" || wanted == "q4_k" || wanted == "q5_k") wanted += "_m";
  for (const auto& t : table)
    if (text::lower(t.name) == wanted) return &t;
  return nullptr;
}

const file_type* find_file_type(std::string_view s) {
  if (const auto* t = find_file_type_by_name(s)) return t;
  std::uint32_t id = 0;
  const auto [end, failure] = std::from_chars(s.data(), s.data() + s.size(), id);
  if (failure != std::errc{} || end != s.data() + s.size()) return nullptr;
  for (const auto& t : table)
    if (t.id == id && !t.is_copy()) return &t;
  return nullptr;
}

std::string known_file_types() {
  std::string out;
  for (const auto& t : table)
    if (writable(t)) out += (out.empty() ? "" : ", ") + std::string(t.name);
  return out;
}

bool reads(dialect d, const format_info& f) {
  constexpr auto llama_cpp_only =
      std::to_array<std::string_view>({"tq1_0", "tq2_0", "q1_0", "q2_0", "nvfp4"});
  constexpr std::uint32_t first_of_ik = 97;  // ik_llama.cpp numbers its own formats from here
  if (d == dialect::llama_cpp) return f.gguf_id < first_of_ik;
  return std::find(llama_cpp_only.begin(), llama_cpp_only.end(), f.name) == llama_cpp_only.end();
}

std::string_view program_name(dialect d) { return d == dialect::llama_cpp ? "llama.cpp" : "ik_llama.cpp"; }

}  // namespace quantal::plan
