#include <quantal/dequantize.hpp>
#include <quantal/runtime.hpp>

/// The largest difference between a row of weights and what q6_K keeps of it; negative on an error.
extern "C" float largest_difference() {
  constexpr int cols = 256;
  float x[cols], y[cols];
  for (int i = 0; i < cols; ++i) x[i] = static_cast<float>(i % 17 - 8) * 0.01f;
  std::byte row[quantal::row_bytes<quantal::q6_K>(cols)];
  using quantal::status;
  if (quantal::runtime::quantize_row(quantal::q6_K::gguf_id, x, nullptr, row, cols) != status::ok) return -1;
  quantal::runtime::dispatcher::best().find(quantal::q6_K::gguf_id)->dequantize_row(row, y, cols);
  float most = 0;
  for (int i = 0; i < cols; ++i) most = std::max(most, x[i] < y[i] ? y[i] - x[i] : x[i] - y[i]);
  return most;
}
