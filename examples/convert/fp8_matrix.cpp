// Weights of eight-bit floats (e4m3) with scales per tensor, row or block.
#include <array>
#include <cmath>

#include "stored_matrix.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// Which rows and columns share a scale.
struct scale_grid {
  std::int64_t rows, cols;           ///< of scales
  std::array<std::int64_t, 2> each;  ///< weights per scale
};

class fp8_matrix final : public stored_matrix {
 public:
  fp8_matrix(const stored_tensor& weights, const stored_tensor& scales, std::int64_t cols,
             const scale_grid& grid, bool rounds)
      : stored_matrix(cols), data_(use(weights)), grid_(grid), product_(rounds ? scales.type : dtype::f32) {
    const auto* s = use(scales);
    for (std::int64_t i = 0; i < grid.rows * grid.cols; ++i) scales_.push_back(number_at(scales.type, s, i));
  }

  void decode(std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept override {
    read(product_, r, first, n, out);
  }
  void exact_row(std::int64_t r, float* out) const noexcept override { read(dtype::f32, r, 0, cols(), out); }
  bool scales_are_finite() const {
    for (const float s : scales_)
      if (!std::isfinite(s)) return false;
    return true;
  }

 private:
  void read(dtype product, std::int64_t r, std::int64_t first, std::int64_t n, float* out) const noexcept {
    const std::byte* in = data_ + r * cols();
    const float* scale = scales_.data() + r / grid_.each[0] * grid_.cols;
    for (std::int64_t c = first; c < first + n; ++c)
      *out++ = rounded_to(product, e4m3_value(static_cast<std::uint8_t>(in[c])) * scale[c / grid_.each[1]]);
  }

  const std::byte* data_;
  scale_grid grid_;
  dtype product_;  ///< what products are rounded to
  std::vector<float> scales_;
};

std::int64_t parts(std::int64_t n, std::int64_t of) { return (n + of - 1) / of; }

/// The scales that fit: one, one per row, or one per block of the size that config.json names.
result<scale_grid> find_grid(const weight_place& w, const checkpoint::place& weights,
                             const checkpoint::place& scales) {
  const auto& shape = scales.tensor->shape;
  const weight_scheme otherwise;
  const auto& s = w.scheme ? *w.scheme : otherwise;
  const scale_grid blocks{parts(w.rows, s.block[0]), parts(w.cols, s.block[1]), s.block};
  const bool one =
      shape.empty() || shape == std::vector<std::int64_t>{1} || shape == std::vector<std::int64_t>{1, 1};
  const bool per_row = shape == std::vector{w.rows} || shape == std::vector{w.rows, std::int64_t{1}};
  const bool any = s.scales == sharing::unstated;
  if ((any || s.scales == sharing::block) && shape == std::vector{blocks.rows, blocks.cols}) return blocks;
  if ((any || s.scales == sharing::tensor) && one) return scale_grid{1, 1, {w.rows, w.cols}};
  if ((any || s.scales == sharing::channel) && per_row) return scale_grid{w.rows, 1, {1, w.cols}};
  const std::string need = s.scales == sharing::tensor    ? "[1]"
                           : s.scales == sharing::channel ? dimensions({w.rows, 1})
                                                          : dimensions({blocks.rows, blocks.cols});
  return error{describe(scales) + ": " + scales.tensor->shape_text() + " where the scales per " +
               std::string(to_string(s.scales)) + " of " + weights.tensor->name + " need " + need};
}

}  // namespace

result<matrix_ptr> read_fp8_matrix(const weight_place& w, const checkpoint::place& weights) {
  if (w.scheme && w.scheme->how != coding::fp8)
    return error{describe(weights) + ": has type F8_E4M3 where " + w.scheme->where + " says " +
                 std::string(to_string(w.scheme->how))};
  if (weights.tensor->shape != std::vector{w.rows, w.cols})
    return error{describe(weights) + ": " + weights.tensor->shape_text() + " where config.json implies " +
                 dimensions({w.rows, w.cols})};
  const auto *inverse = w.find(".weight_scale_inv"), *plain = w.find(".weight_scale");
  if (!plain) plain = w.find(".qscale_weight");  // Mistral's own name
  if (!inverse && !plain)
    return error{describe(weights) + ": has type F8_E4M3 but no scales (" +
                 text::in_quotes(w.module + ".weight_scale_inv") + " or " +
                 text::in_quotes(w.module + ".weight_scale") + ")"};
  if (inverse && plain)
    return error{describe(*inverse) + ": a second set of scales beside " +
                 text::in_quotes(plain->tensor->name)};
  const auto& scales = inverse ? *inverse : *plain;
  const auto type = scales.tensor->type;
  if (type != dtype::f32 && type != dtype::bf16 && type != dtype::f16 && type != dtype::f8_e8m0)
    return error{describe(scales) + ": scales of type " + std::string(to_string(type)) +
                 ", expected F32, BF16, F16 or F8_E8M0"};
  const auto grid = find_grid(w, weights, scales);
  if (!grid) return grid.error();
  auto m = std::make_unique<fp8_matrix>(*weights.tensor, *scales.tensor, w.cols, *grid,
                                        w.scheme && w.scheme->rounds);
  if (!m->scales_are_finite()) return error{describe(scales) + ": a scale is NaN or infinite"};
  return matrix_ptr(std::move(m));
}

}  // namespace quantal::hf
