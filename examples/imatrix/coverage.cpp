#include "coverage.hpp"

#include <algorithm>

#include "quantal/imatrix/statistics.hpp"

namespace quantal::mla {

bool wants_importance(const gguf::tensor_info& t) {
  return t.name.ends_with("weight") && (t.rows() > 1 || t.slices() > 1) && t.name.find("_norm.weight") == std::string::npos &&
         t.name.find("ffn_gate_inp.weight") == std::string::npos && t.name != "token_embd.weight";
}

result<std::vector<coverage_row>> check_coverage(const imatrix::store& s, const gguf::reader& model) {
  const auto shape = imatrix::shape_of(model.meta());
  const auto blocks = model.meta().integer("deepseek2.block_count"), extra = model.meta().integer("deepseek2.nextn_predict_layers");
  const std::int64_t run = (blocks ? *blocks : 1024) - (extra ? *extra : 0);
  std::vector<coverage_row> rows;
  for (const auto& t : model.tensors()) {
    if (!wants_importance(t)) continue;
    const auto found = imatrix::resolve(s, model, t, shape);
    if (!found) return error{model.path() + ": " + found.error().message};
    coverage_row r;
    r.name = t.name;
    r.from = found->from;
    r.detail = found->detail;
    r.optional = t.name == "output.weight" || imatrix::block_of(t.name) >= run;
    if (r.from == imatrix::source::none && r.optional) r.detail = t.name == "output.weight" ? "collected on request only" : "block is not run for calibration";
    auto counts = found->counts;
    if (!counts.empty()) {
      std::sort(counts.begin(), counts.end());
      r.least = counts.front(), r.median = counts[counts.size() / 2], r.most = counts.back();
      if (t.name.find("_exps.") != std::string::npos) r.experts = static_cast<std::int64_t>(counts.size()), r.unseen = found->unseen();
    }
    rows.push_back(std::move(r));
  }
  return rows;
}

}  // namespace quantal::mla
