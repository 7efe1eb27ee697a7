#include "layout.hpp"

#include "file_plan.hpp"
#include "quantal/gguf/input_scale.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/gguf/writer.hpp"
#include "quantal/runtime/ops.hpp"

namespace quantal::mla {

std::optional<layout> find_layout(std::string_view name) noexcept {
  if (name == "3d") return layout::heads;
  if (name == "2d") return layout::rows;
  if (name == "2d+kv_b") return layout::rows_kv_b;
  return std::nullopt;
}

std::vector<float> join_up_projections(const up_projection_shape& s, const std::vector<float>& k_b,
                                       const std::vector<float>& v_b) {
  std::vector<float> out(static_cast<std::size_t>(s.heads * s.head_rows() * s.rank));
  auto to = out.begin();
  for (std::int64_t h = 0; h < s.heads; ++h) {
    for (std::int64_t n = 0; n < s.nope; ++n)
      for (std::int64_t c = 0; c < s.rank; ++c)
        *to++ = k_b[static_cast<std::size_t>((h * s.rank + c) * s.nope + n)];
    to = std::copy_n(v_b.begin() + h * s.value * s.rank, s.value * s.rank, to);
  }
  return out;
}

std::vector<float> key_up_projection(const up_projection_shape& s, const std::vector<float>& kv_b) {
  std::vector<float> out;
  out.reserve(static_cast<std::size_t>(s.heads * s.rank * s.nope));
  for (std::int64_t h = 0; h < s.heads; ++h)
    for (std::int64_t c = 0; c < s.rank; ++c)
      for (std::int64_t n = 0; n < s.nope; ++n)
        out.push_back(kv_b[static_cast<std::size_t>((h * s.head_rows() + n) * s.rank + c)]);
  return out;
}

std::array<std::int64_t, 4> k_b_extents(const up_projection_shape& s, layout to) noexcept {
  if (to == layout::heads) return {s.nope, s.rank, s.heads, 1};
  return {s.nope, s.rank * s.heads, 1, 1};
}
std::array<std::int64_t, 4> v_b_extents(const up_projection_shape& s, layout to) noexcept {
  if (to == layout::heads) return {s.rank, s.value, s.heads, 1};
  return {s.rank, s.value * s.heads, 1, 1};
}
std::array<std::int64_t, 4> kv_b_extents(const up_projection_shape& s) noexcept {
  return {s.rank, s.heads * s.head_rows(), 1, 1};
}

void set_layout_keys(gguf::metadata& meta, const config& c, layout to) {
  const auto set = [&](const char* key, std::int64_t v) {
    meta.set(std::string("deepseek2.attention.") + key, static_cast<std::uint32_t>(v));
  };
  const bool heads = to == layout::heads;
  set("head_count_kv", heads ? 1 : c.heads);
  set("key_length", heads ? c.kv_rank + c.rope : c.key());
  set("value_length", heads ? c.kv_rank : c.value);
  if (heads) {
    set("key_length_mla", c.key());
    set("value_length_mla", c.value);
  } else {
    meta.erase("deepseek2.attention.key_length_mla");
    meta.erase("deepseek2.attention.value_length_mla");
  }
}

namespace {

bool is_float(std::uint32_t type) noexcept {
  return type == f32::gguf_id || type == f16::gguf_id || type == bf16::gguf_id;
}

/// What one tensor of the output is made of.
struct step {
  enum class source { copy, join, keys, values } from;
  gguf::tensor_info out;
  const gguf::tensor_info* a;            ///< the tensor copied; attn_k_b, or attn_kv_b
  const gguf::tensor_info* b = nullptr;  ///< attn_v_b
};

class converter {
 public:
  converter(const gguf::reader& model, const config& c, layout to) : model_(model), shape_(c), to_(to) {}

  result<std::vector<step>> plan() {
    std::vector<step> steps;
    for (const auto& t : model_.tensors())
      if (auto ok = plan_tensor(t, steps); !ok) return ok.error();
    return steps;
  }

  result<void> write(const step& s, gguf::writer& out) const {
    const auto a = model_.data(*s.a);
    if (!a) return a.error();
    if (s.from == step::source::copy) return out.append(*a);
    if (s.from == step::source::values) return write_values(s, *a, out);
    const auto first = floats(*s.a, *a);
    if (!first) return first.error();
    if (s.from == step::source::keys) return write_rows(s, key_up_projection(shape_, *first), out);
    const auto b = model_.data(*s.b);
    if (!b) return b.error();
    const auto second = floats(*s.b, *b);
    if (!second) return second.error();
    return write_rows(s, join_up_projections(shape_, *first, *second), out);
  }

