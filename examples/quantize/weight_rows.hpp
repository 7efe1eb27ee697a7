// Rows of a tensor as floats, with the scale that lies beside it.
#pragma once

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "quantal/gguf/model_view.hpp"
#include "quantal/gguf/tensor_scale.hpp"
#include "quantal/runtime/ops.hpp"
#include "text.hpp"

namespace quantal::plan {

/// Every thread reads with a copy of its own; the model must outlive it.
class weight_rows {
 public:
  static result<weight_rows> open(const gguf::model_view& model, const gguf::tensor_info& t) {
    auto source = model.rows(t);
    if (!source) return source.error();
    auto scale = gguf::read_scale(model, t);
    if (!scale) return scale.error();
    return weight_rows(model, t, std::move(*source), std::move(*scale));
  }

  /// Row r, counted through all slices. Errors name the file, the tensor and a row that is not finite.
  result<void> read(std::int64_t r, float* x) {
    const auto fail = [&](const std::string& why) {
      return error{model_->path() + ": tensor '" + text::printable(tensor_->name) + "'" + why};
    };
    const std::int64_t cols = tensor_->cols();
    if (const auto s = runtime::dequantize_row(tensor_->type, source_.row(r, scratch_.data()), x, cols);
        s != status::ok)
      return fail(": " + std::string(to_string(s)));
    if (!std::all_of(x, x + cols, [](float v) { return std::isfinite(v); }))
      return fail(", row " + std::to_string(r) + " is not finite");
    scale_.apply(r / tensor_->rows(), x, cols);
    return {};
  }

 private:
  weight_rows(const gguf::model_view& model, const gguf::tensor_info& t, gguf::row_source source,
              gguf::tensor_scale scale)
      : model_(&model),
        tensor_(&t),
        source_(std::move(source)),
        scale_(std::move(scale)),
        scratch_(static_cast<std::size_t>(find_format(t.type)->row_bytes(t.cols()))) {}

  const gguf::model_view* model_;
  const gguf::tensor_info* tensor_;
  gguf::row_source source_;
  gguf::tensor_scale scale_;
  std::vector<std::byte> scratch_;
};

}  // namespace quantal::plan
