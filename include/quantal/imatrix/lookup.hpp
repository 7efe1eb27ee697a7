// Which importance a tensor is quantized with, where it comes from, and how under-seen experts are treated.
//
// Statistics are stored raw; everything that adapts them happens here, at use time: other names for the same input,
// other layouts of the same bytes, and shrinking experts that saw few rows toward what all experts saw
// (imatrix.md sections 5 and 7).
#pragma once

#include <array>
#include <cmath>
#include <optional>

#include "quantal/imatrix/store.hpp"

namespace quantal::imatrix {

enum class source { own, alias, layout, pooled, proxy, none };

constexpr std::string_view to_string(source s) noexcept {
  switch (s) {
    case source::own:
      return "own entry";
    case source::alias:
      return "same-input alias";
    case source::layout:
      return "layout adaptation";
    case source::pooled:
      return "pooled";
    case source::proxy:
      return "proxy";
    case source::none:
      return "none";
  }
  return "";
}

/// A tensor that wants importance.
struct tensor_shape {
  std::string name;
  std::int64_t cols, rows, slices;
};

/// What the adaptations need to know of the model.
struct model_shape {
  std::int64_t heads = 0, experts = 0;
  std::int64_t nope = 0, value = 0;  ///< rows of attn_kv_b per head: nope, then value; 0: unknown
};

struct lookup_options {
  double shrinkage = 64;  ///< rows that the pooled (or neutral) vector counts for against an expert's own
};

/// Importance of a tensor: `vectors` vectors of `cols` weights, each serving an equal run of consecutive rows
/// (counted through all slices).
struct importance {
  source from = source::none;
  std::string detail;  ///< what was used, for the plan and --check
  std::int64_t cols = 0, vectors = 0, rows_per_vector = 0;
  std::vector<float> weights;
  std::vector<std::int64_t> counts;  ///< rows seen per slice of the statistics

