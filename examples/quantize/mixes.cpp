#include "mixes.hpp"

#include <array>
#include <charconv>

#include "quantal/formats.hpp"
#include "quantal/quantize/quantize.hpp"
#include "text.hpp"

namespace quantal::plan {
namespace {

constexpr choice base{};
constexpr choice more_q6{when::more, "q6_K"};
constexpr choice no_data_q5{when::first_eighth_no_imatrix, "q5_K"};
constexpr choice counted_iq3{when::first_eighth_counted, "iq3_s"};
constexpr choice counted_q2{when::first_eighth_counted, "q2_K"};

//   name, id, base | attn_k*, attn_q*, attn_output | ffn_down*, ffn_gate*/up* | token_embd, output, tied
//   token_embd
constexpr auto table = std::to_array<file_type>({
    {"COPY", 0, "", "", "", "", base, base, "", ""},
    {"F32", 0, "f32", "", "", "", base, base, "", ""},
    {"F16", 1, "f16", "", "", "", base, base, "", ""},
    {"BF16", 32, "bf16", "", "", "", base, base, "", ""},
    {"Q8_0", 7, "q8_0", "q8_0", "", "", base, base, "", "q8_0"},
    {"Q6_K", 18, "q6_K", "q8_0", "", "", base, base, "", "q6_K"},
    {"Q5_K_M", 17, "q5_K", "q8_0", "", "", more_q6, base, "", "q6_K"},
    {"Q5_K_S", 16, "q5_K", "q8_0", "", "", base, base, "", "q6_K"},
    {"Q4_K_M", 15, "q4_K", "q8_0", "", "q5_K", more_q6, base, "", "q6_K"},
    {"Q4_K_S", 14, "q4_K", "q8_0", "", "q5_K", {when::first_eighth, "q5_K"}, base, "", "q6_K"},
    {"Q4_0", 2, "q4_0", "q8_0", "", "", {when::first_eighth_imatrix, "q4_1"}, base, "", "q6_K"},
    {"Q5_0", 8, "q5_0", "q8_0", "", "", {when::first_eighth_imatrix, "q5_1"}, base, "", "q6_K"},
    {"Q4_1", 3, "q4_1", "q8_0", "", "", base, base, "", "q6_K"},
    {"Q5_1", 9, "q5_1", "q8_0", "", "", base, base, "", "q6_K"},
    {"Q6_0", 135, "q6_0", "q8_0", "", "", base, base, "", "q6_K"},
    {"IQ4_XS", 30, "iq4_xs", "q8_0", "", "q5_K", no_data_q5, base, "", "q6_K", "iq5_k"},
    {"IQ4_NL", 25, "iq4_nl", "q8_0", "", "q5_K", no_data_q5, base, "", "q6_K"},
    {"IQ4_KS", 145, "iq4_ks", "q8_0", "", "q5_K", no_data_q5, base, "", "q6_K", "iq5_k"},
    {"IQ4_KSS", 148, "iq4_kss", "q8_0", "", "q5_K", no_data_q5, base, "", "q6_K", "iq5_k"},
    {"IQ4_K", 140, "iq4_k", "q8_0", "", "q5_K", base, base, "", "q6_K"},
    {"IQ5_KS", 150, "iq5_ks", "q8_0", "", "q5_K", base, base, "", "q6_K"},
    {"IQ5_K", 141, "iq5_k", "q8_0", "", "", base, base, "", "q6_K"},
    {"IQ6_K", 142, "iq6_k", "q8_0", "", "", base, base, "", "iq6_k"},
    {"Q3_K_S", 11, "q3_K", "q8_0", "", "q5_K", base, base, "", "q6_K"},
    {"Q3_K_M", 12, "q3_K", "q8_0", "", "q5_K", {when::first_sixteenth, "q5_K", "q4_K"}, base, "", "q6_K"},
    {"Q3_K_L", 13, "q3_K", "q8_0", "", "", {when::always, "q5_K"}, base, "", "q6_K"},
    {"IQ3_S", 26, "iq3_s", "q8_0", "", "q5_K", base, base, "", "q6_K", "iq5_k"},
    {"IQ3_M", 27, "iq3_s", "q8_0", "", "q5_K", {when::more, "iq4_k"}, base, "", "q6_K", "iq5_k"},
    {"IQ3_XS", 22, "iq3_s", "q8_0", "iq3_xxs", "q5_K", base, {when::middle, "iq3_xxs"}, "", "q6_K"},
    {"IQ3_XXS",
     23,
     "iq3_xxs",
     "q8_0",
     "iq2_s",
     "q5_K",
     {when::no_imatrix_by_first_eighth, "q4_K", "q3_K"},
     base,
     "iq3_s",
     "q5_K",
     "iq4_k"},
    {"IQ3_K", 139, "iq3_k", "q8_0", "", "q5_K", base, base, "", "q5_K", "iq4_k"},
    {"IQ3_KS", 154, "iq3_ks", "q8_0", "", "q5_K", base, base, "", "q5_K", "iq4_k"},
    {"IQ2_KL", 155, "iq2_kl", "q8_0", "", "iq4_ks", base, base, "", "q5_K", "iq4_k"},
    {"IQ2_K", 138, "iq2_k", "q8_0", "", "q5_K", base, base, "", "q5_K", "iq4_k"},
    {"Q2_K", 10, "q2_K", "q8_0", "", "q5_K", {when::always, "q3_K"}, base, "", "q6_K"},
    {"Q2_K_S", 21, "q2_K", "q8_0", "", "", {when::first_eighth, "q4_K"}, base, "", "q6_K"},
    {"IQ2_M", 29, "iq2_s", "q4_K", "q4_K", "q5_K", counted_iq3, base, "iq3_s", "q5_K", "iq4_k"},
    {"IQ2_S", 28, "iq2_xs", "q4_K", "q4_K", "q5_K", counted_iq3, base, "iq3_s", "q5_K", "iq4_k"},
    {"IQ2_XS", 20, "iq2_xs", "q4_K", "q4_K", "q5_K", counted_q2, base, "q2_K", "q5_K", "iq4_k"},
    {"IQ2_XXS", 19, "iq2_xxs", "q4_K", "q4_K", "q5_K", counted_q2, base, "q2_K", "q5_K", "iq4_k"},
    {"IQ2_KS", 147, "iq2_ks", "q4_K", "q4_K", "q5_K", counted_q2, base, "", "q5_K", "iq4_k"},
    {"IQ1_S", 24, "iq1_s", "q4_K", "q4_K", "q5_K", counted_q2, base, "q2_K", "q5_K", "iq4_k"},
    {"IQ1_M", 31, "iq1_m", "q4_K", "q4_K", "q5_K", counted_q2, base, "q2_K", "q5_K", "iq4_k"},
    {"IQ4_KT", 153, "iq4_kt", "q8_0", "", "q5_K", base, base, "", "q6_K", "iq5_k"},
    {"IQ3_KT", 152, "iq3_kt", "q8_0", "", "q5_K", base, base, "", "q5_K", "iq4_k"},
    {"IQ2_KT", 151, "iq2_kt", "q8_0", "", "q5_K", base, base, "", "q5_K", "iq4_k"},
    {"IQ1_KT", 156, "iq1_kt", "q8_0", "", "q5_K", base, base, "", "q5_K", "iq4_k"},
    {"MXFP4", 38, "mxfp4", "q8_0", "", "", base, base, "", "q6_K"},
    {"NVFP4", 39, "nvfp4", "q8_0", "", "", base, base, "", "q6_K"},
    {"TQ2_0", 37, "tq2_0", "q8_0", "", "", base, base, "q4_K", "q6_K"},
    {"TQ1_0", 36, "tq1_0", "q8_0", "", "", base, base, "q4_K", "q6_K"},
});

bool contains(std::string_view s, std::string_view part) { return s.find(part) != std::string_view::npos; }

std::string_view or_base(const file_type& t, std::string_view name) { return name.empty() ? t.base : name; }

std::string_view choose(const file_type& t, const choice& c, std::int64_t i, const mix_context& x) {
  const std::int64_t n = x.blocks, eighth = n / 8, seven_eighths = 7 * n / 8;
  const bool first = i >= 0 && i < eighth;
  switch (c.condition) {
    case when::never:
      return t.base;
    case when::always:
      return c.type;
    case when::more:
      return or_base(t,
                     i >= 0 && (first || i >= seven_eighths || (i - eighth) % 3 == 2) ? c.type : c.otherwise);
    case when::first_eighth:
      return or_base(t, first ? c.type : c.otherwise);
    case when::first_eighth_imatrix:
      return or_base(t, first && x.has_imatrix ? c.type : c.otherwise);
    case when::first_eighth_no_imatrix:
      return or_base(t, first && !x.has_imatrix ? c.type : c.otherwise);
    case when::first_eighth_counted:
      return or_base(t, x.ffn_down_seen < eighth ? c.type : c.otherwise);
    case when::first_sixteenth:
      return or_base(t, i >= 0 && i < n / 16 ? c.type : c.otherwise);
    case when::middle:
      return or_base(t, i >= eighth && i < seven_eighths ? c.type : c.otherwise);
    case when::no_imatrix_by_first_eighth:
      return x.has_imatrix ? t.base : first ? c.type : c.otherwise;
  }
  return t.base;
}

/// Output weights need 256-column blocks for everything but q8_0.
std::string_view output_type(const file_type& t, std::string_view wanted, std::int64_t cols) {
  return cols % 256 != 0 ? "q8_0" : or_base(t, wanted);
}

bool formats_writable(const file_type& t) {
  for (const auto name : {t.base, t.attn_k, t.attn_q, t.attn_output, t.ffn_down.type, t.ffn_down.otherwise,
                          t.ffn_gate_up.type, t.token_embd, t.output})
    if (const auto* f = find_format(name); !name.empty() && !(f && can_quantize(f->gguf_id))) return false;
  return true;
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
    if (formats_writable(t)) out += (out.empty() ? "" : ", ") + std::string(t.name);
  return out;
}

std::optional<std::int64_t> block_index(std::string_view name) {
  if (!name.starts_with("blk.")) return std::nullopt;
  name.remove_prefix(4);
  std::int64_t i = 0;
  const auto [end, failure] = std::from_chars(name.data(), name.data() + name.size(), i);
  if (failure != std::errc{} || i < 0 || end == name.data() + name.size() || *end != '.') return std::nullopt;
  return i;
}

std::string_view mix_type(const file_type& t, std::string_view name, std::int64_t cols, mix_context& x) {
  if (t.is_float()) return t.base;
  if (name == "output.weight") return output_type(t, t.output, cols);
  if (name == "token_embd.weight") {
    if (!x.tied_embeddings) return or_base(t, t.token_embd);
    return output_type(t, t.tied.empty() ? t.output : t.tied, cols);
  }
  const std::int64_t i = block_index(name).value_or(-1);
  if (contains(name, "attn_k")) return or_base(t, t.attn_k);
  if (contains(name, "attn_q")) return or_base(t, t.attn_q);
  if (contains(name, "ffn_down")) {
    const auto chosen = choose(t, t.ffn_down, i, x);
    ++x.ffn_down_seen;
    return chosen;
  }
  if (contains(name, "attn_output")) return or_base(t, t.attn_output);
  if (contains(name, "ffn_gate") || contains(name, "ffn_up")) return choose(t, t.ffn_gate_up, i, x);
  return t.base;
}

}  // namespace quantal::plan
