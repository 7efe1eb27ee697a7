// The formats that tests and benchmarks of the device run: those of the library, and those that
// cuda/CMakeLists.txt adds (quantal_cuda_also), which the run-time tables of the host do not know.
#pragma once

#include <algorithm>
#include <cmath>
#include <vector>

#include "quantal/cuda.hpp"
#include "quantal/formats.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/q5_64.hpp"

namespace quantal::cuda {

/// Formats beside those of the library; cuda/CMakeLists.txt names them too.
using also_formats = format_list<q5_64>;
std::span<const operations* const> also_operations() noexcept;

/// A format on the device, and what the host makes its rows with.
struct device_format {
  const operations* ops;
  format_info info;
  status (*quantize)(const device_format&, const float* x, std::byte* row, std::int64_t cols);
  void (*dequantize)(const device_format&, const std::byte* row, float* values, std::int64_t cols);
};

namespace detail {

/// Of the library's formats.
inline status quantize_known(const device_format& f, const float* x, std::byte* row, std::int64_t cols) {
  return runtime::quantize_row(f.info.gguf_id, x, nullptr, row, cols);
}
inline void dequantize_known(const device_format& f, const std::byte* row, float* values, std::int64_t cols) {
  runtime::dispatcher::best().find(f.info.gguf_id)->dequantize_row(row, values, cols);
}

/// Of a format with a scale per block and a smallest code of -min_code: the largest value gets it.
template <block_format F>
status quantize_also(const device_format&, const float* x, std::byte* row, std::int64_t cols) {
  constexpr int n = F::layout.elements;
  auto* blocks = row_blocks<F>(row);
  for (std::int64_t b = 0; b < cols / n; ++b, x += n) {
    const float largest =
        *std::max_element(x, x + n, [](float a, float c) { return std::abs(a) < std::abs(c); });
    F::set_scale(blocks[b], largest / static_cast<float>(F::min_code));
    const float d = F::scale(blocks[b], 1, 0), inverse = d != 0 ? 1 / d : 0;
    for (int e = 0; e < n; ++e)
      F::set_code(blocks[b], e,
                  std::clamp(static_cast<int>(std::lround(x[e] * inverse)), F::min_code, F::max_code));
  }
  return status::ok;
}
template <block_format F>
void dequantize_also(const device_format&, const std::byte* row, float* values, std::int64_t cols) {
  constexpr int n = F::layout.elements;
  for (std::int64_t c = 0; c < cols; ++c)
    values[c] = weight<F>(row_blocks<F>(row)[c / n], row_scale<F>(row), static_cast<int>(c % n));
}
template <block_format F>
void add_also(std::vector<device_format>& all) {
  for (const operations* ops : also_operations())
    if (ops->gguf_id == F::gguf_id)
      all.push_back(
          {ops, {F::name, F::gguf_id, F::layout, F::usage, false}, &quantize_also<F>, &dequantize_also<F>});
}

}  // namespace detail

inline std::vector<device_format> device_formats() {
  std::vector<device_format> all;
  for (const operations* ops : all_operations())
    all.push_back({ops, *find_format(ops->gguf_id), &detail::quantize_known, &detail::dequantize_known});
  also_formats::for_each([&]<class F>() { detail::add_also<F>(all); });
  return all;
}

}  // namespace quantal::cuda
