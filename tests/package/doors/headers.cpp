#include <quantal/quantize/quantize.hpp>

quantal::status quantize_with_headers(std::uint32_t format, const float* x, const float* importance,
                                      std::byte* out, std::int64_t cols) {
  return quantal::quantize_row(format, x, importance, out, cols);
}