  explicit operator bool() const noexcept { return from != source::none; }
  /// Weights for row `row` of slice `slice` of a tensor with `rows` rows per slice; null without data.
  const float* row(std::int64_t slice, std::int64_t row, std::int64_t rows) const noexcept {
    if (from == source::none) return nullptr;
    const std::int64_t v = rows_per_vector ? (slice * rows + row) / rows_per_vector : 0;
    return weights.data() + v * cols;
  }
  std::int64_t unseen() const noexcept {
    std::int64_t n = 0;
    for (const auto c : counts) n += c == 0;
    return n;
  }
};

namespace detail {

inline std::optional<std::string> renamed(const std::string& name, std::string_view from,
                                          std::string_view to) {
  const std::string tail = "." + std::string(from) + ".weight";
  if (!name.ends_with(tail)) return std::nullopt;
  return name.substr(0, name.size() - tail.size()) + "." + std::string(to) + ".weight";
}

/// Tensors whose input is the same vector: the statistics of one serve the other exactly.
inline std::vector<std::string> same_input(const std::string& name) {
  static constexpr std::array<std::array<std::string_view, 4>, 5> groups{{
      {"ffn_gate_exps", "ffn_up_exps", "ffn_gate_up_exps", ""},
      {"ffn_gate_shexp", "ffn_up_shexp", "ffn_gate_inp", ""},
      {"ffn_gate", "ffn_up", "", ""},
      {"attn_q_a", "attn_kv_a_mqa", "attn_qk_a_mqa", ""},
      {"attn_q", "attn_kv_a_mqa", "attn_qk_a_mqa", ""},
  }};
  std::vector<std::string> out;
  for (const auto& group : groups)
    for (const auto& member : group)
      for (const auto& other : group)
        if (!member.empty() && !other.empty() && member != other)
          if (auto n = renamed(name, member, other)) out.push_back(*n);
  return out;
}

inline bool is_down(const std::string& name) { return name.find(".ffn_down_exps.") != std::string::npos; }

/// Means per slice, shrunk for experts. Gate and up experts share one input space, so the vector of an under-seen
/// expert moves toward the mean over all experts; the hidden units of different down experts are unrelated, so it
/// moves toward equal weights.
inline std::vector<float> means(const entry& e, std::int64_t slices, bool experts, bool down,
                                double shrinkage) {
  const std::int64_t cols = static_cast<std::int64_t>(e.sums.size()) / slices;
  const auto count = [&](std::int64_t s) {
    return static_cast<double>(e.counts[static_cast<std::size_t>(e.slices == 1 ? 0 : s)]);
  };
  const auto sum = [&](std::int64_t s, std::int64_t c) {
    return e.sums[static_cast<std::size_t>(s * cols + c)];
  };
  std::vector<double> pool(static_cast<std::size_t>(cols), 0.0);
  double rows = 0, all = 0;
  for (std::int64_t s = 0; s < slices; ++s) {
    rows += count(s);
    for (std::int64_t c = 0; c < cols; ++c) pool[static_cast<std::size_t>(c)] += sum(s, c), all += sum(s, c);
  }
  for (auto& p : pool) p = rows > 0 ? p / rows : 1.0;
  const double overall = rows > 0 ? all / (rows * static_cast<double>(cols)) : 1.0;
  std::vector<float> out(e.sums.size());
  for (std::int64_t s = 0; s < slices; ++s) {
    double own = 0;
    for (std::int64_t c = 0; c < cols; ++c) own += sum(s, c);
    const double neutral = count(s) > 0 ? own / (count(s) * static_cast<double>(cols)) : overall;
    const double lambda = experts ? shrinkage : 0.0;
    for (std::int64_t c = 0; c < cols; ++c) {
      const double prior = down ? neutral : pool[static_cast<std::size_t>(c)];
      const double n = count(s) + lambda;
      out[static_cast<std::size_t>(s * cols + c)] =
          static_cast<float>(n > 0 ? (sum(s, c) + lambda * prior) / n : 1.0);
    }
  }
  return out;
}

/// One vector: the mean over slices.
inline std::vector<float> average(const std::vector<float>& w, std::int64_t cols) {
  const std::int64_t slices = static_cast<std::int64_t>(w.size()) / cols;
  std::vector<double> sum(static_cast<std::size_t>(cols));
  for (std::size_t i = 0; i < w.size(); ++i) sum[i % static_cast<std::size_t>(cols)] += w[i];
  std::vector<float> out;
  out.reserve(sum.size());
  for (const double s : sum) out.push_back(static_cast<float>(s / static_cast<double>(slices)));
  return out;
}

/// Adapts an entry to a tensor; the number of vectors must be 1, the heads (for *_b) or the experts (for *_exps).
inline result<importance> adapt(const entry& e, const std::string& entry_name, const tensor_shape& t,
                                const model_shape& model, const lookup_options& options, source from) {
  const auto n = static_cast<std::int64_t>(e.sums.size());
  const auto refuse = [&]() -> error {
    return {"imatrix entry '" + entry_name + "' with " + std::to_string(n) + " values in " +
            std::to_string(e.slices) + " slices does not fit tensor '" + t.name + "' [" +
            std::to_string(t.cols) + ", " + std::to_string(t.rows) + ", " + std::to_string(t.slices) + "]"};
  };
  if (t.cols <= 0 || n % t.cols != 0) return refuse();
  const std::int64_t vectors = n / t.cols, rows = t.rows * t.slices;
  const bool experts = t.name.find("_exps.") != std::string::npos;
  const bool up_projection =
      t.name.find(".attn_k_b.") != std::string::npos || t.name.find(".attn_v_b.") != std::string::npos;
  if (vectors != 1 && !(experts && vectors == t.slices && (model.experts == 0 || vectors == model.experts)) &&
      !(up_projection && (model.heads == 0 ? vectors == t.slices : vectors == model.heads)) &&
      vectors != t.slices)
    return refuse();
  if (rows % vectors != 0 || (e.slices != 1 && e.slices != vectors)) return refuse();
  importance out;
  out.from = from;
  out.detail = entry_name;
  out.cols = t.cols;
  out.vectors = vectors;
  out.rows_per_vector = rows / vectors;
  out.weights = means(e, vectors, experts, is_down(t.name), options.shrinkage);
  out.counts = e.counts;
  if (from == source::own && vectors != t.slices) out.from = source::layout;
  if (out.from == source::own && experts && out.unseen() > 0)
    out.detail += " (" + std::to_string(out.unseen()) + " unseen experts pooled)";
  return out;
}

/// attn_kv_b and attn_v_b both multiply latents, attn_v_b after attention has averaged them: each can stand in for
/// the other, approximately.
inline result<importance> up_projection_proxy(const store& s, const tensor_shape& t, const model_shape& model,
                                              const lookup_options& options) {
  if (t.cols <= 0) return importance{};
  for (const auto& [to, from] : {std::pair{"attn_kv_b", "attn_v_b"}, std::pair{"attn_v_b", "attn_kv_b"}}) {
    const auto name = renamed(t.name, to, from);
    const auto it = name ? s.entries.find(*name) : s.entries.end();
    if (it == s.entries.end()) continue;
    entry e = it->second;
    if (static_cast<std::int64_t>(e.sums.size()) % t.cols != 0) continue;
    const std::int64_t vectors = static_cast<std::int64_t>(e.sums.size()) / t.cols;
    importance out;
    out.from = source::proxy;
    out.detail = *name + (vectors > 1 ? " (mean over heads)" : " (for every head)");
    out.cols = t.cols, out.vectors = 1;
    out.rows_per_vector = t.rows * t.slices;
    out.weights = average(means(e, vectors, false, false, options.shrinkage), t.cols);
    out.counts = e.counts;
    return out;
  }
  (void)model;
  return importance{};
}

}  // namespace detail

/// Finds importance for a tensor: its own entry, a tensor with the same input, another layout of the same bytes, or a
/// proxy, in this order. No data is not an error; data that does not fit is, and names both shapes.
inline result<importance> resolve(const store& s, const tensor_shape& t, const model_shape& model = {},
                                  const lookup_options& options = {}) {
  if (const auto it = s.entries.find(t.name); it != s.entries.end())
    return detail::adapt(it->second, t.name, t, model, options, source::own);
  for (const auto& other : detail::same_input(t.name)) {
    const auto it = s.entries.find(other);
    if (it == s.entries.end()) continue;
    auto found = detail::adapt(it->second, other, t, model, options, source::alias);
    if (found) return found;
    // Experts' statistics are per expert, a shared expert's are not: another member of the group may fit.
  }
  return detail::up_projection_proxy(s, t, model, options);
}

}  // namespace quantal::imatrix
