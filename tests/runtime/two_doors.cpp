// A program whose own unit was compiled for AVX-512 and names simd::avx2, linked before the library: on a
// machine without AVX-512 the library's AVX2 variant must still run. (Exits with the number of the check that
// failed.)
#include <cmath>
#include <vector>

#include "two_doors_user.hpp"

namespace quantal::test {
namespace {

int check() {
  constexpr std::int64_t rows = 64, cols = 512, n = 12;
  std::vector<float> w(rows * cols), x(n * cols), out(n * rows), again(n * rows);
  for (std::size_t i = 0; i < w.size(); ++i)
    w[i] = static_cast<float>(static_cast<int>(i * 7919 % 257) - 128) * 0.01f;
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>(static_cast<int>(i * 104729 % 61) - 30) * 0.1f;

  const auto avx2 = runtime::dispatcher::named("avx2");
  if (!avx2) return 1;
  const runtime::format_ops* const ops = avx2->find(q4_K::gguf_id);
  std::vector<std::byte> packed(rows * row_bytes<q4_K>(cols));
  for (std::int64_t r = 0; r < rows; ++r)
    if (avx2->find_quantizer(q4_K::gguf_id)(w.data() + r * cols, nullptr,
                                            packed.data() + r * row_bytes<q4_K>(cols), cols) != status::ok)
      return 2;

  serial_executor here;
  for (const activation policy : {activation::exact, activation::q8})
    for (const std::int64_t columns : {std::int64_t{1}, n}) {
      const mul_mat_args a{packed.data(), rows,       cols, row_bytes<q4_K>(cols), x.data(), columns,
                           cols,          out.data(), rows};
      std::vector<std::byte> workspace(ops->mul_mat_workspace(a, policy));
      if (ops->mul_mat(a, policy, here, workspace) != status::ok) return 3;
      std::vector<float> row(cols);
      for (std::int64_t r = 0; r < rows; ++r) {
        ops->dequantize_row(packed.data() + r * row_bytes<q4_K>(cols), row.data(), cols);
        for (std::int64_t c = 0; c < columns; ++c) {
          double sum = 0, size = 0;
          for (std::int64_t k = 0; k < cols; ++k)
            sum += double{row[k]} * x[c * cols + k], size += std::fabs(double{row[k]} * x[c * cols + k]);
          if (!(std::fabs(out[c * rows + r] - sum) <= 0.01 * size)) return 4;
        }
      }
      if (__builtin_cpu_supports("avx512vnni")) {
        mul_mat_args b = a;
        b.out = again.data();
        if (user_mul_mat(b, policy, here, workspace) != status::ok) return 5;
      }
    }
  return 0;
}

}  // namespace
}  // namespace quantal::test

int main() { return quantal::test::check(); }
