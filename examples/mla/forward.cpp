#include "forward.hpp"

#include <cmath>
#include <cstring>

namespace quantal::mla {
namespace {

constexpr std::int64_t flash_tile = 64;
constexpr std::int64_t materialise_from = 128;  ///< batch size from which modes 2 and 3 go through attn_kv_b

void rms_norm(const float* x, const std::vector<float>& gain, double epsilon, float* out) {
  double sum = 0;
  for (std::size_t i = 0; i < gain.size(); ++i) sum += static_cast<double>(x[i]) * x[i];
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(gain.size()) + epsilon));
  for (std::size_t i = 0; i < gain.size(); ++i) out[i] = x[i] * scale * gain[i];
}

void silu_times(const float* gate, const float* up, std::int64_t n, float* out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

void copy(const float* from, std::int64_t n, float* to) {
  std::memcpy(to, from, static_cast<std::size_t>(n) * sizeof(float));
}

}  // namespace

void block_cache::reserve(const config& c, const run_options& o, std::int64_t rows, std::int64_t context) {
  grow(latent, rows * (c.kv_rank + c.rope));
  if (o.mla != 0) return;
  grow(keys, c.heads * context * c.key());
  grow(values, c.heads * context * c.value);
}

/// One segment of a batch as attention sees it.
struct forward::attention_rows {
  const float* q;        ///< [n, heads, key]
  const float* latents;  ///< of the sequence, from position 0 on
  block_cache* cache;
  std::int64_t n, position, first_row;
  std::int64_t tile;
  float* out;       ///< [n, heads, value]
  float* attended;  ///< [n, heads, kv_rank]: input of attn_v_b
};

forward::forward(const model& m, const runtime::dispatcher& arch, executor_ref executor, std::int64_t context,
                 run_options options)
    : c_(m.hyper),
      tensors_(m.tensors),
      arch_(arch),
      executor_(executor),
      options_(options),
      context_(context),
      products_(m, arch, executor, options.policy, options.device),
      rope_(m.hyper, context),
      route_(m.hyper) {
  for (int w = 0; w < executor_.workers(); ++w) heads_.emplace_back(arch);
}

std::int64_t forward::scratch_per_token(const config& c, const run_options& o, bool all_experts) {
  const std::int64_t latent = c.kv_rank + c.rope;
  const std::int64_t used = all_experts ? c.experts + c.experts_used : c.experts_used;
  return 2 * c.embedding + c.q_rank + 2 * latent +
         c.heads * (c.key() + c.value + c.kv_rank + (o.mla == 1 || !o.flash ? latent : 0)) +
         2 * std::max(c.dense_hidden, used * c.expert_hidden) + c.experts_used * c.embedding;
}

template <class Body>
void forward::for_tokens(std::int64_t n, Body body) const {
  constexpr std::int64_t chunk = 8;
  executor_.for_each(static_cast<int>((n + chunk - 1) / chunk), [&](int task, int) {
    for (std::int64_t t = task * chunk; t < std::min(n, (task + 1) * chunk); ++t) body(t);
  });
}

void forward::normalise(const float* h, const std::vector<float>& gain, std::int64_t n, float* out) const {
  const std::int64_t d = c_.embedding;
  for_tokens(n, [&](std::int64_t t) { rms_norm(h + t * d, gain, c_.rms_epsilon, out + t * d); });
}

void forward::add(float* h, const float* y, std::int64_t n) const {
  const std::int64_t d = c_.embedding;
  for_tokens(n, [&](std::int64_t t) {
    for (std::int64_t i = t * d; i < (t + 1) * d; ++i) h[i] += y[i];
  });
}

// --- the whole ----------------------------------------------------------------------------------------------------

result<void> forward::embed(std::span<const std::int32_t> tokens, float* h) {
  const matrix& table = tensors_.token_embd;
  for (std::size_t t = 0; t < tokens.size(); ++t, h += c_.embedding) {
    const std::int32_t id = tokens[t];
    if (id < 0 || id >= c_.vocabulary)
      return products_.at_file("token " + std::to_string(id) + " is outside the vocabulary of " +
                               std::to_string(c_.vocabulary));
    arch_.find(table.format)->dequantize_row(table.data + id * table.row_stride, h, c_.embedding);
    table.scale.apply(0, h, c_.embedding);
    if (!all_finite(h, c_.embedding))
      return products_.at_file("tensor '" + table.name + "', row " + std::to_string(id) +
                               " holds a NaN or an infinity");
  }
  return {};
}

