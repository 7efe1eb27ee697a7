#include "session.hpp"

#include <bit>
#include <cmath>
#include <cstring>

#include "attention.hpp"
#include "rope.hpp"
#include "router.hpp"

namespace quantal::mla {
namespace {

constexpr std::int64_t flash_tile = 64;
constexpr std::int64_t materialise_from = 128;  ///< batch size from which modes 2 and 3 go through attn_kv_b

using buffer = std::vector<float>;

float* grow(buffer& b, std::int64_t n) {
  if (b.size() < static_cast<std::size_t>(n)) b.resize(static_cast<std::size_t>(n));
  return b.data();
}

void rms_norm(const float* x, const std::vector<float>& gain, double epsilon, float* out) {
  double sum = 0;
  for (std::size_t i = 0; i < gain.size(); ++i) sum += static_cast<double>(x[i]) * x[i];
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(gain.size()) + epsilon));
  for (std::size_t i = 0; i < gain.size(); ++i) out[i] = x[i] * scale * gain[i];
}

/// By the bits: no compiler setting makes this constant.
bool is_finite(const float* v, std::int64_t n) {
  constexpr std::uint32_t exponent = 0x7f800000;
  bool bad = false;
  for (std::int64_t i = 0; i < n; ++i) bad |= (std::bit_cast<std::uint32_t>(v[i]) & exponent) == exponent;
  return !bad;
}

}  // namespace

result<model> load_model(const std::filesystem::path& path) {
  auto file = gguf::reader::open(path);
  if (!file) return file.error();
  model m;
  m.file = std::make_unique<gguf::reader>(std::move(*file));
  auto c = read_config(*m.file);
  if (!c) return c.error();
  m.hyper = *c;
  auto w = load_weights(*m.file, m.hyper);
  if (!w) return w.error();
  m.tensors = std::move(*w);
  return m;
}

struct session::state {
  struct layer_cache {
    buffer latent;  ///< [context, kv_rank + rope]: normalised latent, then the rotated key all heads share
    buffer keys, values;  ///< mode 0 only: [heads, context, key], [heads, context, value]
  };

  state(const model& m, const runtime::dispatcher& a, executor_ref e, std::int64_t context, run_options o)
      : hyper(m.hyper),
        tensors(m.tensors),
        path(m.file->path()),
        arch(a),
        executor(e),
        options(o),
        capacity(context),
        rope(m.hyper, context),
        route(m.hyper),
        chosen(static_cast<std::size_t>(m.hyper.layers)) {
    for (int w = 0; w < executor.workers(); ++w) heads.emplace_back(arch);
    cache.resize(static_cast<std::size_t>(hyper.layers));
    for (auto& l : cache) {
      l.latent.resize(static_cast<std::size_t>(capacity * latent_width()));
      if (options.mla != 0) continue;
      l.keys.resize(static_cast<std::size_t>(hyper.heads * capacity * hyper.key()));
      l.values.resize(static_cast<std::size_t>(hyper.heads * capacity * hyper.value));
    }
  }

  std::int64_t latent_width() const { return hyper.kv_rank + hyper.rope; }

  // --- products -------------------------------------------------------------------------------------------------

  /// out[t][rows] = matrix slice x input; errors carry the weight's name and the token, counted from `first`.
  result<void> multiply(const matrix& m, std::int64_t slice, const float* x, std::int64_t n,
                        std::int64_t x_stride, float* out, std::int64_t out_stride,
                        std::optional<std::int64_t> first = {}) {
    const auto* ops = arch.find(m.format);
    const mul_mat_args a{
        m.data + slice * m.slice_stride, m.rows, m.cols, m.row_stride, x, n, x_stride, out, out_stride};
    if (auto r = run_product(m, a, *ops); !r) return r;
    if (!m.scale.is_one())
      for_tokens(n, [&](std::int64_t t) { m.scale.apply(slice, out + t * out_stride, m.rows); });
    for (std::int64_t t = 0; t < n; ++t)
      if (!is_finite(out + t * out_stride, m.rows))
        return not_finite(m, is_finite(x + t * x_stride, m.cols), first.value_or(position) + t);
    return {};
  }
  result<void> run_product(const matrix& m, const mul_mat_args& a, const runtime::format_ops& ops) {
    if (options.device)
      if (auto r = options.device->mul_mat(m, a)) return located(*r);
    workspace.resize(std::max(workspace.size(), ops.mul_mat_workspace(a, options.policy)));
    return check(m, ops.mul_mat(a, options.policy, executor, workspace));
  }

