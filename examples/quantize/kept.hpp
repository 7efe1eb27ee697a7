// Which tensors a quantization leaves alone (quantize.md section 2): small ones whose errors cost more than their bytes.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "file_types.hpp"
#include "quantal/gguf/tensor_info.hpp"

namespace quantal::plan {

/// Whether a tensor's name is on the list of those that stay. `d`: whose list; ik_llama.cpp keeps two tensors of
/// state-space models more.
inline bool is_kept_by_name(std::string_view name, dialect d) {
  constexpr auto parts = std::to_array<std::string_view>({
      "_norm.weight",  // norms
      "ffn_gate_inp.weight",
      "ffn_gate_tid2eid.weight",  // routing
      "indexer.q_proj.weight",
      "indexer.k_proj.weight",  // block selection
      "altup",
      "laurel",
      "per_layer_model_proj",  // small mixers of gemma3n
      "ssm_conv1d",
      "shortconv.conv.weight",  // convolutions
      "time_mix_first.weight",
      "time_mix_w0.weight",
      "time_mix_w1.weight",
      "time_mix_w2.weight",  // recurrent state
      "time_mix_v0.weight",
      "time_mix_v1.weight",
      "time_mix_v2.weight",
      "time_mix_a0.weight",
      "time_mix_a1.weight",
      "time_mix_a2.weight",
      "time_mix_g1.weight",
      "time_mix_g2.weight",
      "time_mix_decay_w1.weight",
      "time_mix_decay_w2.weight",
      "time_mix_lerp_fused.weight",
      "attn_rel_b.weight",
      ".rel_pos",  // relative positions
      ".patch_embd",
      ".patch_merger",
      "sam.neck",
      "sam.net_",
      "sam.pos_embd",  // image encoders
  });
  constexpr auto components = std::to_array<std::string_view>({"position_embd.weight", "token_types.weight"});
  constexpr auto state_space = std::to_array<std::string_view>({"ssm_x.weight", "ssm_dt.weight"});
  const auto contains = [&](std::string_view part) { return name.find(part) != std::string_view::npos; };
  const auto ends = [&](std::string_view part) {
    return name.ends_with(part) && (name.size() == part.size() || name[name.size() - part.size() - 1] == '.');
  };
  return std::any_of(parts.begin(), parts.end(), contains) ||
         std::any_of(components.begin(), components.end(), ends) ||
         (d == dialect::ik && std::any_of(state_space.begin(), state_space.end(), contains));
}

/// A number of values that a format here can hold; integers and f64 never change.
inline bool is_convertible(const gguf::tensor_info& t) { return gguf::find_plain_type(t.type) == nullptr; }

/// Whether quantizing touches a tensor that no rule names: a matrix named *weight that is not on the list.
inline bool is_quantized(const gguf::tensor_info& t, dialect d = dialect::llama_cpp) {
  return t.name.ends_with("weight") && (t.rows() > 1 || t.slices() > 1) && is_convertible(t) &&
         !is_kept_by_name(t.name, d);
}

}  // namespace quantal::plan