result<void> forward::block(std::int64_t number, const layer& l, const batch& b, observer* watch) {
  if (auto r = attention_half(l, b, watch); !r) return r;
  return feed_forward_half(number, l, b, watch);
}

/// The first half of a block, or the second: the stream of `b`, normalised, and room for what is added to it.
struct forward::half {
  float *x, *y;
};

forward::half forward::begin_half(const std::vector<float>& gain, const batch& b, observer* watch) {
  watch_ = watch;
  products_.set_batch(b.parts);
  float* x = grow(normed_, (b.n + products_.most_padding(c_.experts_used, c_.experts)) * c_.embedding);
  normalise(b.stream, gain, b.n, x);
  return {x, grow(block_out_, b.n * c_.embedding)};
}

result<void> forward::attention_half(const layer& l, const batch& b, observer* watch) {
  const auto h = begin_half(l.attn_norm, b, watch);
  if (auto r = attend(l, b, h.x, h.y); !r) return r;
  if (!seen_enough()) add(b.stream, h.y, b.n);
  return {};
}

result<void> forward::feed_forward_half(std::int64_t number, const layer& l, const batch& b,
                                        observer* watch) {
  const auto h = begin_half(l.ffn_norm, b, watch);
  const auto r =
      number < c_.dense_layers ? dense(l.gate, l.up, l.down, h.x, b.n, h.y) : experts(l, h.x, b.n, h.y);
  if (!r) return r;
  if (!seen_enough()) add(b.stream, h.y, b.n);
  return {};
}

result<void> forward::output(const float* h, std::span<const segment> parts, std::int64_t n,
                             observer* watch) {
  watch_ = watch;
  products_.set_batch(parts);
  float* x = grow(normed_, n * c_.embedding);
  normalise(h, tensors_.output_norm, n, x);
  return report(tensors_.output.name, x, c_.embedding, n, c_.embedding);
}

result<void> forward::logits(std::int64_t first, std::int64_t n, std::span<float> out) {
  if (n < 0 || out.size() < static_cast<std::size_t>(n * c_.vocabulary))
    return products_.at_file("logits buffer too small");
  return products_.multiply(tensors_.output, 0, normed_.data() + first * c_.embedding, n, c_.embedding,
                            out.data(), c_.vocabulary, first);
}

/// A dense product that the observer sees.
result<void> forward::observed(const matrix& m, const float* x, std::int64_t n, float* out) {
  if (auto r = report(m.name, x, m.cols, n, m.cols); !r) return r;
  return products_.multiply(m, 0, x, n, m.cols, out, m.rows, 0);
}

bool forward::seen_enough() const { return watch_ && watch_->done(); }

result<void> forward::report(std::string_view name, const float* x, std::int64_t cols, std::int64_t n,
                             std::int64_t stride, std::int64_t slices, std::int64_t slice_stride) {
  return watch_ ? watch_->on_mul_mat({name, x, cols, n, stride, slices, slice_stride}) : result<void>{};
}

// --- attention ----------------------------------------------------------------------------------------------------

result<void> forward::queries(const layer& l, const float* x, std::int64_t n, float* q) {
  if (!c_.q_rank) return observed(l.q, x, n, q);
  float* low = grow(q_low_, n * c_.q_rank);
  if (auto r = observed(l.q_a, x, n, low); !r) return r;
  for_tokens(n, [&](std::int64_t t) {
    rms_norm(low + t * c_.q_rank, l.q_a_norm, c_.rms_epsilon, low + t * c_.q_rank);
  });
  return observed(l.q_b, low, n, q);
}

/// The queries of one token.
void forward::temper(std::int64_t position, float* q) const {
  if (c_.temperature_scale == 0) return;
  const auto by = static_cast<float>(c_.temperature(position));
  for (std::int64_t i = 0; i < c_.heads * c_.key(); ++i) q[i] *= by;
}