  result<void> multiply_experts(const matrix& m, const float* x, std::int64_t n, std::int64_t token_stride,
                                std::int64_t slot_stride, const std::int32_t* ids, std::int64_t used,
                                float* out) {
    const auto* ops = arch.find(m.format);
    const mul_mat_id_args a{m.data, m.slices, m.rows,        m.cols,      m.row_stride, m.slice_stride,
                            x,      n,        token_stride,  slot_stride, ids,          used,
                            used,   out,      used * m.rows, m.rows};
    if (auto r = run_product(m, a, *ops); !r) return r;
    if (!m.scale.is_one())
      for_tokens(n, [&](std::int64_t t) {
        for (std::int64_t slot = t * used; slot < (t + 1) * used; ++slot)
          m.scale.apply(ids[slot], out + slot * m.rows, m.rows);
      });
    for (std::int64_t t = 0; t < n; ++t)
      for (std::int64_t j = 0; j < used; ++j)
        if (!is_finite(out + (t * used + j) * m.rows, m.rows))
          return not_finite(m, is_finite(x + t * token_stride + j * slot_stride, m.cols), position + t,
                            ids[t * used + j]);
    return {};
  }
  result<void> run_product(const matrix& m, const mul_mat_id_args& a, const runtime::format_ops& ops) {
    if (options.device)
      if (auto r = options.device->mul_mat_id(m, a)) return located(*r);
    workspace.resize(std::max(workspace.size(), ops.mul_mat_id_workspace(a, options.policy)));
    return check(m, ops.mul_mat_id(a, options.policy, executor, workspace));
  }

  /// The first product that is not finite ends the run: whatever follows would not be, either.
  error not_finite(const matrix& m, bool finite_input, std::int64_t token, std::int64_t expert = -1) const {
    return {path + ": tensor '" + m.name + "'" + (expert < 0 ? "" : ", expert " + std::to_string(expert)) +
            ": its " + (finite_input ? "product" : "input") + " holds a NaN or an infinity at token " +
            std::to_string(token)};
  }

  result<void> located(const result<void>& r) const {
    if (r) return {};
    return error{path + ": " + r.error().message};
  }
  result<void> check(const matrix& m, status s) const {
    if (s == status::ok) return {};
    return error{path + ": tensor '" + m.name + "': " + std::string(to_string(s))};
  }

  /// Every worker's attention of a layer.
  result<void> check_heads(const layer& l) const {
    for (const auto& head : heads)
      if (auto r = check(l.attn_output, head.outcome()); !r) return r;
    return {};
  }

  /// A dense product that the observer sees.
  result<void> observed(const matrix& m, const float* x, std::int64_t n, float* out) {
    if (auto r = report(m.name, x, m.cols, n, m.cols); !r) return r;
    return multiply(m, 0, x, n, m.cols, out, m.rows);
  }

  result<void> report(std::string_view name, const float* x, std::int64_t cols, std::int64_t n,
                      std::int64_t stride, std::int64_t slices = 1, std::int64_t slice_stride = 0) {
    return watch ? watch->on_mul_mat({name, x, cols, n, stride, slices, slice_stride}) : result<void>{};
  }

  template <class Body>
  void for_tokens(std::int64_t n, Body body) {
    constexpr std::int64_t chunk = 8;
    executor.for_each(static_cast<int>((n + chunk - 1) / chunk), [&](int task, int) {
      for (std::int64_t t = task * chunk; t < std::min(n, (task + 1) * chunk); ++t) body(t);
    });
  }

  // --- attention ------------------------------------------------------------------------------------------------