 private:
  error fail(const gguf::tensor_info& t, const std::string& why) const {
    return {model_.path() + ": tensor '" + t.name + "': " + why};
  }

  static gguf::tensor_info planned(std::string name, std::uint32_t type,
                                   const std::array<std::int64_t, 4>& ne) {
    gguf::tensor_info t;
    t.name = std::move(name), t.type = type, t.ne = ne;
    return t;
  }

  result<void> check(const gguf::tensor_info& t, std::int64_t cols, std::int64_t rows) const {
    if (t.cols() == cols && t.rows() * t.slices() == rows) return {};
    return fail(t, "[" + std::to_string(t.ne[0]) + ", " + std::to_string(t.ne[1]) + ", " +
                       std::to_string(t.slices()) + "] where the metadata implies " + std::to_string(rows) +
                       " rows of " + std::to_string(cols));
  }

  const gguf::tensor_info* sibling(const gguf::tensor_info& t, std::string_view own,
                                   const char* other) const {
    return model_.find(t.name.substr(0, t.name.size() - own.size()) + other);
  }

  result<void> plan_tensor(const gguf::tensor_info& t, std::vector<step>& steps) const {
    constexpr std::string_view k = "attn_k_b.weight", v = "attn_v_b.weight", kv = "attn_kv_b.weight";
    // Rows of attn_kv_b that become attn_v_b keep their scale, and that of their inputs.
    if (const auto* scaled = gguf::scaled_tensor(model_, t);
        scaled && scaled->name.ends_with("." + std::string(kv)))
      return plan_scale(t, *scaled, ".scale", steps);
    if (const auto* scaled = gguf::input_scaled_tensor(model_, t);
        scaled && scaled->name.ends_with("." + std::string(kv)))
      return plan_scale(t, *scaled, gguf::input_scale_end, steps);
    if (t.name.ends_with("." + std::string(k)))
      return plan_keys(t, sibling(t, k, v.data()), sibling(t, k, kv.data()), steps);
    if (t.name.ends_with("." + std::string(v))) {
      if (auto ok = check(t, shape_.rank, shape_.heads * shape_.value); !ok) return ok;
      steps.push_back({step::source::copy, planned(t.name, t.type, v_b_extents(shape_, to_)), &t});
      return {};
    }
    if (t.name.ends_with("." + std::string(kv)))
      return plan_joined(t, sibling(t, kv, k.data()), sibling(t, kv, v.data()), steps);
    steps.push_back({step::source::copy, planned(t.name, t.type, t.ne), &t});
    return {};
  }

  /// The scale of attn_kv_b, in layouts that keep the tensor and for the attn_v_b that is cut from it.
  result<void> plan_scale(const gguf::tensor_info& t, const gguf::tensor_info& kv, std::string_view end,
                          std::vector<step>& steps) const {
    if (t.elements() != 1) return fail(t, "one scale for each slice has no place in another layout");
    if (to_ == layout::rows_kv_b) steps.push_back({step::source::copy, planned(t.name, t.type, t.ne), &t});
    const std::string block = kv.name.substr(0, kv.name.rfind("attn_kv_b"));
    if (!model_.find(block + "attn_v_b.weight"))
      steps.push_back({step::source::copy, planned(block + "attn_v_b" + std::string(end), t.type, t.ne), &t});
    return {};
  }

  /// attn_k_b, after an attn_kv_b where the layout has one and the file does not.
  result<void> plan_keys(const gguf::tensor_info& t, const gguf::tensor_info* v, const gguf::tensor_info* kv,
                         std::vector<step>& steps) const {
    if (auto ok = check(t, shape_.nope, shape_.heads * shape_.rank); !ok) return ok;
    if (!v) return fail(t, "has no attn_v_b beside it");
    if (to_ == layout::rows_kv_b && !kv) {
      std::string name = t.name;
      name.replace(name.rfind("attn_k_b"), 8, "attn_kv_b");
      steps.push_back(
          {step::source::join, planned(name, joined_type(t.type, v->type), kv_b_extents(shape_)), &t, v});
    }
    steps.push_back({step::source::copy, planned(t.name, t.type, k_b_extents(shape_, to_)), &t});
    return {};
  }

