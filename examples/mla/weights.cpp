#include "weights.hpp"

#include <cmath>

#include "layout.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::mla {
namespace {

class loader {
 public:
  loader(const gguf::reader& file, const config& c) : file_(file), c_(c) {}

  result<weights> load() {
    weights w;
    w.token_embd = tensor("token_embd.weight", c_.embedding, c_.vocabulary, 1);
    w.output =
        file_.find("output.weight") ? tensor("output.weight", c_.embedding, c_.vocabulary, 1) : w.token_embd;
    w.output_norm = vector("output_norm.weight", c_.embedding);
    for (std::int64_t l = 0; l < c_.layers && message_.empty(); ++l) w.layers.push_back(load_layer(l));
    if (!message_.empty()) return error{message_};
    return w;
  }

  result<void> complete(std::int64_t number, layer& l) {
    prefix_ = prefix_of(number);
    if (!l.kv_b) derive_kv_b(l);
    if (!l.k_b) derive_k_b_v_b(l);
    if (!message_.empty()) return error{message_};
    return {};
  }

 private:
  static std::string prefix_of(std::int64_t number) { return "blk." + std::to_string(number) + "."; }

  void fail(const std::string& name, const std::string& why) {
    if (message_.empty()) message_ = file_.path() + ": tensor '" + name + "': " + why;
  }

  /// `slices` matrices of rows x cols; the file may store them as [cols, rows, slices] or [cols, rows * slices].
  matrix tensor(const std::string& name, std::int64_t cols, std::int64_t rows, std::int64_t slices) {
    matrix m;
    m.name = name;
    const auto* t = file_.find(name);
    if (!t) return fail(name, "missing"), m;
    const auto bytes = file_.data(*t);
    if (!bytes) {
      if (message_.empty()) message_ = bytes.error().message;
      return m;
    }
    const auto* f = find_format(t->type);
    if (!f || f->usage != role::weight)
      return fail(name, "type " + gguf::type_name(t->type) + " holds no weights"), m;
    const bool same_rows = t->rows() == rows && t->slices() == slices;
    const bool joined = t->rows() == rows * slices && t->slices() == 1;
    if (t->cols() != cols || (!same_rows && !joined))
      return fail(name, "shape [" + std::to_string(t->ne[0]) + ", " + std::to_string(t->ne[1]) + ", " +
                            std::to_string(t->slices()) + "] where the metadata implies [" +
                            std::to_string(cols) + ", " + std::to_string(rows) + ", " +
                            std::to_string(slices) + "]"),
             m;
    m.format = t->type;
    m.data = bytes->data();
    m.cols = cols, m.rows = rows, m.slices = slices;
    m.row_stride = f->row_bytes(cols);
    m.slice_stride = m.row_stride * rows;
    auto scale = gguf::read_scale(file_, *t);
    if (!scale && message_.empty()) message_ = scale.error().message;
    if (scale) m.scale = std::move(*scale);
    return m;
  }

  std::vector<float> vector(const std::string& name, std::int64_t n) {
    const matrix m = tensor(name, n, 1, 1);
    std::vector<float> v(static_cast<std::size_t>(n));
    if (!m) return v;
    if (runtime::dequantize_row(m.format, m.data, v.data(), n) != status::ok)
      fail(name, "cannot be read as a vector");
    m.scale.apply(0, v.data(), n);
    for (const float x : v)
      if (!std::isfinite(x)) return fail(name, "holds a value that is not finite"), v;
    return v;
  }

  layer load_layer(std::int64_t number) {
    prefix_ = prefix_of(number);
    layer l;
    const auto w = [&](const char* name, std::int64_t cols, std::int64_t rows, std::int64_t slices = 1) {
      return tensor(prefix_ + name + ".weight", cols, rows, slices);
    };
    l.attn_norm = vector(prefix_ + "attn_norm.weight", c_.embedding);
    l.ffn_norm = vector(prefix_ + "ffn_norm.weight", c_.embedding);
    l.kv_a_norm = vector(prefix_ + "attn_kv_a_norm.weight", c_.kv_rank);
    if (c_.q_rank) {
      l.q_a = w("attn_q_a", c_.embedding, c_.q_rank);
      l.q_a_norm = vector(prefix_ + "attn_q_a_norm.weight", c_.q_rank);
      l.q_b = w("attn_q_b", c_.q_rank, c_.heads * c_.key());
    } else {
      l.q = w("attn_q", c_.embedding, c_.heads * c_.key());
    }
    l.kv_a = w("attn_kv_a_mqa", c_.embedding, c_.kv_rank + c_.rope);
    l.attn_output = w("attn_output", c_.heads * c_.value, c_.embedding);
    load_up_projections(l);
    if (number < c_.dense_layers) {
      l.gate = w("ffn_gate", c_.embedding, c_.dense_hidden);
      l.up = w("ffn_up", c_.embedding, c_.dense_hidden);
      l.down = w("ffn_down", c_.dense_hidden, c_.embedding);
    } else {
      load_experts(l);
    }
    return l;
  }

