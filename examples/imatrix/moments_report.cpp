#include "moments_report.hpp"

#include <algorithm>
#include <cstdio>
#include <numeric>

#include "importance.hpp"
#include "kept.hpp"
#include "output_aware.hpp"
#include "quantal/imatrix/model.hpp"
#include "summary.hpp"
#include "text.hpp"

namespace quantal::mla {
namespace {

/// Of one slice.
struct entries {
  double trace = 0, squares_on = 0, squares_off = 0;

  entries(const imatrix::moments& m, std::int64_t slice) {
    const float* v = m.sums.data() + slice * imatrix::triangle(m.cols);
    for (std::int64_t i = 0; i < m.cols; ++i) {
      for (std::int64_t j = 0; j < i; ++j, ++v) squares_off += 2.0 * *v * *v;
      trace += *v, squares_on += double{*v} * *v, ++v;
    }
  }
  double squares() const { return squares_on + squares_off; }
};

double share(double part, double whole) { return whole > 0 ? part / whole : 0; }

double squared_mean(const imatrix::moments& m, std::int64_t slice) {
  const float* v = m.mean.data() + slice * m.cols;
  return std::inner_product(v, v + m.cols, v, 0.0);
}

}  // namespace

moments_statistics statistics_of(const std::string& name, const imatrix::moments& m) {
  moments_statistics s;
  s.name = name, s.cols = m.cols, s.slices = m.slices;
  s.unseen = std::count(m.counts.begin(), m.counts.end(), 0.0);
  s.inputs = std::accumulate(m.counts.begin(), m.counts.end(), 0.0);
  s.held_out = std::accumulate(m.held_counts.begin(), m.held_counts.end(), 0.0);
  const auto [least, most] = std::minmax_element(m.counts.begin(), m.counts.end());
  s.least = *least, s.most = *most;
  const double seen = static_cast<double>(s.slices - s.unseen);
  for (std::int64_t i = 0; i < m.slices && seen > 0; ++i) {
    const double n = m.counts[static_cast<std::size_t>(i)];
    if (n <= 0) continue;
    const entries e(m, i);
    s.kept += plan::kept_share(n, m.cols) / seen;
    s.off_diagonal += share(e.squares_off, e.squares()) / seen;
    s.effective_rank += share(e.trace * e.trace, e.squares()) / seen;
    s.mean_share += share(n * squared_mean(m, i), e.trace) / seen;
  }
  return s;
}

result<std::vector<moments_statistics>> all_statistics(const imatrix::moments_file& file) {
  std::vector<moments_statistics> rows;
  for (const auto& name : file.names()) {
    const auto m = file.read(name);
    if (!m) return m.error();
    rows.push_back(statistics_of(name, *m));
  }
  return rows;
}

void print_statistics(const std::vector<moments_statistics>& rows) {
  std::printf("%-36s %6s %7s %6s %10s %10s %10s %10s %6s %8s %8s %6s\n", "Second moments", "Cols", "Slices",
              "Unseen", "Inputs", "Least", "Most", "Held out", "Kept", "OffDiag", "Rank", "Mean");
  for (const auto& r : rows)
    std::printf("%-36s %6lld %7lld %6lld %10.0f %10.0f %10.0f %10.0f %6.3f %7.2f%% %8.1f %5.1f%%\n",
                text::printable(r.name).c_str(), static_cast<long long>(r.cols),
                static_cast<long long>(r.slices), static_cast<long long>(r.unseen), r.inputs, r.least, r.most,
                r.held_out, r.kept, 100 * r.off_diagonal, r.effective_rank, 100 * r.mean_share);
}

json statistics_json(const std::vector<moments_statistics>& rows) {
  json list = json::array();
  for (const auto& r : rows)
    list.push_back({{"tensor", r.name},
                    {"cols", r.cols},
                    {"slices", r.slices},
                    {"unseen", r.unseen},
                    {"inputs", r.inputs},
                    {"least_inputs", r.least},
                    {"most_inputs", r.most},
                    {"held_out", r.held_out},
                    {"kept", r.kept},
                    {"off_diagonal", r.off_diagonal},
                    {"effective_rank", r.effective_rank},
                    {"mean_share", r.mean_share}});
  return list;
}

result<std::vector<moments_row>> check_moments(const imatrix::moments_file& file, const gguf::reader& model) {
  const auto shape = imatrix::shape_of(model.meta());
  const auto traits = plan::traits_of(model.meta(), model.tensors());
  std::vector<moments_row> rows;
  for (const auto& t : model.tensors()) {
    const auto exempt = plan::exemption_of(t.name, traits);
    if (!plan::is_quantized(t) || exempt == plan::exemption::lookup) continue;
    auto note = plan::find_moments(file, t, shape);
    if (!note) return note.error();
    rows.push_back({t.name, std::move(*note), exempt != plan::exemption::no});
  }
  return rows;
}

bool print_check(const std::vector<moments_row>& rows) {
  std::int64_t gaps = 0;
  for (const auto& r : rows) {
    gaps += r.gap();
    std::printf("%-36s %s%s\n", text::printable(r.name).c_str(), plan::describe(r.note, r.name).c_str(),
                r.gap() ? "  <-- NO MOMENTS" : "");
  }
  std::printf("%lld of %zu tensors without second moments\n", static_cast<long long>(gaps), rows.size());
  return gaps == 0;
}

json check_json(const std::vector<moments_row>& rows) {
  json list = json::array();
  for (const auto& r : rows) {
    json row = {{"tensor", r.name}};
    row.update(plan::moments_json(r.note, r.name));
    row["gap"] = r.gap();
    list.push_back(std::move(row));
  }
  return list;
}

}  // namespace quantal::mla
