#include "importance.hpp"

#include <algorithm>
#include <array>

namespace quantal::plan {
namespace {

bool is_embedding(const std::string& name) {
  return name == "token_embd.weight" || name == "per_layer_token_embd.weight";
}

}  // namespace

exemption exemption_of(const std::string& name, const model_traits& model) {
  if (is_embedding(name)) return exemption::lookup;
  if (name == "output.weight") return exemption::output;
  const auto block = block_index(name);
  const bool unrun = block && *block >= model.blocks - model.unrun_blocks;
  return unrun || name.find(".nextn.") != std::string::npos ? exemption::unreached : exemption::no;
}

bool needs_importance(const format_info& f, const file_type& type, dialect family) {
  constexpr auto both =
      std::to_array<std::string_view>({"iq2_xxs", "iq2_xs", "iq2_s", "iq1_s", "iq1_m", "iq1_kt", "iq2_kt"});
  return std::find(both.begin(), both.end(), f.name) != both.end() ||
         (f.name == "iq3_xxs" && family == dialect::llama_cpp) || (f.name == "q2_K" && type.name == "Q2_K_S");
}

result<importance_note> find_importance(const gguf::model_view& model, const gguf::tensor_info& t,
                                        const imatrix::store& s, const imatrix::model_shape& shape) {
  auto found = imatrix::resolve(s, model, t, shape);
  if (!found && is_embedding(t.name)) return importance_note{};
  if (!found) return found.error();
  return importance_note{found->from, found->detail, found->vectors, found->unseen()};
}

const format_info& safe_format() { return *find_format("q4_K"); }

}  // namespace quantal::plan
