// Weights of several shapes, and the error of a round trip.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "quantal/dequantize.hpp"
#include "quantal/gguf/reader.hpp"
#include "quantal/quantize/error.hpp"
#include "quantal/runtime/ops.hpp"
#include "support/paths.hpp"
#include "support/random_weights.hpp"

namespace quantal::test {

/// Rows of `cols` weights through a format; errors under `metric`.
inline quantization_error error_of(std::uint32_t id, const std::vector<float>& x, std::int64_t cols,
                                   const float* given, const float* metric) {
  const auto& f = *find_format(id);
  std::vector<std::byte> row(static_cast<std::size_t>(f.row_bytes(cols)));
  std::vector<float> y(static_cast<std::size_t>(cols));
  quantization_error e;
  for (std::size_t at = 0; at < x.size(); at += static_cast<std::size_t>(cols)) {
    EXPECT_EQ(runtime::quantize_row(id, &x[at], given, row.data(), cols), status::ok);
    EXPECT_EQ(dequantize_row(id, row.data(), y.data(), cols), status::ok);
    e.add(&x[at], y.data(), metric, cols);
  }
  return e;
}

struct named_input {
  std::string name;
  std::vector<float> x;
};

/// `count` weights from the matrices of the shipped model whose rows hold whole blocks, some of each.
inline std::vector<float> model_weights(std::size_t count) {
  std::vector<float> x;
  const auto model = gguf::reader::open(test::model_file("/tiny-mla-moe-bf16.gguf"));
  EXPECT_TRUE(model);
  if (!model) return std::vector<float>(count, 1.0f);
  for (int round = 0; x.size() < count; ++round)
    for (const auto& t : model->tensors()) {
      if (t.type != bf16::gguf_id || t.cols() % 256 != 0 || x.size() >= count) continue;
      const auto bytes = model->data(t);
      EXPECT_TRUE(bytes);
      if (!bytes) return std::vector<float>(count, 1.0f);
      std::vector<float> row(256);
      dequantize_row<bf16>(bytes->data() + 512 * round, row.data(), 256);
      x.insert(x.end(), row.begin(), row.end());
    }
  x.resize(count);
  return x;
}

/// Gaussian, Laplace, Student-t, uniform, outlier columns, weights of a real model.
inline std::vector<named_input> inputs(std::size_t count) {
  rng g(9);
  const auto draw = [&](auto d) {
    std::vector<float> x(count);
    for (auto& v : x) v = static_cast<float>(d(g));
    return x;
  };
  auto outliers = draw(std::normal_distribution<double>(0, 1));
  for (std::size_t i = 0; i < outliers.size(); i += 64) outliers[i] *= 20;
  auto laplace = draw(std::exponential_distribution<double>(1));
  for (auto& v : laplace) v = g() % 2 ? v : -v;
  return {{"gaussian", draw(std::normal_distribution<double>(0, 1))},
          {"laplace", laplace},
          {"student", draw(std::student_t_distribution<double>(3))},
          {"uniform", draw(std::uniform_real_distribution<double>(-1, 1))},
          {"outliers", outliers},
          {"model", model_weights(count)}};
}

/// Importances as activations have them: positive, over some decades.
inline std::vector<float> importances(std::size_t count) {
  rng g(10);
  std::vector<float> w(count);
  for (auto& v : w) v = std::exp(std::normal_distribution<float>(0, 1)(g));
  return w;
}

}  // namespace quantal::test