  result<void> attend_block(const layer& l, layer_cache& kv, const float* x, std::int64_t n, float* out) {
    const auto& c = hyper;
    float* q = grow(q_, n * c.heads * c.key());
    if (c.q_rank) {
      float* low = grow(q_low_, n * c.q_rank);
      if (auto r = observed(l.q_a, x, n, low); !r) return r;
      for_tokens(n, [&](std::int64_t t) {
        rms_norm(low + t * c.q_rank, l.q_a_norm, c.rms_epsilon, low + t * c.q_rank);
      });
      if (auto r = observed(l.q_b, low, n, q); !r) return r;
    } else if (auto r = observed(l.q, x, n, q); !r) {
      return r;
    }
    float* joint = grow(joint_, n * latent_width());
    if (auto r = observed(l.kv_a, x, n, joint); !r) return r;
    float* cached = kv.latent.data() + position * latent_width();
    for_tokens(n, [&](std::int64_t t) {
      float* row = cached + t * latent_width();
      rms_norm(joint + t * latent_width(), l.kv_a_norm, c.rms_epsilon, row);
      rope.rotate(joint + t * latent_width() + c.kv_rank, position + t, row + c.kv_rank);
      for (std::int64_t h = 0; h < c.heads; ++h) {
        float* part = q + (t * c.heads + h) * c.key() + c.nope;
        rope.rotate(part, position + t, part);
      }
    });
    float* heads_out = grow(heads_out_, n * c.heads * c.value);
    const bool through_kv_b =
        options.mla == 0 || (options.mla >= 2 && options.flash && n >= materialise_from);
    const bool tiled = options.flash && (options.mla != 2 || n >= materialise_from);
    const std::int64_t tile = tiled ? flash_tile : position + n;
    if (watch)
      if (auto r = report_up_projections(l, q, cached, n); !r) return r;
    const auto r = through_kv_b ? attend_materialised(l, kv, q, n, tile, heads_out)
                                : attend_absorbed(l, kv, q, n, tile, heads_out);
    if (!r) return r;
    return observed(l.attn_output, heads_out, n, out);
  }

  /// attn_k_b and attn_kv_b see the same inputs in every mode; attn_v_b's input is made by the attention itself.
  result<void> report_up_projections(const layer& l, const float* q, const float* cached, std::int64_t n) {
    const auto& c = hyper;
    if (auto r = report(l.kv_b.name, cached, c.kv_rank, n, latent_width()); !r) return r;
    return report(l.k_b.name, q, c.nope, n, c.heads * c.key(), c.heads, c.key());
  }
  result<void> report_attended(const layer& l, const float* attended, std::int64_t n) {
    return report(l.v_b.name, attended, hyper.kv_rank, n, hyper.heads * hyper.kv_rank, hyper.heads,
                  hyper.kv_rank);
  }

  /// Per head: keys and queries in latent space, values are the latents themselves.
  result<void> attend_absorbed(const layer& l, layer_cache& kv, const float* q, std::int64_t n,
                               std::int64_t tile, float* out) {
    const auto& c = hyper;
    const std::int64_t w = latent_width();
    float* absorbed = grow(absorbed_, n * c.heads * w);
    for (std::int64_t h = 0; h < c.heads; ++h)
      if (auto r = multiply(l.k_b, h, q + h * c.key(), n, c.heads * c.key(), absorbed + h * w, c.heads * w);
          !r)
        return r;
    for_tokens(n, [&](std::int64_t t) {
      for (std::int64_t h = 0; h < c.heads; ++h)
        std::memcpy(absorbed + (t * c.heads + h) * w + c.kv_rank, q + (t * c.heads + h) * c.key() + c.nope,
                    static_cast<std::size_t>(c.rope) * sizeof(float));
    });
    float* attended = grow(attended_, n * c.heads * c.kv_rank);
    executor.for_each(static_cast<int>(c.heads), [&](int h, int worker) {
      heads[static_cast<std::size_t>(worker)].run({absorbed + h * w, n, c.heads * w, w, kv.latent.data(), w,
                                                   kv.latent.data(), w, c.kv_rank, position, scale(),
                                                   attended + h * c.kv_rank, c.heads * c.kv_rank, tile});
    });
    if (auto r = check_heads(l); !r) return r;
    if (auto r = report_attended(l, attended, n); !r) return r;
    for (std::int64_t h = 0; h < c.heads; ++h)
      if (auto r = multiply(l.v_b, h, attended + h * c.kv_rank, n, c.heads * c.kv_rank, out + h * c.value,
                            c.heads * c.value);
          !r)
        return r;
    return {};
  }

