// File types (general.file_type) and their built-in mixes for deepseek2: which tensor gets which format
// (quantize.md section 4; ids gguf.md section 5).
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace quantal::plan {

/// When a mix departs from the base type. n = blocks, i = block of the tensor; integer division.
enum class when : std::uint8_t {
  never,
  always,
  more,                        ///< i < n/8, i >= 7n/8, or (i - n/8) mod 3 == 2
  first_eighth,                ///< i < n/8
  first_eighth_imatrix,        ///< i < n/8 and an importance matrix is given
  first_eighth_no_imatrix,     ///< i < n/8 and none is given
  first_eighth_counted,        ///< fewer than n/8 ffn_down tensors came before
  first_sixteenth,             ///< i < n/16
  middle,                      ///< n/8 <= i < 7n/8
  no_imatrix_by_first_eighth,  ///< without importance: `type` for i < n/8, else `otherwise`; with: base
};

/// A conditional type; empty names stand for the base type.
struct choice {
  when condition = when::never;
  std::string_view type = {};
  std::string_view otherwise = {};
};

/// One row of the table: empty names stand for the base type. attn_v_b and everything else is base.
struct file_type {
  std::string_view name;  ///< as on command lines: "Q4_K_M"
  std::uint32_t id;       ///< general.file_type
  std::string_view base;
  std::string_view attn_k, attn_q, attn_output;
  choice ffn_down, ffn_gate_up;
  std::string_view token_embd, output;
  std::string_view tied = {};  ///< token_embd of models without output.weight, where it differs from `output`

  /// F32, F16 and BF16: everything gets the base type, no mix and no rules.
  bool is_float() const noexcept { return base == "f32" || base == "f16" || base == "bf16"; }
  /// COPY: every tensor stays as it is.
  bool is_copy() const noexcept { return base.empty(); }
};

std::span<const file_type> file_types();
/// By name (case-insensitive, with the short forms Q3_K, Q4_K, Q5_K) or by number; null if unknown.
const file_type* find_file_type(std::string_view text);
/// By name only.
const file_type* find_file_type_by_name(std::string_view name);
/// "Q4_0, Q4_K_M, ...": the file types all of whose formats exist here.
std::string known_file_types();

/// What a mix depends on.
struct mix_context {
  std::int64_t blocks = 0;
  bool has_imatrix = false;
  bool tied_embeddings = false;
  std::int64_t ffn_down_seen = 0;  ///< counts while tensors go by in output order
};

/// Block number of "blk.17.x", or nothing.
std::optional<std::int64_t> block_index(std::string_view tensor_name);

/// The format name that the mix gives a tensor with `cols` columns; advances context.ffn_down_seen.
std::string_view mix_type(const file_type& type, std::string_view tensor_name, std::int64_t cols,
                          mix_context& context);

}  // namespace quantal::plan
