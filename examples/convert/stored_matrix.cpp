#include "stored_matrix.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "quantal/dequantize.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

constexpr std::array<float, 256> e4m3_table() {
  std::array<float, 256> out{};
  for (std::uint32_t bits = 0; bits < 256; ++bits) {
    const std::uint32_t exponent = bits >> 3 & 15, mantissa = bits & 7;
    float v = exponent ? __builtin_bit_cast(float, (exponent + 120) << 23 | mantissa << 20)
                       : static_cast<float>(mantissa) / 512;
    if ((bits & 0x7f) == 0x7f) v = std::numeric_limits<float>::quiet_NaN();
    out[bits] = bits & 0x80 ? -v : v;
  }
  return out;
}

constexpr auto e4m3 = e4m3_table();

bool holds_weights(dtype t) {
  return t == dtype::bf16 || t == dtype::f16 || t == dtype::f32 || t == dtype::f8_e4m3;
}

void decode(dtype t, const std::byte* in, float* out, std::int64_t n) noexcept {
  if (t == dtype::bf16) return dequantize_row<bf16>(in, out, n);
  if (t == dtype::f16) return dequantize_row<f16>(in, out, n);
  dequantize_row<f32>(in, out, n);
}

std::string dimensions(std::int64_t rows, std::int64_t cols) {
  return "[" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
}

/// Vectors may be stored with one dimension.
bool has_shape(const stored_tensor& t, std::int64_t rows, std::int64_t cols) {
  return t.shape == std::vector{rows, cols} || (rows == 1 && t.shape == std::vector{cols});
}

result<std::vector<float>> read_scales(const checkpoint& c, const checkpoint::place& weights,
                                       std::int64_t rows, std::int64_t cols) {
  const std::string name = weights.tensor->name + "_scale_inv";
  const auto* p = c.find(name);
  if (!p)
    return error{describe(weights) + ": has type F8_E4M3 but no scales (" + text::in_quotes(name) + ")"};
  if (p->tensor->type != dtype::f32 && p->tensor->type != dtype::bf16)
    return error{describe(*p) + ": scales of type " + std::string(to_string(p->tensor->type)) +
                 ", expected F32 or BF16"};
  if (p->tensor->shape != std::vector{rows, cols})
    return error{describe(*p) + ": " + p->tensor->shape_text() + " where the blocks of " +
                 weights.tensor->name + " need " + dimensions(rows, cols)};
  std::vector<float> out(static_cast<std::size_t>(rows * cols));
  decode(p->tensor->type, p->tensor->bytes.data(), out.data(), rows * cols);
  for (const float s : out)
    if (!std::isfinite(s)) return error{describe(*p) + ": a scale is NaN or infinite"};
  return out;
}

}  // namespace

float e4m3_value(std::uint8_t bits) noexcept { return e4m3[bits]; }

result<stored_matrix> stored_matrix::find(const checkpoint& c, const std::string& name, std::int64_t rows,
                                          std::int64_t cols, const std::array<std::int64_t, 2>& block) {
  const auto* p = c.find(name);
  if (!p) return error{c.directory().string() + ": tensor " + text::in_quotes(name) + " is missing"};
  const auto& t = *p->tensor;
  if (!holds_weights(t.type))
    return error{describe(*p) + ": type " + std::string(to_string(t.type)) +
                 " is no weight type (BF16, F16, F32 and F8_E4M3 are)"};
  if (!has_shape(t, rows, cols))
    return error{describe(*p) + ": " + t.shape_text() + " where config.json implies " +
                 dimensions(rows, cols)};
  stored_matrix m;
  m.tensor_ = &t;
  m.cols_ = cols;
  if (t.type != dtype::f8_e4m3) return m;
  m.block_ = block;
  m.scale_cols_ = (cols + block[1] - 1) / block[1];
  auto scales = read_scales(c, *p, (rows + block[0] - 1) / block[0], m.scale_cols_);
  if (!scales) return scales.error();
  m.scales_ = std::move(*scales);
  return m;
}

const std::byte* stored_matrix::stored_row(std::int64_t r) const noexcept {
  return tensor_->bytes.data() + r * cols_ * size_of(tensor_->type);
}

void stored_matrix::row(std::int64_t r, float* out) const noexcept {
  const std::byte* in = stored_row(r);
  if (scales_.empty()) return decode(tensor_->type, in, out, cols_);
  for (std::int64_t first = 0; first < cols_; first += block_[1]) {
    const float s = scale(r, first);
    const std::int64_t last = std::min(first + block_[1], cols_);
    for (std::int64_t c = first; c < last; ++c) out[c] = e4m3[static_cast<std::uint8_t>(in[c])] * s;
  }
}

float stored_matrix::at(std::int64_t r, std::int64_t c) const noexcept {
  const std::byte* in = stored_row(r) + c * size_of(tensor_->type);
  if (!scales_.empty()) return e4m3[static_cast<std::uint8_t>(*in)] * scale(r, c);
  float v = 0;
  decode(tensor_->type, in, &v, 1);
  return v;
}

}  // namespace quantal::hf