  /// Per head: keys and values materialised from the latents through attn_kv_b; cached in mode 0.
  result<void> attend_materialised(const layer& l, layer_cache& kv, const float* q, std::int64_t n,
                                   std::int64_t tile, float* out) {
    const auto& c = hyper;
    const bool keeps = options.mla == 0;
    const std::int64_t total = position + n, stored = keeps ? capacity : total;
    float* keys = keeps ? kv.keys.data() : grow(keys_, c.heads * total * c.key());
    float* values = keeps ? kv.values.data() : grow(values_, c.heads * total * c.value);
    if (auto r = materialise(l, kv, keeps ? position : 0, total, stored, keys, values); !r) return r;
    const auto run = [&](int h, int worker, const float* v, std::int64_t v_stride, std::int64_t v_width,
                         float* o, std::int64_t o_stride) {
      heads[static_cast<std::size_t>(worker)].run({q + h * c.key(), n, c.heads * c.key(), c.key(),
                                                   keys + h * stored * c.key(), c.key(), v, v_stride, v_width,
                                                   position, scale(), o, o_stride, tile});
    };
    executor.for_each(static_cast<int>(c.heads), [&](int h, int worker) {
      run(h, worker, values + h * stored * c.value, c.value, c.value, out + h * c.value, c.heads * c.value);
    });
    if (auto r = check_heads(l); !r || !watch) return r;
    // This form never makes attn_v_b's input, the attended latent: one more product with the same probabilities.
    float* attended = grow(attended_, n * c.heads * c.kv_rank);
    executor.for_each(static_cast<int>(c.heads), [&](int h, int worker) {
      run(h, worker, kv.latent.data(), latent_width(), c.kv_rank, attended + h * c.kv_rank,
          c.heads * c.kv_rank);
    });
    if (auto r = check_heads(l); !r) return r;
    return report_attended(l, attended, n);
  }

  /// Keys [nope | rope] and values of positions [first, total) for every head.
  result<void> materialise(const layer& l, const layer_cache& kv, std::int64_t first, std::int64_t total,
                           std::int64_t stored, float* keys, float* values) {
    const auto& c = hyper;
    const std::int64_t n = total - first, head_rows = c.nope + c.value;
    const float* latent = kv.latent.data() + first * latent_width();
    float* up = grow(up_, n * head_rows);
    for (std::int64_t h = 0; h < c.heads; ++h) {
      if (auto r = multiply(l.kv_b, h, latent, n, latent_width(), up, head_rows, first); !r) return r;
      for_tokens(n, [&](std::int64_t t) {
        float* k = keys + (h * stored + first + t) * c.key();
        std::memcpy(k, up + t * head_rows, static_cast<std::size_t>(c.nope) * sizeof(float));
        std::memcpy(k + c.nope, latent + t * latent_width() + c.kv_rank,
                    static_cast<std::size_t>(c.rope) * sizeof(float));
        std::memcpy(values + (h * stored + first + t) * c.value, up + t * head_rows + c.nope,
                    static_cast<std::size_t>(c.value) * sizeof(float));
      });
    }
    return {};
  }

  float scale() const { return static_cast<float>(hyper.softmax_scale()); }

  // --- feed-forward ---------------------------------------------------------------------------------------------

