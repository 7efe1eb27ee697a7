// Weights of 4-bit floats (e2m1), two in a byte: with a power of two per 32 (mxfp4), or with an e4m3 scale
// per 16 and a scale of the tensor (nvfp4).
#include <cmath>

#include "quantal/format/mxfp4.hpp"
#include "quantal/format/nvfp4.hpp"
#include "stored_matrix.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// What all readers need of the packed codes.
struct packed_codes {
  const std::byte* data;
  std::int64_t row_bytes;
  int operator()(std::int64_t r, std::int64_t c) const noexcept {
    return static_cast<int>(data[r * row_bytes + c / 2]) >> (c % 2 * 4) & 15;
  }
};

class mxfp4_matrix final : public stored_matrix {
 public:
  mxfp4_matrix(const stored_tensor& weights, const stored_tensor& scales, std::int64_t cols)
      : stored_matrix(cols), codes_{use(weights), cols / 2}, scales_(use(scales)) {}

  void decode(std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept override {
    for (std::int64_t c = first; c < first + n; ++c)
      *out++ = e2m1_value(codes_(r, c)) * e8m0_value(exponent(r, c / 32));
  }
  std::uint32_t natural_type() const noexcept override { return mxfp4::gguf_id; }
  void encode(std::int64_t r, std::byte* out) const noexcept override {
    for (std::int64_t c = 0; c < cols(); c += 32, out += sizeof(mxfp4::block)) {
      mxfp4::block b{};
      mxfp4::set_exponent(b, exponent(r, c / 32));
      for (int i = 0; i < 32; ++i) mxfp4::set_index(b, i, codes_(r, c + i));
      std::memcpy(out, &b, sizeof b);
    }
  }

 private:
  std::uint8_t exponent(std::int64_t r, std::int64_t g) const noexcept {
    return static_cast<std::uint8_t>(scales_[r * (cols() / 32) + g]);
  }
  packed_codes codes_;
  const std::byte* scales_;
};

class nvfp4_matrix final : public stored_matrix {
 public:
  /// `divides`: the tensor's scale divides (compressed-tensors, which also rounds to bf16), or else
  /// multiplies (ModelOpt).
  nvfp4_matrix(const stored_tensor& weights, const stored_tensor& scales, const stored_tensor& global,
               bool divides, float input_scale, std::int64_t cols)
      : stored_matrix(cols),
        codes_{use(weights), cols / 2},
        scales_(use(scales)),
        divides_(divides),
        global_(number_at(dtype::f32, use(global), 0)),
        input_scale_(input_scale) {}

