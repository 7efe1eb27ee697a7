// The three ways GGUF files store the up-projections of multi-head latent attention, and conversion between
// them (mla.md section 1.1, gguf.md section 3).
//
//   layout       attn_k_b            attn_v_b             attn_kv_b               used by
//   heads        [nope, r, heads]    [r, value, heads]    absent                  llama.cpp
//   rows         [nope, r*heads]     [r, value*heads]     absent
//   rows_kv_b    [nope, r*heads]     [r, value*heads]     [r, heads*(nope+value)]  ik_llama.cpp
//
// attn_k_b and attn_v_b have the same bytes in all of them. Rows of attn_kv_b are grouped by head: the
// transpose of the head's attn_k_b above the rows of its attn_v_b.
#pragma once

#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

#include "config.hpp"
#include "quantal/gguf/metadata.hpp"
#include "quantal/gguf/tensor_info.hpp"

namespace quantal::mla {

enum class layout { heads, rows, rows_kv_b };

/// "3d", "2d", "2d+kv_b".
std::optional<layout> find_layout(std::string_view name) noexcept;

/// Sizes of the up-projections.
struct up_projection_shape {
  std::int64_t heads, nope, value, rank;

  up_projection_shape(const config& c) : heads(c.heads), nope(c.nope), value(c.value), rank(c.kv_rank) {}
  std::int64_t head_rows() const noexcept { return nope + value; }
};

/// attn_kv_b [heads][nope + value][rank] from attn_k_b [heads][rank][nope] and attn_v_b [heads][value][rank].
std::vector<float> join_up_projections(const up_projection_shape& s, const std::vector<float>& k_b,
                                       const std::vector<float>& v_b);
/// attn_k_b [heads][rank][nope] from attn_kv_b [heads][nope + value][rank].
std::vector<float> key_up_projection(const up_projection_shape& s, const std::vector<float>& kv_b);

/// Shapes of the tensors in a layout.
std::array<std::int64_t, 4> k_b_extents(const up_projection_shape& s, layout to) noexcept;
std::array<std::int64_t, 4> v_b_extents(const up_projection_shape& s, layout to) noexcept;
std::array<std::int64_t, 4> kv_b_extents(const up_projection_shape& s) noexcept;

/// Sets the keys that differ between the layouts: head_count_kv, key_length, value_length and their *_mla
/// forms.
void set_layout_keys(gguf::metadata& meta, const config& c, layout to);

/// Types of derived tensors: attn_kv_b keeps a float type that both parts have, attn_k_b a float type of
/// attn_kv_b; otherwise q8_0, since transposed weights have to be quantized again.
std::uint32_t joined_type(std::uint32_t k_b, std::uint32_t v_b) noexcept;
std::uint32_t key_type(std::uint32_t kv_b) noexcept;

/// Writes `model` in another layout to `out`. Tensors that only change shape keep their bytes; other tensors
/// and keys are copied. Errors name the file, the tensor and the cause; `out` appears whole or not at all.
result<void> relayout(const gguf::reader& model, layout to, const std::filesystem::path& out);

}  // namespace quantal::mla