  static void silu_times(const float* gate, const float* up, std::int64_t n, float* out) {
    for (std::int64_t i = 0; i < n; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
  }

  result<void> dense(const matrix& gate, const matrix& up, const matrix& down, const float* x, std::int64_t n,
                     float* out) {
    float* g = grow(gate_, n * gate.rows);
    float* u = grow(up_hidden_, n * gate.rows);
    if (auto r = observed(gate, x, n, g); !r) return r;
    if (auto r = observed(up, x, n, u); !r) return r;
    for_tokens(n, [&](std::int64_t t) {
      silu_times(g + t * gate.rows, u + t * gate.rows, gate.rows, g + t * gate.rows);
    });
    return observed(down, g, n, out);
  }

  /// silu(gate x) * up x for the chosen experts: hidden[t][slot][expert_hidden].
  result<void> expert_hidden(const layer& l, const float* x, std::int64_t n, const std::int32_t* ids,
                             std::int64_t used, buffer& hidden) {
    const std::int64_t w = hyper.expert_hidden;
    float* g = grow(hidden, n * used * w);
    float* u = grow(up_hidden_, n * used * w);
    if (auto r = multiply_experts(l.gate_exps, x, n, hyper.embedding, 0, ids, used, g); !r) return r;
    if (auto r = multiply_experts(l.up_exps, x, n, hyper.embedding, 0, ids, used, u); !r) return r;
    for_tokens(n, [&](std::int64_t t) {
      silu_times(g + t * used * w, u + t * used * w, used * w, g + t * used * w);
    });
    return {};
  }

  result<void> report_experts(const layer& l, const float* x, const float* hidden, std::int64_t n,
                              const std::int32_t* ids, std::int64_t used) {
    const auto& c = hyper;
    for (const auto* m : {&l.gate_exps, &l.up_exps}) {
      if (m == &l.up_exps && l.up_exps.name == l.gate_exps.name) continue;  // one merged tensor
      if (auto r = watch->on_mul_mat_id({m->name, x, c.embedding, n, c.embedding, 0, ids, used, c.experts});
          !r)
        return r;
    }
    return watch->on_mul_mat_id({l.down_exps.name, hidden, c.expert_hidden, n, used * c.expert_hidden,
                                 c.expert_hidden, ids, used, c.experts});
  }

  /// Statistics of every expert on every token, apart from the routed output.
  result<void> report_all_experts(const layer& l, const float* x, std::int64_t n) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(n * hyper.experts));
    for (std::size_t i = 0; i < ids.size(); ++i)
      ids[i] = static_cast<std::int32_t>(static_cast<std::int64_t>(i) % hyper.experts);
    buffer hidden;
    if (auto r = expert_hidden(l, x, n, ids.data(), hyper.experts, hidden); !r) return r;
    return report_experts(l, x, hidden.data(), n, ids.data(), hyper.experts);
  }

  result<void> experts(std::int64_t block, const layer& l, const float* x, std::int64_t n, float* out) {
    const auto& c = hyper;
    const std::int64_t used = c.experts_used;
    float* logits = grow(router_logits_, n * c.experts);
    if (auto r = observed(l.router, x, n, logits); !r) return r;
    auto& ids = chosen[static_cast<std::size_t>(block)];
    ids.resize(static_cast<std::size_t>(n * used));
    float* weight = grow(router_weights_, n * used);
    for (std::int64_t t = 0; t < n; ++t)
      route.route(logits + t * c.experts, l.router_bias, ids.data() + t * used, weight + t * used);

    if (auto r = expert_hidden(l, x, n, ids.data(), used, gate_); !r) return r;
    if (watch) {
      const auto r = watch->wants_all_experts() ? report_all_experts(l, x, n)
                                                : report_experts(l, x, gate_.data(), n, ids.data(), used);
      if (!r) return r;
    }
    float* each = grow(expert_out_, n * used * c.embedding);
    if (auto r = multiply_experts(l.down_exps, gate_.data(), n, used * c.expert_hidden, c.expert_hidden,
                                  ids.data(), used, each);
        !r)
      return r;
    if (l.gate_shexp) {
      if (auto r = dense(l.gate_shexp, l.up_shexp, l.down_shexp, x, n, out); !r) return r;
    } else {
      std::fill_n(out, n * c.embedding, 0.0f);
    }
    for_tokens(n, [&](std::int64_t t) {
      for (std::int64_t j = 0; j < used; ++j)
        for (std::int64_t i = 0; i < c.embedding; ++i)
          out[t * c.embedding + i] += weight[t * used + j] * each[(t * used + j) * c.embedding + i];
    });
    return {};
  }

  // --- the whole ------------------------------------------------------------------------------------------------

  result<void> evaluate(std::span<const std::int32_t> tokens, std::span<float> logits,
                        std::int64_t first_logits) {
    const auto& c = hyper;
    const auto n = static_cast<std::int64_t>(tokens.size()), d = c.embedding;
    if (position + n > capacity)
      return error{path + ": " + std::to_string(position + n) + " tokens exceed the context of " +
                   std::to_string(capacity)};
    float* h = grow(stream_, n * d);
    for (std::int64_t t = 0; t < n; ++t) {
      const std::int32_t id = tokens[static_cast<std::size_t>(t)];
      if (id < 0 || id >= c.vocabulary)
        return error{path + ": token " + std::to_string(id) + " is outside the vocabulary of " +
                     std::to_string(c.vocabulary)};
      arch.find(tensors.token_embd.format)
          ->dequantize_row(tensors.token_embd.data + id * tensors.token_embd.row_stride, h + t * d, d);
      tensors.token_embd.scale.apply(0, h + t * d, d);
      if (!is_finite(h + t * d, d))
        return error{path + ": tensor '" + tensors.token_embd.name + "', row " + std::to_string(id) +
                     " holds a NaN or an infinity"};
    }
    float* x = grow(normed_, n * d);
    float* y = grow(block_out_, n * d);
    const auto add = [&] {
      for_tokens(n, [&](std::int64_t t) {
        for (std::int64_t i = 0; i < d; ++i) h[t * d + i] += y[t * d + i];
      });
    };
    for (std::int64_t b = 0; b < c.layers; ++b) {
      const layer& l = tensors.layers[static_cast<std::size_t>(b)];
      for_tokens(n, [&](std::int64_t t) { rms_norm(h + t * d, l.attn_norm, c.rms_epsilon, x + t * d); });
      if (auto r = attend_block(l, cache[static_cast<std::size_t>(b)], x, n, y); !r) return r;
      add();
      for_tokens(n, [&](std::int64_t t) { rms_norm(h + t * d, l.ffn_norm, c.rms_epsilon, x + t * d); });
      const auto r = b < c.dense_layers ? dense(l.gate, l.up, l.down, x, n, y) : experts(b, l, x, n, y);
      if (!r) return r;
      add();
    }
    for_tokens(n,
               [&](std::int64_t t) { rms_norm(h + t * d, tensors.output_norm, c.rms_epsilon, x + t * d); });
    if (auto r = report(tensors.output.name, x, d, n, d); !r) return r;
    position += n;
    if (logits.empty()) return {};
    const std::int64_t rows = n - first_logits;
    if (rows < 0 || logits.size() < static_cast<std::size_t>(rows * c.vocabulary))
      return error{path + ": logits buffer too small"};
    return multiply(tensors.output, 0, x + first_logits * d, rows, d, logits.data(), c.vocabulary,
                    position - rows);
  }

  const config& hyper;
  const weights& tensors;
  std::string path;
  runtime::dispatcher arch;
  executor_ref executor;
  run_options options;
  std::int64_t capacity, position = 0;
  rope_table rope;
  router route;
  std::vector<attention> heads;
  std::vector<layer_cache> cache;
  std::vector<std::vector<std::int32_t>> chosen;
  std::vector<std::byte> workspace;
  observer* watch = nullptr;

  buffer stream_, normed_, block_out_, q_, q_low_, joint_, heads_out_, absorbed_, attended_, keys_, values_,
      up_;
  buffer gate_, up_hidden_, router_logits_, router_weights_, expert_out_;
};

session::session(const model& m, const runtime::dispatcher& arch, executor_ref executor, std::int64_t context,
                 run_options options)
    : s_(std::make_unique<state>(m, arch, executor, context, options)) {}
session::~session() = default;
session::session(session&&) noexcept = default;

void session::clear() noexcept { s_->position = 0; }
std::int64_t session::position() const noexcept { return s_->position; }

result<void> session::evaluate(std::span<const std::int32_t> tokens, std::span<float> logits,
                               std::int64_t first_logits, observer* watch) {
  s_->watch = watch;
  return s_->evaluate(tokens, logits, first_logits);
}

std::span<const std::int32_t> session::chosen_experts(std::int64_t block) const {
  return s_->chosen[static_cast<std::size_t>(block)];
}

}  // namespace quantal::mla