result<void> forward::attend(const layer& l, const batch& b, const float* x, float* out) {
  const std::int64_t w = latent_width(), heads = c_.heads;
  float* q = grow(q_, b.n * heads * c_.key());
  if (auto r = queries(l, x, b.n, q); !r) return r;
  float* joint = grow(joint_, b.n * w);
  if (auto r = observed(l.kv_a, x, b.n, joint); !r) return r;
  float* const latents = b.cache->latent.data() + b.cache_row * w;
  for (const auto& p : b.parts)
    for_tokens(p.n, [&](std::int64_t i) {
      const std::int64_t t = p.first + i, position = p.position + i;
      rms_norm(joint + t * w, l.kv_a_norm, c_.rms_epsilon, latents + t * w);
      rope_.rotate(joint + t * w + c_.kv_rank, position, latents + t * w + c_.kv_rank);
      for (std::int64_t h = 0; h < heads; ++h) {
        float* part = q + (t * heads + h) * c_.key() + c_.nope;
        rope_.rotate(part, position, part);
      }
      temper(position, q + t * heads * c_.key());
    });
  // attn_kv_b and attn_k_b see the same inputs in every mode; attn_v_b's input is made by the attention itself.
  if (auto r = report(l.kv_b.name, latents, c_.kv_rank, b.n, w); !r) return r;
  if (auto r = report(l.k_b.name, q, c_.nope, b.n, heads * c_.key(), heads, c_.key()); !r) return r;
  if (seen_enough()) return {};
  float* heads_out = grow(heads_out_, b.n * heads * c_.value);
  float* attended = grow(attended_, b.n * heads * c_.kv_rank);
  for (const auto& p : b.parts) {
    const bool large = p.n >= materialise_from;
    const bool tiled = options_.flash && (options_.mla != 2 || large);
    const attention_rows a{q + p.first * heads * c_.key(),
                           latents + (p.first - p.position) * w,
                           b.cache,
                           p.n,
                           p.position,
                           p.first,
                           tiled ? flash_tile : p.position + p.n,
                           heads_out + p.first * heads * c_.value,
                           attended + p.first * heads * c_.kv_rank};
    const bool through_kv_b = options_.mla == 0 || (options_.mla >= 2 && options_.flash && large);
    if (auto r = through_kv_b ? attend_materialised(l, a) : attend_absorbed(l, a); !r) return r;
  }
  if (auto r = report(l.v_b.name, attended, c_.kv_rank, b.n, heads * c_.kv_rank, heads, c_.kv_rank); !r)
    return r;
  return observed(l.attn_output, heads_out, b.n, out);
}

/// Every worker's attention of a layer.
result<void> forward::check_heads(const layer& l) const {
  for (const auto& head : heads_)
    if (auto r = products_.check(l.attn_output, head.outcome()); !r) return r;
  return {};
}

/// Per head: keys and queries in latent space, values are the latents themselves.
result<void> forward::attend_absorbed(const layer& l, const attention_rows& a) {
  const std::int64_t w = latent_width(), heads = c_.heads;
  float* absorbed = grow(absorbed_, a.n * heads * w);
  for (std::int64_t h = 0; h < heads; ++h)
    if (auto r = products_.multiply(l.k_b, h, a.q + h * c_.key(), a.n, heads * c_.key(), absorbed + h * w,
                                    heads * w, a.first_row);
        !r)
      return r;
  for_tokens(a.n, [&](std::int64_t t) {
    for (std::int64_t h = 0; h < heads; ++h)
      copy(a.q + (t * heads + h) * c_.key() + c_.nope, c_.rope, absorbed + (t * heads + h) * w + c_.kv_rank);
  });
  executor_.for_each(static_cast<int>(heads), [&](int h, int worker) {
    heads_[static_cast<std::size_t>(worker)].run({absorbed + h * w, a.n, heads * w, w, a.latents, w,
                                                  a.latents, w, c_.kv_rank, a.position, scale(),
                                                  a.attended + h * c_.kv_rank, heads * c_.kv_rank, a.tile});
  });
  if (auto r = check_heads(l); !r) return r;
  for (std::int64_t h = 0; h < heads; ++h)
    if (auto r = products_.multiply(l.v_b, h, a.attended + h * c_.kv_rank, a.n, heads * c_.kv_rank,
                                    a.out + h * c_.value, heads * c_.value, a.first_row);
        !r)
      return r;
  return {};
}

