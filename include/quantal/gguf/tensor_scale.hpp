// The float32 that multiplies a whole tensor and lies beside it: "blk.0.ffn_up.scale" of "blk.0.ffn_up.weight",
// one value, or one per expert of a tensor of experts. nvfp4 models have them, because the 8-bit scales of that
// format reach over few powers of two.
#pragma once

#include <cmath>
#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "quantal/gguf/model_view.hpp"
#include "quantal/result.hpp"

namespace quantal::gguf {

inline std::string scale_name(std::string_view weight) {
  constexpr std::string_view end = ".weight";
  if (weight.ends_with(end)) weight.remove_suffix(end.size());
  return std::string(weight) + ".scale";
}

/// The tensor whose scale this one may be; null if there is none.
inline const tensor_info* scaled_tensor(const model_view& model, const tensor_info& t) {
  constexpr std::string_view end = ".scale";
  const std::string_view name = t.name;
  if (t.type != f32::gguf_id || !name.ends_with(end)) return nullptr;
  const std::string base(name.substr(0, name.size() - end.size()));
  const auto* weight = model.find(base + ".weight");
  if (!weight) weight = model.find(base);
  if (!weight || weight->type == f32::gguf_id) return nullptr;
  return t.elements() == 1 || t.elements() == weight->slices() ? weight : nullptr;
}

/// Factors of the slices of a tensor.
class tensor_scale {
 public:
  tensor_scale() = default;
  /// One value for all slices, or one for each.
  explicit tensor_scale(std::vector<float> values) : values_(std::move(values)) {}

  bool is_one() const noexcept { return values_.empty(); }
  float of(std::int64_t slice) const noexcept {
    if (values_.empty()) return 1.0f;
    return values_.size() == 1 ? values_[0] : values_[static_cast<std::size_t>(slice)];
  }
  const std::vector<float>& values() const noexcept { return values_; }
  void apply(std::int64_t slice, float* x, std::int64_t n) const noexcept {
    if (values_.empty()) return;
    const float s = of(slice);
    for (std::int64_t i = 0; i < n; ++i) x[i] *= s;
  }

 private:
  std::vector<float> values_;
};

/// The scale that lies beside `t`; 1 if there is none.
inline result<tensor_scale> read_scale(const model_view& model, const tensor_info& t) {
  const auto* s = model.find(scale_name(t.name));
  if (!s || scaled_tensor(model, *s) != &t) return tensor_scale();
  const auto rows = model.rows(*s);
  if (!rows) return rows.error();
  std::vector<float> values(static_cast<std::size_t>(s->elements()));
  std::vector<std::byte> scratch(static_cast<std::size_t>(s->cols()) * sizeof(float));
  for (std::int64_t r = 0; r < s->rows() * s->slices(); ++r)
    std::memcpy(values.data() + r * s->cols(), rows->row(r, scratch.data()), scratch.size());
  for (const float v : values)
    if (!std::isfinite(v)) return error{model.path() + ": tensor '" + s->name + "' is not finite"};
  return tensor_scale(std::move(values));
}

}  // namespace quantal::gguf