  /// attn_kv_b stays where the layout has it; files with nothing else get attn_k_b and attn_v_b from it.
  result<void> plan_joined(const gguf::tensor_info& t, const gguf::tensor_info* k, const gguf::tensor_info* v,
                           std::vector<step>& steps) const {
    if (auto ok = check(t, shape_.rank, shape_.heads * shape_.head_rows()); !ok) return ok;
    if ((k == nullptr) != (v == nullptr)) return fail(t, "has only one of attn_k_b and attn_v_b beside it");
    if (to_ == layout::rows_kv_b)
      steps.push_back({step::source::copy, planned(t.name, t.type, kv_b_extents(shape_)), &t});
    if (k) return {};
    const auto named = [&](const char* part) { return t.name.substr(0, t.name.rfind("attn_kv_b")) + part; };
    steps.push_back({step::source::keys,
                     planned(named("attn_k_b.weight"), key_type(t.type), k_b_extents(shape_, to_)), &t});
    steps.push_back(
        {step::source::values, planned(named("attn_v_b.weight"), t.type, v_b_extents(shape_, to_)), &t});
    return {};
  }

  result<std::vector<float>> floats(const gguf::tensor_info& t, std::span<const std::byte> bytes) const {
    const auto* f = find_format(t.type);
    if (!f || f->usage != role::weight)
      return fail(t, "type " + gguf::type_name(t.type) + " holds no weights");
    std::vector<float> out(static_cast<std::size_t>(t.elements()));
    const std::int64_t row = f->row_bytes(t.cols());
    for (std::int64_t r = 0; r < t.rows() * t.slices(); ++r)
      if (const auto s =
              runtime::dequantize_row(t.type, bytes.data() + r * row, out.data() + r * t.cols(), t.cols());
          s != status::ok)
        return fail(t, std::string(to_string(s)));
    const auto scale = gguf::read_scale(model_, t);
    if (!scale) return scale.error();
    for (std::int64_t r = 0; r < t.rows() * t.slices(); ++r)
      scale->apply(r / t.rows(), out.data() + r * t.cols(), t.cols());
    return out;
  }

  result<void> write_rows(const step& s, const std::vector<float>& x, gguf::writer& out) const {
    const std::int64_t cols = s.out.cols();
    std::vector<std::byte> row(static_cast<std::size_t>(find_format(s.out.type)->row_bytes(cols)));
    for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(cols)) {
      if (const auto q = runtime::quantize_row(s.out.type, x.data() + at, nullptr, row.data(), cols);
          q != status::ok)
        return fail(s.out, "row " + std::to_string(static_cast<std::int64_t>(at) / cols) + ": " +
                               std::string(to_string(q)));
      if (auto w = out.append(row); !w) return w;
    }
    return {};
  }

  /// The rows of attn_v_b inside attn_kv_b, as they are.
  result<void> write_values(const step& s, std::span<const std::byte> kv, gguf::writer& out) const {
    const auto row = static_cast<std::size_t>(find_format(s.a->type)->row_bytes(shape_.rank));
    for (std::int64_t h = 0; h < shape_.heads; ++h) {
      const auto first = static_cast<std::size_t>(h * shape_.head_rows() + shape_.nope);
      if (auto w = out.append(kv.subspan(first * row, static_cast<std::size_t>(shape_.value) * row)); !w)
        return w;
    }
    return {};
  }

  const gguf::reader& model_;
  up_projection_shape shape_;
  layout to_;
};

}  // namespace

std::uint32_t joined_type(std::uint32_t k_b, std::uint32_t v_b) noexcept {
  return k_b == v_b && is_float(k_b) ? k_b : static_cast<std::uint32_t>(q8_0::gguf_id);
}
std::uint32_t key_type(std::uint32_t kv_b) noexcept {
  return is_float(kv_b) ? kv_b : static_cast<std::uint32_t>(q8_0::gguf_id);
}

result<void> relayout(const gguf::reader& model, layout to, const std::filesystem::path& out) {
  if (auto ok = file_plan().input("IN", model.path()).output("OUT", out).check(); !ok) return ok;
  const auto c = read_config(model);
  if (!c) return c.error();
  converter convert(model, *c, to);
  const auto steps = convert.plan();
  if (!steps) return steps.error();
  gguf::metadata meta = model.meta();
  for (const char* key : {"split.no", "split.count", "split.tensors.count"}) meta.erase(key);
  set_layout_keys(meta, *c, to);
  std::vector<gguf::tensor_info> tensors;
  for (const auto& s : *steps) tensors.push_back(s.out);
  auto file = gguf::writer::create(out, meta, std::move(tensors));
  if (!file) return file.error();
  for (const auto& s : *steps)
    if (auto w = convert.write(s, *file); !w) return w;
  return file->finish();
}

}  // namespace quantal::mla
