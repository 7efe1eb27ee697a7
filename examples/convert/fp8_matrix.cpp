// Weights of eight-bit floats (e4m3) with scales per tensor, row or block.
#include <array>
#include <cmath>

#include "stored_matrix.hpp"
#include "text.hpp"

namespace quantal::hf {
namespace {

/// Which rows and columns of a slice share a scale.
struct scale_grid {
  std::int64_t rows, cols;           ///< of scales
  std::array<std::int64_t, 2> each;  ///< weights per scale
};

class fp8_matrix final : public stored_matrix {
 public:
  fp8_matrix(const stored_tensor& weights, const stored_tensor& scales, std::int64_t cols,
             std::int64_t slice_rows, const scale_grid& grid, bool rounds)
      : stored_matrix(cols),
        data_(use(weights)),
        slice_rows_(slice_rows),
        grid_(grid),
        product_(rounds ? scales.type : dtype::f32) {
    const auto* s = use(scales);
    for (std::int64_t i = 0; i < scales.elements(); ++i) scales_.push_back(number_at(scales.type, s, i));
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
    const std::int64_t scale_row = r / slice_rows_ * grid_.rows + r % slice_rows_ / grid_.each[0];
    const float* scale = scales_.data() + scale_row * grid_.cols;
    for (std::int64_t c = first; c < first + n; ++c)
      *out++ = rounded_to(product, e4m3_value(static_cast<std::uint8_t>(in[c])) * scale[c / grid_.each[1]]);
  }

  const std::byte* data_;
  std::int64_t slice_rows_;
  scale_grid grid_;
  dtype product_;  ///< what products are rounded to
  std::vector<float> scales_;
};

std::int64_t parts(std::int64_t n, std::int64_t of) { return (n + of - 1) / of; }

/// The shape of the scales of a slice; one that fits nothing if there are not those of all slices.
std::vector<std::int64_t> slice_shape(const weight_place& w, const stored_tensor& scales) {
  if (w.slices == 1) return scales.shape;
  if (scales.shape.empty() || scales.shape.front() != w.slices) return {-1};
  return {scales.shape.begin() + 1, scales.shape.end()};
}

/// The scales that fit: one, one per row, or one per block of the size that config.json names; in a stack of gate and up also
/// one for each.
result<scale_grid> find_grid(const weight_place& w, const checkpoint::place& weights,
                             const checkpoint::place& scales) {
  using shape_type = std::vector<std::int64_t>;
  const std::int64_t rows = w.rows / w.slices;
  const weight_scheme otherwise;
  const auto& s = w.scheme ? *w.scheme : otherwise;
  const scale_grid blocks{parts(rows, s.block[0]), parts(w.cols, s.block[1]), s.block};
  const auto is = [found = slice_shape(w, *scales.tensor)](const shape_type& shape) {
    return found == shape;
  };
  const bool one = is({}) || is({1}) || is({1, 1});
  const bool halves = w.slices > 1 && w.module.ends_with("gate_up_proj") && is({2, 1}) && rows % 2 == 0;
  const bool per_row = is({rows}) || is({rows, 1});
  const bool any = s.scales == sharing::unstated;
  if ((any || s.scales == sharing::block) && is({blocks.rows, blocks.cols})) return blocks;
  if ((any || s.scales == sharing::tensor) && one) return scale_grid{1, 1, {rows, w.cols}};
  if ((any || s.scales == sharing::tensor) && halves) return scale_grid{2, 1, {rows / 2, w.cols}};
  if ((any || s.scales == sharing::channel) && per_row) return scale_grid{rows, 1, {1, w.cols}};
  shape_type need = s.scales == sharing::tensor    ? shape_type{1}
                    : s.scales == sharing::channel ? shape_type{rows, 1}
                                                   : shape_type{blocks.rows, blocks.cols};
  if (w.slices > 1) need.insert(need.begin(), w.slices);
  return error{describe(scales) + ": " + scales.tensor->shape_text() + " where the scales per " +
               std::string(to_string(s.scales)) + " of " + weights.tensor->name + " need " +
               dimensions(need)};
}

/// What names of scales end with: of a module's weight, or of a stack that is called like a module.
std::string scale_suffix(const weight_place& w, const char* suffix) {
  return (w.slices > 1 ? "_" : ".weight_") + std::string(suffix);
}

}  // namespace

result<matrix_ptr> read_fp8_matrix(const weight_place& w, const checkpoint::place& weights) {
  if (w.scheme && w.scheme->how != coding::fp8)
    return error{describe(weights) + ": has type F8_E4M3 where " + w.scheme->where + " says " +
                 std::string(to_string(w.scheme->how))};
  if (weights.tensor->shape != w.stored_shape())
    return error{describe(weights) + ": " + weights.tensor->shape_text() + " where config.json implies " +
                 dimensions(w.stored_shape())};
  const auto inverse_suffix = scale_suffix(w, "scale_inv"), plain_suffix = scale_suffix(w, "scale");
  const auto *inverse = w.find(inverse_suffix.c_str()), *plain = w.find(plain_suffix.c_str());
  if (!plain) plain = w.find(".qscale_weight");  // Mistral's own name
  if (!inverse && !plain)
    return error{describe(weights) + ": has type F8_E4M3 but no scales (" +
                 text::in_quotes(w.module + inverse_suffix) + " or " +
                 text::in_quotes(w.module + plain_suffix) + ")"};
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
  auto m = std::make_unique<fp8_matrix>(*weights.tensor, *scales.tensor, w.cols, w.rows / w.slices, *grid,
                                        w.scheme && w.scheme->rounds);
  if (!m->scales_are_finite()) return error{describe(scales) + ": a scale is NaN or infinite"};
  return matrix_ptr(std::move(m));
}

}  // namespace quantal::hf
