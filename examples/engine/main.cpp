// engine MODEL.gguf TENSOR [THREADS]: multiplies one weight matrix with a vector of ones, prints the mean of
// the result and the mean row sum of the decoded weights, which must agree.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <quantal/dequantize.hpp>
#include <quantal/gguf.hpp>

#include "kernels.hpp"

namespace {

int fail(const std::string& why) {
  std::fprintf(stderr, "engine: %s\n", why.c_str());
  return 1;
}

double mean_row_sum(const quantal::gguf::tensor_info& t, const std::byte* row, std::int64_t stride) {
  std::vector<float> w(static_cast<std::size_t>(t.cols()));
  double sum = 0;
  for (std::int64_t r = 0; r < t.rows(); ++r, row += stride) {
    if (quantal::dequantize_row(t.type, row, w.data(), t.cols()) != quantal::status::ok) return NAN;
    for (const float v : w) sum += v;
  }
  return sum / static_cast<double>(t.rows());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return fail("usage: engine MODEL.gguf TENSOR [THREADS]");
  const auto model = quantal::gguf::reader::open(argv[1]);
  if (!model) return fail(model.error().message);
  const auto* t = model->find(argv[2]);
  if (!t) return fail(std::string(argv[1]) + ": no tensor '" + argv[2] + "'");
  const auto bytes = model->data(*t);
  if (!bytes) return fail(bytes.error().message);

  const std::vector<float> ones(static_cast<std::size_t>(t->cols()), 1.0f);
  std::vector<float> out(static_cast<std::size_t>(t->rows()));
  const quantal::runtime::weight_view weights(t->type, *bytes, t->rows(), t->cols());
  pool threads(argc > 3 ? std::max(std::atoi(argv[3]), 1) : 2);
  if (const auto s = multiply(weights, {ones, 1, t->cols()}, {out, 1, t->rows()}, threads);
      s != quantal::status::ok)
    return fail(t->name + ": " + std::string(quantal::to_string(s)));

  double mean = 0;
  for (const float v : out) mean += v / static_cast<double>(t->rows());
  const double want = mean_row_sum(*t, bytes->data(), weights.stride);
  std::printf("%s, %s: mean output %.6f, mean row sum %.6f\n", t->name.c_str(),
              quantal::gguf::type_name(t->type).c_str(), mean, want);
  return std::abs(mean - want) < 1e-2 * (1 + std::abs(want)) ? 0 : fail("they differ");
}