  void load_up_projections(layer& l) {
    const bool split = file_.find(prefix_ + "attn_k_b.weight") && file_.find(prefix_ + "attn_v_b.weight");
    const bool joined = file_.find(prefix_ + "attn_kv_b.weight") != nullptr;
    if (!split && !joined)
      return fail(prefix_ + "attn_kv_b.weight", "missing, and so are attn_k_b and attn_v_b");
    if (split) {
      l.k_b = tensor(prefix_ + "attn_k_b.weight", c_.nope, c_.kv_rank, c_.heads);
      l.v_b = tensor(prefix_ + "attn_v_b.weight", c_.kv_rank, c_.value, c_.heads);
    }
    if (joined) l.kv_b = tensor(prefix_ + "attn_kv_b.weight", c_.kv_rank, c_.nope + c_.value, c_.heads);
  }

  std::vector<float> floats(const matrix& m) {
    std::vector<float> v(static_cast<std::size_t>(m.cols * m.rows * m.slices));
    for (std::int64_t r = 0; r < m.rows * m.slices; ++r)
      if (const auto s =
              runtime::dequantize_row(m.format, m.data + r * m.row_stride, v.data() + r * m.cols, m.cols);
          s != status::ok)
        fail(m.name, std::string(to_string(s)));
      else
        m.scale.apply(r / m.rows, v.data() + r * m.cols, m.cols);
    return v;
  }

  matrix own(const char* name, std::int64_t cols, std::int64_t rows, const std::vector<float>& v) {
    matrix m;
    m.name = prefix_ + name + ".weight";
    m.format = f32::gguf_id;
    m.cols = cols, m.rows = rows, m.slices = c_.heads;
    m.row_stride = 4 * cols, m.slice_stride = m.row_stride * rows;
    const auto bytes = std::as_bytes(std::span(v));
    m.owned = std::make_shared<std::vector<std::byte>>(bytes.begin(), bytes.end());
    m.data = m.owned->data();
    return m;
  }

  void derive_kv_b(layer& l) {
    l.kv_b = own("attn_kv_b", c_.kv_rank, c_.nope + c_.value,
                 join_up_projections(c_, floats(l.k_b), floats(l.v_b)));
  }

  void derive_k_b_v_b(layer& l) {
    l.k_b = own("attn_k_b", c_.nope, c_.kv_rank, key_up_projection(c_, floats(l.kv_b)));
    // The rows of attn_v_b lie in attn_kv_b as they are.
    l.v_b = l.kv_b;
    l.v_b.name = prefix_ + "attn_v_b.weight";
    l.v_b.rows = c_.value;
    l.v_b.data += c_.nope * l.kv_b.row_stride;
  }

  void load_experts(layer& l) {
    const std::int64_t d = c_.embedding, h = c_.expert_hidden, e = c_.experts;
    l.router = tensor(prefix_ + "ffn_gate_inp.weight", d, e, 1);
    if (file_.find(prefix_ + "exp_probs_b.bias")) l.router_bias = vector(prefix_ + "exp_probs_b.bias", e);
    if (file_.find(prefix_ + "ffn_gate_up_exps.weight")) {
      const matrix both = tensor(prefix_ + "ffn_gate_up_exps.weight", d, 2 * h, e);
      l.gate_exps = l.up_exps = both;
      l.gate_exps.rows = l.up_exps.rows = h;
      if (both) l.up_exps.data += h * both.row_stride;
    } else {
      l.gate_exps = tensor(prefix_ + "ffn_gate_exps.weight", d, h, e);
      l.up_exps = tensor(prefix_ + "ffn_up_exps.weight", d, h, e);
    }
    l.down_exps = tensor(prefix_ + "ffn_down_exps.weight", h, d, e);
    if (c_.experts_shared == 0) return;
    const std::int64_t s = h * c_.experts_shared;
    l.gate_shexp = tensor(prefix_ + "ffn_gate_shexp.weight", d, s, 1);
    l.up_shexp = tensor(prefix_ + "ffn_up_shexp.weight", d, s, 1);
    l.down_shexp = tensor(prefix_ + "ffn_down_shexp.weight", s, d, 1);
  }

  const gguf::reader& file_;
  const config& c_;
  std::string prefix_, message_;
};

}  // namespace

result<weights> load_weights(const gguf::reader& file, const config& c) { return loader(file, c).load(); }

result<void> complete_layer(const gguf::reader& file, const config& c, std::int64_t number, layer& l) {
  return loader(file, c).complete(number, l);
}

}  // namespace quantal::mla