/// Per head: keys and values materialised from the latents through attn_kv_b; cached in mode 0.
result<void> forward::attend_materialised(const layer& l, const attention_rows& a) {
  const bool keeps = options_.mla == 0;
  const std::int64_t heads = c_.heads, total = a.position + a.n, stored = keeps ? context_ : total;
  float* keys = keeps ? a.cache->keys.data() : grow(keys_, heads * total * c_.key());
  float* values = keeps ? a.cache->values.data() : grow(values_, heads * total * c_.value);
  if (auto r = materialise(l, a, keeps ? a.position : 0, stored, keys, values); !r) return r;
  const auto run = [&](int h, int worker, const float* v, std::int64_t v_stride, std::int64_t v_width,
                       float* o, std::int64_t o_stride) {
    heads_[static_cast<std::size_t>(worker)].run({a.q + h * c_.key(), a.n, heads * c_.key(), c_.key(),
                                                  keys + h * stored * c_.key(), c_.key(), v, v_stride,
                                                  v_width, a.position, scale(), o, o_stride, a.tile});
  };
  executor_.for_each(static_cast<int>(heads), [&](int h, int worker) {
    run(h, worker, values + h * stored * c_.value, c_.value, c_.value, a.out + h * c_.value,
        heads * c_.value);
  });
  if (auto r = check_heads(l); !r || !watch_) return r;
  // This form never makes attn_v_b's input, the attended latent: one more product with the same probabilities.
  executor_.for_each(static_cast<int>(heads), [&](int h, int worker) {
    run(h, worker, a.latents, latent_width(), c_.kv_rank, a.attended + h * c_.kv_rank, heads * c_.kv_rank);
  });
  return check_heads(l);
}

/// Keys [nope | rope] and values of positions [from, position + n) for every head.
result<void> forward::materialise(const layer& l, const attention_rows& a, std::int64_t from,
                                  std::int64_t stored, float* keys, float* values) {
  const std::int64_t w = latent_width(), n = a.position + a.n - from, head_rows = c_.nope + c_.value;
  const float* latent = a.latents + from * w;
  float* up = grow(up_, n * head_rows);
  for (std::int64_t h = 0; h < c_.heads; ++h) {
    if (auto r = products_.multiply(l.kv_b, h, latent, n, w, up, head_rows, a.first_row - a.position + from);
        !r)
      return r;
    for_tokens(n, [&](std::int64_t t) {
      const std::int64_t row = h * stored + from + t;
      copy(up + t * head_rows, c_.nope, keys + row * c_.key());
      copy(latent + t * w + c_.kv_rank, c_.rope, keys + row * c_.key() + c_.nope);
      copy(up + t * head_rows + c_.nope, c_.value, values + row * c_.value);
    });
  }
  return {};
}

// --- feed-forward -------------------------------------------------------------------------------------------------

result<void> forward::dense(const matrix& gate, const matrix& up, const matrix& down, const float* x,
                            std::int64_t n, float* out) {
  float* g = grow(gate_, n * gate.rows);
  float* u = grow(up_hidden_, n * gate.rows);
  if (auto r = observed(gate, x, n, g); !r) return r;
  if (auto r = observed(up, x, n, u); !r || seen_enough()) return r;
  for_tokens(n, [&](std::int64_t t) {
    silu_times(g + t * gate.rows, u + t * gate.rows, gate.rows, g + t * gate.rows);
  });
  return observed(down, g, n, out);
}

/// silu(gate x) * up x for the chosen experts: hidden[t][slot][expert_hidden].
result<void> forward::expert_hidden(const layer& l, const float* x, std::int64_t n,
                                    const std::vector<std::int32_t>& ids, std::int64_t used, buffer& hidden) {
  const std::int64_t w = c_.expert_hidden;
  float* g = grow(hidden, n * used * w);
  float* u = grow(up_hidden_, n * used * w);
  if (auto r = products_.multiply_experts(l.gate_exps, x, n, c_.embedding, 0, ids.data(), used, g); !r)
    return r;
  if (auto r = products_.multiply_experts(l.up_exps, x, n, c_.embedding, 0, ids.data(), used, u); !r)
    return r;
  for_tokens(
      n, [&](std::int64_t t) { silu_times(g + t * used * w, u + t * used * w, used * w, g + t * used * w); });
  return {};
}

