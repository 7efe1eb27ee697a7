// A row through q8_0 and back, and a product, with nothing but the single header.
#include <cmath>
#include <quantal.hpp>

std::string_view name_of(std::uint32_t gguf_id);

int main() {
  using namespace quantal;
  constexpr std::int64_t cols = 256;
  float x[cols], back[cols], ones[cols];
  double sum = 0;
  for (int i = 0; i < cols; ++i) x[i] = static_cast<float>(std::sin(i)), ones[i] = 1.0f, sum += x[i];
  std::byte row[row_bytes<q8_0>(cols)];
  if (quantize_row<q8_0>(x, nullptr, row, cols) != status::ok) return 1;
  dequantize_row<q8_0>(row, back, cols);
  for (int i = 0; i < cols; ++i)
    if (!(std::fabs(back[i] - x[i]) < 1e-2f)) return 2;
  float out = 0;
  const weight_view<q8_0> weights(row, 1, cols);
  const product_options options{.policy = activation::exact};
  if (mul_mat<simd::scalar>(weights, {ones, 1, cols}, {{&out, 1}, 1, 1}, options) != status::ok) return 3;
  if (!(std::fabs(out - sum) < 0.2)) return 4;
  return name_of(q8_0::gguf_id) == "q8_0" ? 0 : 5;
}
