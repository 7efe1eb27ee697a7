// What an importance matrix says about its tensors (imatrix.md section 8).
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantal/imatrix/store.hpp"

namespace quantal::imatrix {

/// Over the mean squared activations of all seen slices of one entry.
struct entry_statistics {
  std::string name;
  std::int64_t block = -1;  ///< -1: outside the blocks
  std::int64_t elements = 0;
  double sum = 0, min = 0, max = 0, mean = 0, deviation = 0;
  double active = 0;      ///< share with |a| > 1e-5
  double entropy = 0;     ///< bits
  double evenness = 0;    ///< entropy as a percentage of its maximum
  double outliers = 0;    ///< share more than one deviation above the mean
  double similarity = 0;  ///< cosine with the same tensor of the block before; 0 without one
};

inline std::int64_t block_of(std::string_view name) noexcept {
  if (!name.starts_with("blk.")) return -1;
  std::int64_t n = 0;
  std::size_t i = 4;
  for (; i < name.size() && i < 10 && name[i] >= '0' && name[i] <= '9'; ++i) n = 10 * n + (name[i] - '0');
  return i > 4 ? n : -1;
}

namespace detail {

inline double cosine(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return 0;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) ab += a[i] * b[i], aa += a[i] * a[i], bb += b[i] * b[i];
  return aa > 0 && bb > 0 ? ab / std::sqrt(aa * bb) : 0;
}

}  // namespace detail

inline entry_statistics statistics_of(const store& s, const std::string& name, const entry& e) {
  entry_statistics r;
  r.name = name;
  r.block = block_of(name);
  std::vector<double> a;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(e.sums.size()); ++i) {
    const auto count = e.counts[static_cast<std::size_t>(i / e.cols)];
    if (count > 0) a.push_back(e.sums[static_cast<std::size_t>(i)] / static_cast<double>(count));
  }
  r.elements = static_cast<std::int64_t>(a.size());
  if (!a.empty()) {
    r.min = std::numeric_limits<double>::infinity();
    double squares = 0;
    for (const double v : a)
      r.sum += v, squares += v * v, r.min = std::min(r.min, v), r.max = std::max(r.max, v),
                                    r.active += std::fabs(v) > 1e-5;
    const auto n = static_cast<double>(a.size());
    r.mean = r.sum / n;
    r.deviation = std::sqrt(std::max(0.0, squares / n - r.mean * r.mean));
    for (const double v : a) {
      if (r.sum > 0 && v > 0) r.entropy -= v / r.sum * std::log2(v / r.sum);
      r.outliers += r.deviation > 0 && (v - r.mean) / r.deviation > 1;
    }
    r.active /= n, r.outliers /= n;
    r.evenness = a.size() > 1 ? 100 * r.entropy / std::log2(n) : 100;
  }
  if (r.block > 0) {
    const std::string tail = name.substr(name.find('.', 4));
    const auto it = s.entries.find("blk." + std::to_string(r.block - 1) + tail);
    if (it != s.entries.end()) r.similarity = detail::cosine(e.sums, it->second.sums);
  }
  return r;
}

/// All entries, by kind of tensor and descending sum.
inline std::vector<entry_statistics> all_statistics(const store& s) {
  std::vector<entry_statistics> out;
  for (const auto& [name, e] : s.entries) out.push_back(statistics_of(s, name, e));
  const auto kind = [](const std::string& n) { return n.starts_with("blk.") ? n.substr(n.find('.', 4)) : n; };
  std::sort(out.begin(), out.end(), [&](const auto& a, const auto& b) {
    const auto x = kind(a.name), y = kind(b.name);
    return x != y ? x < y : a.sum != b.sum ? a.sum > b.sum : a.name < b.name;
  });
  return out;
}

}  // namespace quantal::imatrix
