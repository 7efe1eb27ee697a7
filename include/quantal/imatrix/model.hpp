// Importance for the tensors of a GGUF model: lookup with the shapes of its metadata, and the one proxy that needs
// the model's weights.
#pragma once

#include "quantal/dequantize.hpp"
#include "quantal/gguf/model_view.hpp"
#include "quantal/imatrix/lookup.hpp"

namespace quantal::imatrix {

/// Heads, experts and rows per head from the metadata; 0 for what it does not say.
inline model_shape shape_of(const gguf::metadata& meta) {
  const auto architecture = meta.string("general.architecture");
  const auto number = [&](const char* key) -> std::int64_t {
    const auto v = meta.integers((architecture ? *architecture : std::string()) + "." + key);
    return v && !v->empty() ? std::max<std::int64_t>(v->front(), 0) : 0;
  };
  const auto either = [&](const char* first, const char* second) {
    return number(first) ? number(first) : number(second);
  };
  model_shape s;
  s.heads = number("attention.head_count");
  s.experts = number("expert_count");
  s.nope = std::max<std::int64_t>(
      either("attention.key_length_mla", "attention.key_length") - number("rope.dimension_count"), 0);
  s.value = either("attention.value_length_mla", "attention.value_length");
  return s;
}

inline tensor_shape shape_of(const gguf::tensor_info& t) { return {t.name, t.cols(), t.rows(), t.slices()}; }

namespace detail {

/// Adds up w[j] * row[j]^2, the expected square of an output whose inputs are uncorrelated.
inline double expected_square(const float* row, const float* w, std::int64_t cols) noexcept {
  double sum = 0;
  for (std::int64_t j = 0; j < cols; ++j) sum += static_cast<double>(w[j]) * row[j] * row[j];
  return sum;
}

/// attn_k_b multiplies the first `nope` outputs of each head of attn_q_b (or attn_q): their expected squares follow
/// from that tensor's weights and its own statistics (imatrix.md section 7). Nothing if those are missing.
inline result<importance> key_projection_proxy(const store& s, const gguf::model_view& model,
                                               const tensor_shape& t, const model_shape& shape,
                                               const lookup_options& options) {
  for (const char* query : {"attn_q_b", "attn_q"}) {
    const auto name = renamed(t.name, "attn_k_b", query);
    const auto* q = name ? model.find(*name) : nullptr;
    if (!q || shape.heads <= 0 || q->rows() % shape.heads != 0 || q->rows() / shape.heads < t.cols) continue;
    if ((t.rows * t.slices) % shape.heads != 0) continue;
    const auto* format = find_format(q->type);
    if (!format || format->usage != role::weight) continue;
    const auto input = resolve(s, shape_of(*q), shape, options);
    if (!input) return input.error();
    if (!*input) continue;
    const auto rows = model.rows(*q);
    if (!rows) return rows.error();
    importance out;
    out.from = source::proxy;
    out.detail = *name + " and its weights";
    out.cols = t.cols, out.vectors = shape.heads;
    out.rows_per_vector = t.rows * t.slices / shape.heads;
    out.counts = input->counts;
    std::vector<float> row(static_cast<std::size_t>(q->cols()));
    std::vector<std::byte> scratch(static_cast<std::size_t>(format->row_bytes(q->cols())));
    for (std::int64_t h = 0; h < shape.heads; ++h)
      for (std::int64_t n = 0; n < t.cols; ++n) {
        const std::int64_t r = h * (q->rows() / shape.heads) + n;
        if (const auto st = dequantize_row(q->type, rows->row(r, scratch.data()), row.data(), q->cols());
            st != status::ok)
          return error{model.path() + ": tensor '" + *name + "': " + std::string(to_string(st))};
        out.weights.push_back(
            static_cast<float>(expected_square(row.data(), input->row(0, r, q->rows()), q->cols())));
      }
    return out;
  }
  return importance{};
}

}  // namespace detail

/// As resolve() for a tensor of `model`, which may also derive importance from other weights of the model.
inline result<importance> resolve(const store& s, const gguf::model_view& model, const gguf::tensor_info& t,
                                  const model_shape& shape, const lookup_options& options = {}) {
  auto found = resolve(s, shape_of(t), shape, options);
  if (!found || *found) return found;
  return detail::key_projection_proxy(s, model, shape_of(t), shape, options);
}

}  // namespace quantal::imatrix
