// A row to q8_0 and back.
#include <quantal/dequantize.hpp>
#include <quantal/quantize.hpp>

int main() {
  float x[32], back[32];
  for (int i = 0; i < 32; ++i) x[i] = static_cast<float>(i);
  std::byte row[quantal::row_bytes<quantal::q8_0>(32)];
  if (quantal::quantize_row<quantal::q8_0>(x, nullptr, row, 32) != quantal::status::ok) return 1;
  quantal::dequantize_row<quantal::q8_0>(row, back, 32);
  return back[31] > 30.8f && back[31] < 31.2f ? 0 : 2;
}
