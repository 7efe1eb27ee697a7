// Importance statistics as they are collected: raw sums of squared activations and row counts (imatrix.md).
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "quantal/finite.hpp"
#include "quantal/result.hpp"

namespace quantal::imatrix {

/// Statistics of one weight tensor: `slices` (experts or heads; 1 for plain matrices) vectors of `cols` sums.
struct entry {
  std::int64_t cols = 0, slices = 1;
  std::vector<double> sums;          ///< [slices][cols] sum of x^2
  std::vector<std::int64_t> counts;  ///< [slices] activation rows seen
  /// [slices][cols][2]: what the sums lack, larger part first. Then sums of any parts of a text add up to the very same
  /// numbers. Empty: not known.
  std::vector<double> rest;

  entry() = default;
  entry(std::int64_t c, std::int64_t s)
      : cols(c), slices(s), sums(static_cast<std::size_t>(c * s)), counts(static_cast<std::size_t>(s)) {}
  bool operator==(const entry&) const = default;
};

/// Chunks [first, last) of a text.
struct chunk_range {
  std::int64_t first = 0, last = 0;
  bool operator==(const chunk_range&) const = default;
};

struct store {
  std::map<std::string, entry> entries;  ///< by canonical tensor name
  std::vector<std::string> datasets;     ///< calibration files in order of use
  std::int64_t chunk_size = 512;         ///< tokens per chunk
  bool approximate_counts = false;       ///< a legacy file without row counts went in
  std::optional<chunk_range>
      chunks;  ///< the part of the only dataset that this is of, if it is known to be one
  bool operator==(const store&) const = default;

  /// Chunks that the best-seen entry represents.
  std::int64_t chunk_count() const noexcept {
    std::int64_t most = 0;
    for (const auto& [name, e] : entries)
      for (const auto c : e.counts) most = c > most ? c : most;
    return chunk_size > 0 ? most / chunk_size : 0;
  }
};

namespace detail {

/// a + b, and what rounding lost (Knuth).
inline double add_with_loss(double a, double b, double& lost) noexcept {
  const double sum = a + b, part = sum - a;
  lost = (a - (sum - part)) + (b - part);
  return sum;
}

}  // namespace detail

/// Adds to a sum and its rest. They hold 159 bits: a million squares of float32 add up exactly while the largest is less
/// than 2^90 times the smallest.
inline void add_exactly(double v, double& sum, double* rest) noexcept {
  double lost;
  sum = detail::add_with_loss(sum, v, lost);
  rest[0] = detail::add_with_loss(rest[0], lost, lost);
  rest[1] += lost;
}

/// Makes the same three numbers of the same sum, in whatever order it came about.
inline void settle(double& sum, double* rest) noexcept {
  for (int pass = 0; pass < 2; ++pass) {
    rest[0] = detail::add_with_loss(rest[0], rest[1], rest[1]);
    sum = detail::add_with_loss(sum, rest[0], rest[0]);
  }
  rest[0] = detail::add_with_loss(rest[0], rest[1], rest[1]);
}
inline void settle(entry& e) noexcept {
  for (std::size_t i = 0; 2 * i < e.rest.size(); ++i) settle(e.sums[i], &e.rest[2 * i]);
}

namespace detail {

inline void add_sums(entry& to, const entry& from) {
  const bool exact = !to.rest.empty() && !from.rest.empty();
  if (!exact) to.rest.clear();
  for (std::size_t i = 0; i < to.sums.size(); ++i) {
    if (!exact) {
      to.sums[i] += from.sums[i];
      continue;
    }
    for (const double v : {from.sums[i], from.rest[2 * i], from.rest[2 * i + 1]})
      add_exactly(v, to.sums[i], &to.rest[2 * i]);
    settle(to.sums[i], &to.rest[2 * i]);
  }
}

/// The parts of a text that follow each other are one part.
inline bool follows(const store& first, const store& second) {
  return first.chunks && second.chunks && first.chunks->last == second.chunks->first &&
         first.chunk_size == second.chunk_size && first.datasets == second.datasets;
}

}  // namespace detail

/// Adds `other` to `into`: sums and counts add up, so merging is exact and order matters only for `datasets`. An
/// entry with one count for all its values joins one that counts per slice. Parts of a text that follow each other
/// become one part, with the bytes that collecting it at once gives. Errors name the entry and both shapes.
inline result<void> merge(store& into, const store& other) {
  store merged = into;
  for (const auto& [name, e] : other.entries) {
    const auto [it, added] = merged.entries.try_emplace(name, e);
    if (added) continue;
    entry& m = it->second;
    if (m.sums.size() != e.sums.size())
      return error{"imatrix entry '" + name + "': " + std::to_string(m.slices) + " x " +
                   std::to_string(m.cols) + " values cannot be merged with " + std::to_string(e.slices) +
                   " x " + std::to_string(e.cols)};
    detail::add_sums(m, e);
    for (const double v : m.sums)
      if (!is_finite(v)) return error{"imatrix entry '" + name + "': the sums are not finite"};
    const entry& finer = m.slices >= e.slices ? m : e;
    if (m.slices != e.slices && m.slices != 1 && e.slices != 1)
      return error{"imatrix entry '" + name + "': " + std::to_string(m.slices) + " and " +
                   std::to_string(e.slices) + " slices"};
    std::vector<std::int64_t> counts(finer.counts.size());
    for (std::size_t s = 0; s < counts.size(); ++s) {
      const auto a = m.counts[m.slices == 1 ? 0 : s], b = e.counts[e.slices == 1 ? 0 : s];
      if (a > std::numeric_limits<std::int64_t>::max() - b)
        return error{"imatrix entry '" + name + "': the counts are too large to add"};
      counts[s] = a + b;
    }
    const std::int64_t slices = finer.slices, cols = finer.cols;
    m.slices = slices, m.cols = cols, m.counts = std::move(counts);
  }
  if (detail::follows(into, other)) {
    merged.chunks->last = other.chunks->last;
  } else {
    merged.chunks = into.entries.empty() && into.datasets.empty() ? other.chunks : std::nullopt;
    merged.datasets.insert(merged.datasets.end(), other.datasets.begin(), other.datasets.end());
  }
  merged.approximate_counts = into.approximate_counts || other.approximate_counts;
  into = std::move(merged);
  return {};
}

/// The GGUF name behind what other collectors recorded: scheduler copies `BACKEND#NAME#COPY`, graph suffixes such as
/// " (reshaped)" (possibly cut at the end of a name buffer), and per-device indices after ".weight".
inline std::string canonical_name(std::string_view name) {
  if (const auto first = name.find('#'); first != std::string_view::npos) {
    const auto second = name.find('#', first + 1);
    name = second == std::string_view::npos ? name.substr(first + 1)
                                            : name.substr(first + 1, second - first - 1);
  }
  if (const auto suffix = name.find(" ("); suffix != std::string_view::npos) name = name.substr(0, suffix);
  constexpr std::string_view weight = ".weight.";
  if (const auto at = name.rfind(weight);
      at != std::string_view::npos &&
      name.find_first_not_of("0123456789", at + weight.size()) == std::string_view::npos)
    name = name.substr(0, at + weight.size() - 1);
  return std::string(name);
}

}  // namespace quantal::imatrix
