#include "coverage.hpp"

#include <algorithm>

#include "kept.hpp"
#include "quantal/imatrix/statistics.hpp"

namespace quantal::mla {

result<std::vector<coverage_row>> check_coverage(const imatrix::store& s, const gguf::reader& model) {
  const auto shape = imatrix::shape_of(model.meta());
  const auto traits = plan::traits_of(model.meta(), model.tensors());
  std::vector<coverage_row> rows;
  for (const auto& t : model.tensors()) {
    const auto exempt = plan::exemption_of(t.name, traits);
    if (!plan::is_quantized(t) || exempt == plan::exemption::lookup) continue;
    const auto found = imatrix::resolve(s, model, t, shape);
    if (!found) return error{model.path() + ": " + found.error().message};
    coverage_row r;
    r.name = t.name;
    r.from = found->from;
    r.detail = found->detail;
    r.optional = exempt != plan::exemption::no;
    if (r.from == imatrix::source::none && r.optional)
      r.detail = exempt == plan::exemption::output
                     ? "collected on request only"
                     : "no pass runs the block: quantizing takes a type that needs no data";
    auto counts = found->counts;
    if (!counts.empty()) {
      std::sort(counts.begin(), counts.end());
      r.least = counts.front(), r.median = counts[counts.size() / 2], r.most = counts.back();
      if (t.name.find("_exps.") != std::string::npos)
        r.experts = static_cast<std::int64_t>(counts.size()), r.unseen = found->unseen();
    }
    rows.push_back(std::move(r));
  }
  return rows;
}

}  // namespace quantal::mla