result<void> forward::report_experts(const layer& l, const float* x, std::int64_t n, const std::int32_t* ids,
                                     std::int64_t used) {
  for (const auto* m : {&l.gate_exps, &l.up_exps}) {
    if (m == &l.up_exps && l.up_exps.name == l.gate_exps.name) continue;  // one merged tensor
    if (auto r = watch_->on_mul_mat_id({m->name, x, c_.embedding, n, c_.embedding, 0, ids, used, c_.experts});
        !r)
      return r;
  }
  return {};
}

result<void> forward::report_hidden(const layer& l, const float* hidden, std::int64_t n,
                                    const std::int32_t* ids, std::int64_t used) {
  return watch_->on_mul_mat_id({l.down_exps.name, hidden, c_.expert_hidden, n, used * c_.expert_hidden,
                                c_.expert_hidden, ids, used, c_.experts});
}

/// Statistics of experts that the router did not choose, apart from the routed output.
result<void> forward::report_other_experts(const layer& l, const float* x, std::int64_t n,
                                           std::vector<std::int32_t> ids) {
  const std::int64_t used = static_cast<std::int64_t>(ids.size()) / n;
  if (auto r = report_experts(l, x, n, ids.data(), used); !r || seen_enough()) return r;
  const std::int64_t padded = n + products_.pad_experts(ids, used, c_.experts);
  buffer hidden;
  if (auto r = expert_hidden(l, x, padded, ids, used, hidden); !r) return r;
  return report_hidden(l, hidden.data(), n, ids.data(), used);
}

/// What the observer wants to see instead of the chosen experts, [n, any]; empty: these.
std::vector<std::int32_t> forward::other_experts(std::int64_t n) const {
  if (!watch_) return {};
  if (!watch_->wants_all_experts()) {
    const auto wanted = watch_->other_experts();
    return {wanted.begin(), wanted.end()};
  }
  std::vector<std::int32_t> all(static_cast<std::size_t>(n * c_.experts));
  for (std::size_t i = 0; i < all.size(); ++i)
    all[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % c_.experts);
  return all;
}

result<void> forward::experts(const layer& l, float* x, std::int64_t n, float* out) {
  const std::int64_t used = c_.experts_used, d = c_.embedding;
  float* logits = grow(router_logits_, n * c_.experts);
  if (auto r = observed(l.router, x, n, logits); !r) return r;
  auto& ids = chosen_;
  ids.resize(static_cast<std::size_t>(n * used));
  chosen_size_ = ids.size();
  float* weight = grow(router_weights_, n * used);
  for (std::int64_t t = 0; t < n; ++t)
    route_.route(logits + t * c_.experts, l.router_bias, ids.data() + t * used, weight + t * used);
  if (l.gate_shexp) {
    if (auto r = dense(l.gate_shexp, l.up_shexp, l.down_shexp, x, n, out); !r) return r;
  } else {
    std::fill_n(out, n * d, 0.0f);
  }
  const std::int64_t padded = n + products_.pad_experts(ids, used, c_.experts);
  std::fill_n(x + n * d, products_.most_padding(used, c_.experts) * d, 0.0f);

  const auto others = other_experts(n);
  const bool report_chosen = watch_ && others.empty();
  if (!others.empty())
    if (auto r = report_other_experts(l, x, n, others); !r) return r;
  if (report_chosen)
    if (auto r = report_experts(l, x, n, ids.data(), used); !r) return r;
  if (seen_enough()) return {};
  if (auto r = expert_hidden(l, x, padded, ids, used, gate_); !r) return r;
  if (report_chosen)
    if (auto r = report_hidden(l, gate_.data(), n, ids.data(), used); !r) return r;
  if (seen_enough()) return {};
  float* each = grow(expert_out_, padded * used * d);
  if (auto r = products_.multiply_experts(l.down_exps, gate_.data(), padded, used * c_.expert_hidden,
                                          c_.expert_hidden, ids.data(), used, each);
      !r)
    return r;
  for_tokens(n, [&](std::int64_t t) {
    for (std::int64_t j = t * used; j < (t + 1) * used; ++j)
      for (std::int64_t i = 0; i < d; ++i) out[t * d + i] += weight[j] * each[j * d + i];
  });
  return {};
}

}  // namespace quantal::mla
