#include "tensor_map.hpp"

#include <algorithm>
#include <array>
#include <charconv>

namespace quantal::hf {
namespace {

/// `name` with a number in place of `mark`.
std::string numbered(std::string_view name, char mark, std::int64_t number) {
  std::string out(name);
  if (const auto at = out.find(mark); at != std::string::npos) out.replace(at, 1, std::to_string(number));
  return out;
}

bool is_of_block(const tensor_row& row) { return row.out.find('#') != std::string_view::npos; }

class mapper {
 public:
  mapper(const model_config& m, const name_prefixes& from) : m_(m), from_(from) {}

  std::vector<mapped_tensor> all() {
    add_rows(false, 0, m_.traits);
    for (std::int64_t i = 0; i < m_.sizes[size::layers]; ++i)
      add_rows(true, i, m_.traits | (i < m_.dense_layers ? trait::dense : trait::sparse));
    return std::move(tensors_);
  }

 private:
  void add_rows(bool of_block, std::int64_t block, std::uint32_t traits) {
    for (const auto& row : m_.kind->tensors)
      if (is_of_block(row) == of_block && (traits & row.needs) == row.needs) add(row, block);
  }

  void add(const tensor_row& row, std::int64_t block) {
    const auto& s = m_.sizes;
    mapped_tensor t{{}, row.how, row.taken, row.plus_one, {}, {s[row.rows], s[row.cols], s[row.slices]}};
    t.out.name = numbered(row.out, '#', block);
    const bool rounds = row.how != assembly::vector && row.how != assembly::computed && !row.as_f32;
    t.out.type = rounds ? bf16::gguf_id : f32::gguf_id;
    t.out.ne = extents(row, t.shape);
    const auto& ne = t.out.ne;
    t.out.n_dims = ne[2] > 1 ? 3 : ne[1] > 1 || rounds || row.as_f32 ? 2 : 1;
    if (row.how != assembly::computed) t.parts = stored_names(row, block);
    tensors_.push_back(std::move(t));
  }

  std::array<std::int64_t, 4> extents(const tensor_row& row, matrix_shape p) const {
    if (row.how == assembly::transposed) std::swap(p.rows, p.cols);
    const std::int64_t share = is_half(row.taken) ? 2 : 1;
    switch (row.how) {
      case assembly::stack:
        return {p.cols, p.rows, m_.sizes[size::experts], 1};
      case assembly::keys:
        return mla::k_b_extents(m_.hyper, m_.layout);
      case assembly::values:
        return mla::v_b_extents(m_.hyper, m_.layout);
      case assembly::vector:
        return {p.cols / share, p.rows, 1, 1};
      case assembly::computed:
        return {static_cast<std::int64_t>(m_.rope_factors.size()), 1, 1, 1};
      default:
        return {p.cols, p.rows / share, p.slices, 1};
    }
  }

  std::vector<std::string> stored_names(const tensor_row& row, std::int64_t block) const {
    if (row.stored == head_name) return {from_.head + ".weight"};
    const std::string name = from_.body + numbered(row.stored, '#', block);
    if (row.how != assembly::stack) return {name};
    std::vector<std::string> names;
    for (std::int64_t e = 0; e < m_.sizes[size::experts]; ++e) names.push_back(numbered(name, '*', e));
    return names;
  }

  const model_config& m_;
  const name_prefixes& from_;
  std::vector<mapped_tensor> tensors_;
};

}  // namespace

std::vector<mapped_tensor> map_tensors(const model_config& c, const name_prefixes& from) {
  return mapper(c, from).all();
}

bool is_dropped(const std::string& name, const model_config& c, const name_prefixes& from) {
  constexpr auto other_parts = std::to_array<std::string_view>(
      {"vision_tower.", "vision_model.", "visual.", "model.vision_tower.", "model.visual.", "mm_projector.",
       "multi_modal_projector.", "model.multi_modal_projector.", "audio_tower.", "vision_encoder.",
       "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm."});
  constexpr auto activation_scales = std::to_array<std::string_view>(
      {".input_scale", ".input_global_scale", ".output_scale", ".k_scale", ".v_scale", ".q_scale",
       ".input_zero_point", ".qscale_act", ".activation_scale", "_proj_activation_scale"});
  const auto ends = [&](std::string_view s) { return name.ends_with(s); };
  const auto begins = [&](std::string_view s) { return name.starts_with(s); };
  if (name.ends_with(".rotary_emb.inv_freq")) return true;
  if (std::any_of(activation_scales.begin(), activation_scales.end(), ends)) return true;
  if (c.tied_embeddings && name == from.head + ".weight") return true;
  if (c.wrapped && std::any_of(other_parts.begin(), other_parts.end(), begins)) return true;
  if (c.sparse_from && name.find(".self_attn.indexer.") != std::string::npos) return true;
  const std::string layers = from.body + "layers.";
  if (!name.starts_with(layers)) return false;
  std::int64_t layer = -1;
  std::from_chars(name.data() + layers.size(), name.data() + name.size(), layer);
  return layer >= c.sizes[size::layers];
}

}  // namespace quantal::hf
