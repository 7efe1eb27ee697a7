#include "stored_matrix.hpp"

#include <algorithm>

#include "quantal/dequantize.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

bool is_float(dtype t) { return t == dtype::bf16 || t == dtype::f16 || t == dtype::f32; }

/// Vectors may be stored with one dimension.
bool has_shape(const stored_tensor& t, const weight_place& w) {
  return t.shape == w.stored_shape() || (w.rows == 1 && t.shape == std::vector{w.cols});
}

class float_matrix final : public stored_matrix {
 public:
  float_matrix(const stored_tensor& t, std::int64_t cols)
      : stored_matrix(cols), type_(t.type), data_(use(t)) {}

  void decode(std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept override {
    const std::byte* in = stored_row(r) + first * bits_of(type_) / 8;
    if (type_ == dtype::bf16) return dequantize_row<bf16>(in, out, n);
    if (type_ == dtype::f16) return dequantize_row<f16>(in, out, n);
    dequantize_row<f32>(in, out, n);
  }
  std::uint32_t natural_type() const noexcept override {
    return type_ == dtype::bf16 ? bf16::gguf_id : type_ == dtype::f16 ? f16::gguf_id : f32::gguf_id;
  }
  const std::byte* stored_row(std::int64_t r) const noexcept override {
    return data_ + r * cols() * bits_of(type_) / 8;
  }
  bool is_wide() const noexcept override { return type_ != dtype::bf16; }

 private:
  dtype type_;
  const std::byte* data_;
};

std::string without_suffix(const std::string& name) {
  return name.ends_with(".weight") ? name.substr(0, name.size() - 7) : name;
}

/// Layers that writers of quantized checkpoints quantize; the rest of a model is no evidence of anything.
bool is_projection(const std::string& module) {
  return module.ends_with("_proj") || module.ends_with("_proj_with_mqa");
}

result<matrix_ptr> read_packed(const weight_place& w, const checkpoint::place& packed) {
  if (!w.scheme)
    return error{describe(packed) +
                 ": packed weights, but config.json has no quantization_config for them (or lists " +
                 text::in_quotes(w.module) + " as ignored)"};
  if (w.scheme->how == coding::integers) return read_integer_matrix(w);
  if (w.scheme->how == coding::nvfp4 || w.scheme->how == coding::mxfp4) return read_fp4_matrix(w, packed);
  return error{describe(packed) + ": packed weights where " + w.scheme->where + " says " +
               std::string(to_string(w.scheme->how))};
}

result<matrix_ptr> read_words(const weight_place& w, const checkpoint::place& words) {
  if (w.scheme && w.scheme->how == coding::gptq) return read_gptq_matrix(w);
  if (w.scheme && w.scheme->how == coding::awq) return read_awq_matrix(w);
  return error{describe(words) +
               ": the layout of this tensor is that of GPTQ or AWQ, but config.json names neither for it"};
}

result<matrix_ptr> read_floats(const weight_place& w, const checkpoint::place& p) {
  const auto& t = *p.tensor;
  if (!has_shape(t, w))
    return error{describe(p) + ": " + t.shape_text() + " where config.json implies " +
                 dimensions(w.stored_shape())};
  if (w.scheme && w.scheme->rounds && is_projection(w.module))
    return error{describe(p) + ": type " + std::string(to_string(t.type)) + " where " + w.scheme->where +
                 " says " + std::string(to_string(w.scheme->how)) + " (" + std::to_string(w.scheme->bits) +
                 " bits); the module is not in its list of ignored ones either"};
  return matrix_ptr(std::make_unique<float_matrix>(t, w.cols));
}

}  // namespace

std::string dimensions(const std::vector<std::int64_t>& shape) {
  stored_tensor t;
  t.shape = shape;
  return t.shape_text();
}

std::vector<std::int64_t> weight_place::stored_shape() const {
  if (slices > 1) return {slices, rows / slices, cols};
  return {rows, cols};
}

result<const checkpoint::place*> weight_place::need(const char* suffix, std::initializer_list<dtype> types,
                                                    const std::vector<std::int64_t>& shape) const {
  const auto* p = find(suffix);
  if (!p)
    return error{source.directory().string() + ": tensor " + text::in_quotes(module + suffix) +
                 " is missing"};
  if (std::find(types.begin(), types.end(), p->tensor->type) == types.end()) {
    std::string known;
    for (const auto t : types) known += (known.empty() ? "" : ", ") + std::string(to_string(t));
    return error{describe(*p) + ": type " + std::string(to_string(p->tensor->type)) + ", expected " + known};
  }
  if (p->tensor->shape != shape)
    return error{describe(*p) + ": " + p->tensor->shape_text() + " where " + dimensions(shape) +
                 " is needed for a weight of " + dimensions({rows, cols}) +
                 (scheme ? " by " + scheme->where : "")};
  return p;
}

result<matrix_ptr> find_matrix(const checkpoint& c, const quantization& q, const std::string& name,
                               const matrix_shape& shape) {
  const std::string module = without_suffix(name);
  const bool is_weight = name.ends_with(".weight") || shape.slices > 1;
  const auto scheme = is_weight ? q.find(module) : result<const weight_scheme*>(nullptr);
  if (!scheme)
    return error{c.directory().string() + ": config.json: quantization_config: " + text::in_quotes(module) +
                 ": " + scheme.error().message};
  const weight_place w{c, module, shape.all_rows(), shape.cols, *scheme, shape.slices};
  const auto *plain = c.find(name), *packed = w.find(".weight_packed"), *words = w.find(".qweight");
  if ((plain && packed) || (plain && words) || (packed && words))
    return error{describe(packed ? *packed : *words) + ": the same weight is also stored as " +
                 text::in_quotes((plain ? plain : words)->tensor->name)};
  if (packed) return read_packed(w, *packed);
  if (words) return read_words(w, *words);
  if (shape.slices > 1 && w.find("_blocks")) {
    if (plain) return error{describe(*plain) + ": the same weight is also stored as blocks"};
    return read_mxfp4_slices(w);
  }
  if (!plain) return error{c.directory().string() + ": tensor " + text::in_quotes(name) + " is missing"};
  const auto type = plain->tensor->type;
  if (is_float(type)) return read_floats(w, *plain);
  if (type == dtype::f8_e4m3) return read_fp8_matrix(w, *plain);
  if (type == dtype::f4) return read_fp4_matrix(w, *plain);
  if (type == dtype::i8 && w.scheme && w.scheme->how == coding::integers) return read_plain_integer_matrix(w);
  if (w.scheme && (w.scheme->how == coding::nvfp4 || w.scheme->how == coding::mxfp4) &&
      (type == dtype::u8 || type == dtype::i8))
    return read_fp4_matrix(w, *plain);
  // Packed experts beside fp8: DeepSeek's own name of their exponents, and that of transformers.
  const auto* exponents = w.find(".weight_scale_inv");
  const bool has_exponents = exponents && exponents->tensor->type == dtype::f8_e8m0;
  if (type == dtype::i8 && (w.find(".scale") || has_exponents)) return read_fp4_matrix(w, *plain);
  return error{describe(*plain) + ": type " + std::string(to_string(type)) +
               " is no weight type (BF16, F16, F32 and F8_E4M3 are)"};
}

}  // namespace quantal::hf
