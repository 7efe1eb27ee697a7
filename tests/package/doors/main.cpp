// The bytes of every format through the headers and through the library: they must be the same, whatever the
// compiler makes of a product and a sum.
#include <cstdio>
#include <cstring>
#include <quantal/format.hpp>
#include <quantal/formats.hpp>
#include <quantal/runtime/ops.hpp>
#include <vector>

quantal::status quantize_with_headers(std::uint32_t format, const float* x, const float* importance,
                                      std::byte* out, std::int64_t cols);

namespace {

constexpr std::int64_t cols = 2048;
constexpr int rows = 32;

/// Four numbers of 16 bits added up: nearly a normal distribution, and whole numbers up to the last product.
float next(std::uint64_t& state) {
  std::int32_t sum = -131072;
  for (int i = 0; i < 4; ++i) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    sum += static_cast<std::int32_t>(state >> 48);
  }
  return static_cast<float>(sum) * 0x1p-20f;
}

/// Rows of three kinds: dense, of few levels with many zeros, and tiny.
void make_row(int kind, std::uint64_t& state, float* x) {
  for (std::int64_t c = 0; c < cols; ++c) {
    const float v = next(state);
    x[c] = kind == 1 ? static_cast<float>(static_cast<int>(v * 100.0f)) * 0.03f : kind == 2 ? v * 1e-6f : v;
  }
}

}  // namespace

int main() {
  std::uint64_t state = 1;
  std::vector<float> x(cols), importance(cols);
  for (float& v : importance) {
    const float a = next(state);
    v = a * a * 100.0f;
  }
  int compared = 0, failed = 0;
  for (const auto& format : quantal::format_table) {
    const auto runtime = quantal::runtime::dispatcher::best().find_quantizer(format.gguf_id);
    if (!runtime) continue;
    ++compared;
    std::vector<std::byte> one(static_cast<std::size_t>(format.row_bytes(cols))), other(one.size());
    std::size_t different = 0;
    for (int r = 0; r < rows; ++r) {
      make_row(r % 3, state, x.data());
      for (const float* w :
           {static_cast<const float*>(nullptr), static_cast<const float*>(importance.data())}) {
        if (runtime(x.data(), w, one.data(), cols) != quantal::status::ok ||
            quantize_with_headers(format.gguf_id, x.data(), w, other.data(), cols) != quantal::status::ok)
          return std::printf("%.*s: an error\n", static_cast<int>(format.name.size()), format.name.data()), 1;
        for (std::size_t i = 0; i < one.size(); ++i) different += one[i] != other[i];
      }
    }
    if (different)
      std::printf("%.*s: %zu different bytes of %zu\n", static_cast<int>(format.name.size()),
                  format.name.data(), different, 2 * rows * one.size()),
          ++failed;
  }
  std::printf("%d formats, %d differ\n", compared, failed);
  return failed != 0 || compared < 40;
}