  void decode(std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept override {
    for (std::int64_t c = first; c < first + n; ++c) {
      const float s = e4m3_value(scale(r, c / 16));
      const float v = e2m1_value(codes_(r, c)) * (divides_ ? s / global_ : s * global_);
      *out++ = divides_ ? rounded_to(dtype::bf16, v) : v;
    }
  }
  void exact_row(std::int64_t r, float* out) const noexcept override {
    for (std::int64_t c = 0; c < cols(); ++c)
      out[c] = e2m1_value(codes_(r, c)) * e4m3_value(scale(r, c / 16));
  }
  std::uint32_t natural_type() const noexcept override {
    return cols() % nvfp4::layout.elements ? bf16::gguf_id : nvfp4::gguf_id;
  }
  /// Blocks have no negative scales: the codes change sign instead.
  void encode(std::int64_t r, std::byte* out) const noexcept override {
    for (std::int64_t c = 0; c < cols(); c += nvfp4::layout.elements, out += sizeof(nvfp4::block)) {
      nvfp4::block b{};
      for (int g = 0; g < 4; ++g) {
        const auto s = scale(r, c / 16 + g);
        nvfp4::set_scale_code(b, g, s & 0x7f);
        for (int i = 0; i < 16; ++i)
          nvfp4::set_index(b, 16 * g + i, codes_(r, c + 16 * g + i) ^ (s >> 7 << 3));
      }
      std::memcpy(out, &b, sizeof b);
    }
  }
  float tensor_scale() const noexcept override { return divides_ ? 1 / global_ : global_; }
  float input_scale() const noexcept override { return input_scale_; }

 private:
  std::uint8_t scale(std::int64_t r, std::int64_t g) const noexcept {
    return static_cast<std::uint8_t>(scales_[r * (cols() / 16) + g]);
  }
  packed_codes codes_;
  const std::byte* scales_;
  bool divides_;
  float global_, input_scale_;
};

/// One finite positive number, of shape [] or [1].
result<const stored_tensor*> one_scale(const weight_place& w, const char* suffix) {
  const auto* p = w.find(suffix);
  auto found =
      w.need(suffix, {dtype::f32},
             p && p->tensor->shape.empty() ? std::vector<std::int64_t>{} : std::vector<std::int64_t>{1});
  if (!found) return found.error();
  const float v = number_at(dtype::f32, (*found)->tensor->bytes.data(), 0);
  if (!(v > 0) || !std::isfinite(v))
    return error{describe(**found) +
                 text::format(": the scale %g is not positive and finite", static_cast<double>(v))};
  return (*found)->tensor;
}

/// The scale of inputs, 0 if there is none that means something: weights do not depend on it.
float input_scale_of(const weight_place& w, bool divides) {
  const char* suffix = divides ? ".input_global_scale" : ".input_scale";
  const auto t = w.find(suffix) ? one_scale(w, suffix) : result<const stored_tensor*>(nullptr);
  if (!t || !*t) return 0;
  const float v = number_at(dtype::f32, (*t)->bytes.data(), 0);
  return divides ? 1 / v : v;
}

/// The first of these tensors that there is.
const char* first_of(const weight_place& w, std::initializer_list<const char*> suffixes) {
  for (const char* s : suffixes)
    if (w.find(s)) return s;
  return *suffixes.begin();
}

}  // namespace

result<matrix_ptr> read_fp4_matrix(const weight_place& w, const checkpoint::place& weights) {
  const bool nv = w.scheme && w.scheme->how == coding::nvfp4;
  const std::int64_t group = nv ? 16 : 32;
  const auto& t = *weights.tensor;
  if (w.slices > 1) return error{describe(weights) + ": 4-bit floats in stacks of experts are not supported"};
  if (w.cols % group)
    return error{describe(weights) + ": groups of " + std::to_string(group) + " do not divide " +
                 std::to_string(w.cols) + " columns"};
  const bool bytes = t.type == dtype::u8 || t.type == dtype::i8, own_type = t.type == dtype::f4;
  if ((!bytes && !own_type) || t.shape != std::vector{w.rows, own_type ? w.cols : w.cols / 2})
    return error{describe(weights) + ": " + std::string(to_string(t.type)) + " " + t.shape_text() +
                 " where " + (own_type ? "4-bit floats need F4 " : "two 4-bit floats in a byte need U8 ") +
                 dimensions({w.rows, own_type ? w.cols : w.cols / 2})};
  const char* suffix = first_of(w, {".weight_scale", ".weight_scale_inv", ".scale"});
  if (nv) {
    const auto scales = w.need(suffix, {dtype::f8_e4m3}, {w.rows, w.cols / group});
    if (!scales) return scales.error();
    const bool divides = t.name.ends_with("_packed");
    const auto global = one_scale(w, divides ? ".weight_global_scale" : ".weight_scale_2");
    if (!global) return global.error();
    return matrix_ptr(std::make_unique<nvfp4_matrix>(t, *(*scales)->tensor, **global, divides,
                                                     input_scale_of(w, divides), w.cols));
  }
  const auto scales = w.need(suffix, {dtype::f8_e8m0, dtype::u8}, {w.rows, w.cols / group});
  if (!scales) return scales.error();
  return matrix_ptr(std::make_unique<mxfp4_matrix>(t, *(*scales)->tensor, w.cols));
}

result<matrix_ptr> read_mxfp4_slices(const weight_place& w) {
  const std::int64_t rows = w.rows / w.slices, groups = w.cols / 32;
  const auto where = describe(*w.find("_blocks"));
  if (!w.scheme || w.scheme->how != coding::mxfp4)
    return error{where +
                 ": packed weights, but config.json has no quantization_config of method mxfp4 for them"};
  if (w.cols % 32)
    return error{where + ": groups of 32 do not divide " + std::to_string(w.cols) + " columns"};
  const auto blocks = w.need("_blocks", {dtype::u8}, {w.slices, rows, groups, 16});
  if (!blocks) return blocks.error();
  const auto scales = w.need("_scales", {dtype::f8_e8m0, dtype::u8}, {w.slices, rows, groups});
  if (!scales) return scales.error();
  return matrix_ptr(std::make_unique<mxfp4_matrix>(*(*blocks)->tensor, *(*scales)->tensor, w.cols));
}

}  // namespace quantal::hf
