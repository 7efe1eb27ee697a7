// The device's products against float64 on the dequantized weights: fresh random data, tails, poisoned
// outputs.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <thread>
#include <vector>

#include "cuda/device_formats.hpp"
#include "support/random_weights.hpp"

namespace quantal::cuda {
namespace {

/// Memory of the device, filled from the host.
template <class T>
class device_buffer {
 public:
  explicit device_buffer(std::size_t count) : count_(count) {
    EXPECT_EQ(cudaMalloc(&data_, std::max<std::size_t>(1, count * sizeof(T))), cudaSuccess);
  }
  explicit device_buffer(const std::vector<T>& host) : device_buffer(host.size()) {
    EXPECT_EQ(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice), cudaSuccess);
  }
  device_buffer(const device_buffer&) = delete;
  device_buffer& operator=(const device_buffer&) = delete;
  ~device_buffer() { cudaFree(data_); }

  T* get() const { return static_cast<T*>(data_); }
  std::vector<T> host() const {
    std::vector<T> v(count_);
    EXPECT_EQ(cudaMemcpy(v.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost), cudaSuccess);
    return v;
  }

 private:
  std::size_t count_;
  void* data_ = nullptr;
};

constexpr float poison = -12345.5f;

/// Runs fn(i) for i < n on all cores.
template <class Fn>
void parallel(std::int64_t n, Fn&& fn) {
  std::vector<std::thread> threads;
  const std::int64_t count = std::max(1u, std::thread::hardware_concurrency());
  for (std::int64_t k = 0; k < count; ++k)
    threads.emplace_back([&, k] {
      for (std::int64_t i = k; i < n; i += count) fn(i);
    });
  for (auto& t : threads) t.join();
}

/// Rows of quantized Gaussian weights and their values.
struct matrix {
  std::vector<std::byte> bytes;
  std::int64_t rows, cols, stride;
  std::vector<float> values;

  matrix(const device_format& f, std::int64_t rows_, std::int64_t cols_, test::rng& g,
         std::int64_t padding = 0)
      : rows(rows_), cols(cols_), stride(f.info.row_bytes(cols_) + padding) {
    bytes.resize(static_cast<std::size_t>(rows * stride));
    values.resize(static_cast<std::size_t>(rows * cols));
    const auto x = test::gaussian(g, static_cast<std::size_t>(rows * cols));
    parallel(rows, [&](std::int64_t r) {
      EXPECT_EQ(f.quantize(f, x.data() + r * cols, bytes.data() + r * stride, cols), status::ok);
      f.dequantize(f, bytes.data() + r * stride, values.data() + r * cols, cols);
    });
  }
};

double dot(const float* a, const float* b, std::int64_t n) {
  double s = 0;
  for (std::int64_t i = 0; i < n; ++i) s += static_cast<double>(a[i]) * b[i];
  return s;
}

/// Results beside what they should be, and how large they are expected to be: |w| |x| / sqrt(cols).
struct comparison {
  std::vector<double> want, expected;
  std::vector<float> got;
  explicit comparison(std::int64_t n) : want(n), expected(n), got(n) {}

  void set(std::int64_t i, const float* w, const float* x, std::int64_t cols, float result) {
    want[i] = dot(w, x, cols);
    expected[i] = std::sqrt(dot(w, w, cols) * dot(x, x, cols) / static_cast<double>(cols));
    got[i] = result;
  }
  /// Norm of the difference over the norm that is expected, which few results do not distort.
  double relative_error() const {
    double error = 0, norm = 0;
    for (std::size_t i = 0; i < want.size(); ++i) {
      const double d = std::isfinite(got[i]) ? got[i] - want[i] : std::numeric_limits<double>::infinity();
      error += d * d, norm += expected[i] * expected[i];
    }
    return std::sqrt(error / norm);
  }
};

/// 5e-3 (bf16), 1.2e-2 (int8 activations), 5e-2 (e4m3); few results scatter more.
double tolerance(precision p, std::size_t results) {
  return (p == precision::bf16 ? 5e-3
          : p == precision::q8 ? 1.2e-2
                               : 5e-2) *
         (results < 8    ? 4
          : results < 64 ? 2
                         : 1);
}
const char* name_of(precision p) {
  return p == precision::bf16 ? " bf16" : p == precision::q8 ? " q8" : " fp8";
}

class CudaProduct : public testing::TestWithParam<device_format> {
 protected:
  void SetUp() override {
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) GTEST_SKIP() << "no CUDA device";
    device = device_info::of(0);
    if (device.major < 8) GTEST_SKIP() << "needs compute capability 8.0";
  }

  const operations& ops() const { return *GetParam().ops; }
  const format_info& format() const { return GetParam().info; }

  /// x_offset: floats in front of the vectors, for addresses that are not aligned.
  void check_mul_mat(std::int64_t rows, std::int64_t cols, std::int64_t n, precision policy,
                     std::int64_t padding = 0, std::int64_t x_offset = 0) {
    SCOPED_TRACE(std::to_string(rows) + " x " + std::to_string(cols) + ", n " + std::to_string(n) +
                 name_of(policy));
    const matrix w(GetParam(), rows, cols, rng, padding);
    const std::int64_t x_stride = cols + 4, out_stride = rows + 3;
    const auto all_x = test::gaussian(rng, static_cast<std::size_t>(x_offset + n * x_stride));
    const float* x = all_x.data() + x_offset;
    const device_buffer<std::byte> weights(w.bytes);
    const device_buffer<float> activations(all_x);
    const device_buffer<float> out(std::vector<float>(static_cast<std::size_t>(n * out_stride), poison));
    const mul_mat_args a{weights.get(), rows,      cols,      w.stride, activations.get() + x_offset, n,
                         x_stride,      out.get(), out_stride};
    const std::size_t bytes = ops().mul_mat_workspace(a, policy, device);
    const device_buffer<std::byte> workspace(std::vector<std::byte>(bytes, std::byte{0xff}));
    ASSERT_EQ(ops().mul_mat(a, policy, device, workspace.get(), bytes, nullptr), status::ok);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const auto first = out.host();

    comparison c(n * rows);
    parallel(rows, [&](std::int64_t r) {
      for (std::int64_t t = 0; t < n; ++t)
        c.set(t * rows + r, w.values.data() + r * cols, x + t * x_stride, cols, first[t * out_stride + r]);
    });
    EXPECT_LE(c.relative_error(), tolerance(policy, c.want.size()));
    for (std::int64_t t = 0; t < n; ++t)
      for (std::int64_t r = rows; r < out_stride; ++r)
        ASSERT_EQ(first[t * out_stride + r], poison) << "written behind";

    ASSERT_EQ(ops().mul_mat(a, policy, device, workspace.get(), bytes, nullptr), status::ok);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const auto second = out.host();
    EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size() * 4), 0) << "not deterministic";
  }

  void check_mul_mat_id(std::int64_t experts, std::int64_t tokens, std::int64_t used, bool own_vectors,
                        precision policy, int skew) {
    SCOPED_TRACE(std::to_string(experts) + " experts, " + std::to_string(tokens) + " tokens, skew " +
                 std::to_string(skew));
    const std::int64_t rows = 70, cols = std::max(512, format().layout.elements);
    std::vector<matrix> w;
    std::vector<std::byte> all;
    for (std::int64_t e = 0; e < experts; ++e) {
      w.emplace_back(GetParam(), rows, cols, rng);
      all.insert(all.end(), w.back().bytes.begin(), w.back().bytes.end());
    }
    // Expert 1 stays empty; with skew all but a few pairs go to expert 0.
    std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens * used));
    for (auto& id : ids) {
      id = skew && rng() % 8 ? 0 : static_cast<std::int32_t>(rng() % experts);
      if (id == 1) id = 2 % static_cast<std::int32_t>(experts);
    }
    ids[0] = static_cast<std::int32_t>(experts);  // no such expert
    const auto x = test::gaussian(rng, static_cast<std::size_t>(tokens * (own_vectors ? used : 1) * cols));
    const device_buffer<std::byte> weights(all);
    const device_buffer<float> activations(x);
    const device_buffer<std::int32_t> device_ids(ids);
    const device_buffer<float> out(
        std::vector<float>(static_cast<std::size_t>(tokens * used * rows), poison));
    const mul_mat_id_args a{weights.get(),
                            experts,
                            rows,
                            cols,
                            w[0].stride,
                            w[0].stride * rows,
                            activations.get(),
                            tokens,
                            own_vectors ? used * cols : cols,
                            own_vectors ? cols : 0,
                            device_ids.get(),
                            used,
                            used,
                            out.get(),
                            used * rows,
                            rows};
    const std::size_t bytes = ops().mul_mat_id_workspace(a, policy, device);
    const device_buffer<std::byte> workspace(std::vector<std::byte>(bytes, std::byte{0xff}));
    ASSERT_EQ(ops().mul_mat_id(a, policy, device, workspace.get(), bytes, nullptr), status::ok);
    ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
    const auto got = out.host();
    for (std::int64_t r = 0; r < rows; ++r) ASSERT_TRUE(std::isnan(got[r])) << "an id without expert";
    comparison c((tokens * used - 1) * rows);
    parallel(tokens * used - 1, [&](std::int64_t i) {
      const std::int64_t pair = i + 1;
      const float* v = x.data() + (own_vectors ? pair : pair / used) * cols;
      for (std::int64_t r = 0; r < rows; ++r)
        c.set(i * rows + r, w[ids[pair]].values.data() + r * cols, v, cols, got[pair * rows + r]);
    });
    EXPECT_LE(c.relative_error(), tolerance(policy, c.want.size()));
  }

  device_info device;
  test::rng rng{std::random_device{}()};
};

TEST_P(CudaProduct, DequantizesBitForBit) {
  const std::int64_t rows = 7, cols = 2 * std::max(256, format().layout.elements);
  const matrix w(GetParam(), rows, cols, rng);
  const device_buffer<std::byte> weights(w.bytes);
  const device_buffer<float> out(static_cast<std::size_t>(rows * cols));
  ASSERT_EQ(ops().dequantize(weights.get(), rows, cols, w.stride, out.get(), cols, nullptr), status::ok);
  const auto got = out.host();
  EXPECT_EQ(std::memcmp(got.data(), w.values.data(), got.size() * 4), 0);
}

// A few products for tools that slow everything down (compute-sanitizer).
TEST_P(CudaProduct, SmallProductsAgreeWithFloat64) {
  const std::int64_t cols = 512 + std::max(32, format().layout.elements);
  for (const auto policy : {precision::bf16, precision::q8}) {
    for (const std::int64_t n : {1, 5, 13, 33, 65, 130}) check_mul_mat(70, cols, n, policy);
    for (const std::int64_t n : {1, 2}) check_mul_mat(7, 768, n, policy, 0, 1);
    check_mul_mat_id(5, 9, 2, false, policy, 1);
  }
}

TEST_P(CudaProduct, AgreesWithFloat64) {
  const int block = format().layout.elements;
  for (const auto policy : {precision::bf16, precision::q8}) {
    for (const std::int64_t n : {1, 2, 3, 5, 8, 9, 17, 33, 64, 127, 512}) check_mul_mat(257, 1024, n, policy);
    for (const std::int64_t n : {1, 3, 17, 127}) {
      check_mul_mat(5, block, n, policy);
      check_mul_mat(70, 512 + std::max(64, block), n, policy);
      check_mul_mat(33, std::max(256, block), n, policy, 16);
      check_mul_mat(1, 768, n, policy);
    }
    check_mul_mat(1030, 4096, 20, policy);
  }
}

// One to four vectors: columns that leave lanes idle or fill every warp, rows that divide in no way, few and
// many of them, vectors at any address.
TEST_P(CudaProduct, FewVectorsAgreeWithFloat64) {
  const std::pair<std::int64_t, std::int64_t> shapes[] = {{1, 256},    {3001, 256}, {577, 512},  {301, 1536},
                                                          {265, 2048}, {67, 2816},  {576, 1024}, {129, 7168},
                                                          {31, 18432}, {5, 20480},  {2049, 768}, {9, 26624}};
  for (const auto& [rows, cols] : shapes)
    for (const std::int64_t n : {1, 2, 3, 4})
      for (const std::int64_t x_offset : {0, 1}) check_mul_mat(rows, cols, n, precision::q8, 0, x_offset);
  check_mul_mat(33, 1024, 1, precision::q8, 32);
}

// A value that is not finite reaches every result of its vector and none of the other's.
TEST_P(CudaProduct, ValuesThatAreNotFiniteReachTheirResults) {
  const std::int64_t rows = 40, cols = 1024;
  const matrix w(GetParam(), rows, cols, rng);
  const device_buffer<std::byte> weights(w.bytes);
  for (const float bad : {std::numeric_limits<float>::infinity(), std::numeric_limits<float>::quiet_NaN()})
    for (const std::int64_t n : {1, 2, 3}) {
      auto x = test::gaussian(rng, static_cast<std::size_t>(n * cols));
      x[300] = bad;
      const device_buffer<float> activations(x);
      const device_buffer<float> out(std::vector<float>(static_cast<std::size_t>(n * rows), poison));
      const mul_mat_args a{weights.get(), rows, cols, w.stride, activations.get(), n, cols, out.get(), rows};
      const std::size_t bytes = ops().mul_mat_workspace(a, precision::q8, device);
      const device_buffer<std::byte> workspace(bytes);
      ASSERT_EQ(ops().mul_mat(a, precision::q8, device, workspace.get(), bytes, nullptr), status::ok);
      const auto got = out.host();
      for (std::int64_t i = 0; i < n * rows; ++i)
        ASSERT_EQ(std::isfinite(got[i]), i >= rows) << bad << ", vector " << i / rows << ", row " << i % rows;
    }
}

// So many vectors that weights are decoded to the workspace first.
TEST_P(CudaProduct, ManyVectorsAgreeWithFloat64) {
  const std::int64_t cols = 512 + std::max(64, format().layout.elements);
  check_mul_mat(300, cols, 2053, precision::bf16);
  check_mul_mat(300, cols, 1027, precision::fp8);
  check_mul_mat(900, 1024, 1300, precision::fp8);
}

// Two blocks share what they decode; plans for few multiprocessors give each cluster several tiles, whole and in
// parts.
TEST_P(CudaProduct, SharedDecodingAgreesWithFloat64) {
  const int block = format().layout.elements;
  for (const int multiprocessors : {2, 4}) {
    device.multiprocessors = multiprocessors;
    for (const std::int64_t n : {200, 300, 520}) check_mul_mat(300, 1024, n, precision::bf16);
    check_mul_mat(257, 512 + std::max(64, block), 300, precision::bf16);
    check_mul_mat(140, std::max(768, block), 513, precision::bf16, 16);
  }
}

// The kernels for compute capability 8.x run on later devices, too.
TEST_P(CudaProduct, MmaProductsAgreeWithFloat64) {
  device.major = 8;
  const int block = format().layout.elements;
  for (const std::int64_t n : {1, 2, 5, 17, 64, 127}) {
    check_mul_mat(5, block, n, precision::bf16);
    check_mul_mat(70, 512 + std::max(64, block), n, precision::bf16);
    check_mul_mat(257, 1024, n, precision::bf16, 16);
  }
  for (const std::int64_t n : {2, 13}) check_mul_mat(70, 512 + std::max(64, block), n, precision::q8);
  for (const auto policy : {precision::bf16, precision::q8})
    for (const std::int64_t tokens : {1, 5, 300}) check_mul_mat_id(8, tokens, 3, false, policy, 1);
}

TEST_P(CudaProduct, RoutedProductsAgreeWithFloat64) {
  for (const auto policy : {precision::bf16, precision::q8})
    for (const bool own : {false, true})
      for (const int skew : {0, 1})
        for (const std::int64_t tokens : {1, 2, 5, 64, 300})
          check_mul_mat_id(8, tokens, 3, own, policy, skew);
  check_mul_mat_id(8, 1500, 2, false, precision::bf16, 0);
}

// Both halves of a mixture of experts in one call: few tokens and many, gate and up apart and merged, with biases
// and a limit, an id without expert.
TEST_P(CudaProduct, MixturesOfExpertsAgreeWithFloat64) {
  const std::int64_t experts = 5, used = 3, unit = std::max(256, format().layout.elements);
  const std::int64_t width = 3 * unit, inner = 2 * unit;
  std::vector<matrix> gate, up, down;
  std::vector<std::byte> merged, ups, downs;
  for (std::int64_t e = 0; e < experts; ++e) {
    gate.emplace_back(GetParam(), inner, width, rng);
    up.emplace_back(GetParam(), inner, width, rng);
    down.emplace_back(GetParam(), width, inner, rng);
    merged.insert(merged.end(), gate[e].bytes.begin(), gate[e].bytes.end());
    merged.insert(merged.end(), up[e].bytes.begin(), up[e].bytes.end());
    ups.insert(ups.end(), up[e].bytes.begin(), up[e].bytes.end());
    ups.resize(ups.size() + up[e].bytes.size());  // the same stride as the merged matrices
    downs.insert(downs.end(), down[e].bytes.begin(), down[e].bytes.end());
  }
  const device_buffer<std::byte> device_merged(merged), device_ups(ups), device_downs(downs);
  const auto values = [&](std::int64_t n) { return test::gaussian(rng, static_cast<std::size_t>(n)); };
  const auto gate_bias = values(experts * inner), up_bias = values(experts * inner),
             down_bias = values(experts * width);
  const device_buffer<float> device_gate_bias(gate_bias), device_up_bias(up_bias),
      device_down_bias(down_bias);
  for (const auto policy : {precision::q8, precision::bf16})
    for (const std::int64_t tokens : {1, 2, 5, 40})
      for (const bool apart : {false, true}) {
        SCOPED_TRACE(std::to_string(tokens) + " tokens" + name_of(policy) + (apart ? ", apart" : ""));
        const std::int64_t x_stride = width + 3, out_stride = width + 5;
        auto x = values(tokens * x_stride);
        for (float& v : x) v *= 0.1f;
        const auto shares = values(tokens * (used + 1));
        std::vector<std::int32_t> ids(static_cast<std::size_t>(tokens * used));
        for (auto& id : ids) id = static_cast<std::int32_t>(rng() % experts);
        const bool broken = tokens == 5;  // the last token lacks an expert
        if (broken) ids.back() = static_cast<std::int32_t>(experts);
        const device_buffer<float> device_x(x), device_shares(shares);
        const device_buffer<float> out(
            std::vector<float>(static_cast<std::size_t>(tokens * out_stride), poison));
        const device_buffer<std::int32_t> device_ids(ids);
        moe_ffn_args a{};
        a.gate = device_merged.get(), a.up = apart ? device_ups.get() : nullptr, a.down = device_downs.get();
        a.experts = experts, a.width = width, a.inner = inner;
        a.gate_row_stride = gate[0].stride, a.gate_expert_stride = 2 * inner * gate[0].stride;
        a.down_row_stride = down[0].stride, a.down_expert_stride = width * down[0].stride;
        if (apart)
          a.gate_bias = device_gate_bias.get(), a.up_bias = device_up_bias.get(),
          a.down_bias = device_down_bias.get(), a.unit = {1.5f, 1.702f, 1};
        a.activations = device_x.get(), a.tokens = tokens, a.activation_stride = x_stride;
        a.ids = device_ids.get(), a.used = used, a.ids_stride = used;
        a.shares = device_shares.get(), a.shares_stride = used + 1;
        a.out = out.get(), a.out_stride = out_stride;
        const auto &hidden = ops().moe_hidden, &output = ops().moe_output;
        const std::size_t bytes = moe_ffn_workspace(hidden, output, a, policy, device);
        const device_buffer<std::byte> workspace(std::vector<std::byte>(bytes, std::byte{0xff}));
        EXPECT_EQ(moe_ffn(hidden, output, a, policy, device, workspace.get(), bytes - 1, nullptr),
                  status::small_workspace);
        ASSERT_EQ(moe_ffn(hidden, output, a, policy, device, workspace.get(), bytes, nullptr), status::ok);
        ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
        const auto got = out.host();
        std::vector<double> errors(static_cast<std::size_t>(tokens)), norms(errors);
        parallel(tokens, [&](std::int64_t t) {
          if (broken && t == tokens - 1) return;
          std::vector<double> want(static_cast<std::size_t>(width));
          for (std::int64_t j = 0; j < used; ++j) {
            const std::int32_t e = ids[t * used + j];
            std::vector<float> h(static_cast<std::size_t>(inner));
            for (std::int64_t i = 0; i < inner; ++i) {
              double g = dot(gate[e].values.data() + i * width, x.data() + t * x_stride, width),
                     u = dot(up[e].values.data() + i * width, x.data() + t * x_stride, width);
              if (apart) g += gate_bias[e * inner + i], u += up_bias[e * inner + i];
              g = std::min<double>(g, a.unit.limit);
              u = std::clamp<double>(u, -a.unit.limit, a.unit.limit);
              h[i] = static_cast<float>(g / (1 + std::exp(-a.unit.alpha * g)) * (u + a.unit.shift));
            }
            for (std::int64_t r = 0; r < width; ++r)
              want[r] +=
                  shares[t * (used + 1) + j] * (dot(down[e].values.data() + r * inner, h.data(), inner) +
                                                (apart ? down_bias[e * width + r] : 0.0f));
          }
          for (std::int64_t r = 0; r < width; ++r) {
            const float o = got[t * out_stride + r];
            const double d = std::isfinite(o) ? o - want[r] : std::numeric_limits<double>::infinity();
            errors[t] += d * d, norms[t] += want[r] * want[r];
          }
        });
        double error = 0, norm = 0;
        for (std::int64_t t = 0; t < tokens; ++t) error += errors[t], norm += norms[t];
        EXPECT_LE(std::sqrt(error / norm), policy == precision::q8 ? 3e-2 : 1.2e-2);
        for (std::int64_t r = 0; broken && r < width; ++r)
          ASSERT_TRUE(std::isnan(got[(tokens - 1) * out_stride + r])) << "an id without expert";
        ASSERT_EQ(got[width], poison) << "behind the first result";
      }
}

TEST_P(CudaProduct, CanBeCaptured) {
  const matrix w(GetParam(), 64, 1024, rng);
  const auto x = test::gaussian(rng, 1024 * 40);
  const device_buffer<std::byte> weights(w.bytes);
  const device_buffer<float> activations(x), out(64 * 40);
  const mul_mat_args a{weights.get(), 64, 1024, w.stride, activations.get(), 40, 1024, out.get(), 64};
  const std::size_t bytes = ops().mul_mat_workspace(a, precision::bf16, device);
  const device_buffer<std::byte> workspace(bytes);
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t run;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), cudaSuccess);
  ASSERT_EQ(ops().mul_mat(a, precision::bf16, device, workspace.get(), bytes, stream), status::ok);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&run, graph, 0), cudaSuccess);
  ASSERT_EQ(cudaGraphLaunch(run, stream), cudaSuccess);
  ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  const auto got = out.host();
  comparison c(64 * 40);
  for (int t = 0; t < 40; ++t)
    for (int r = 0; r < 64; ++r)
      c.set(t * 64 + r, w.values.data() + r * 1024, x.data() + t * 1024, 1024, got[t * 64 + r]);
  EXPECT_LE(c.relative_error(), 5e-3);
  cudaGraphExecDestroy(run);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

TEST_P(CudaProduct, RefusesBadArguments) {
  const std::int64_t cols = 4 * std::max(256, format().layout.elements);
  const device_buffer<std::byte> weights(static_cast<std::size_t>(8 * format().row_bytes(cols)));
  const device_buffer<float> x(static_cast<std::size_t>(4 * cols)), out(64);
  const mul_mat_args good{weights.get(), 8, cols, format().row_bytes(cols), x.get(), 4, cols, out.get(), 8};
  const std::size_t bytes = ops().mul_mat_workspace(good, precision::q8, device);
  const device_buffer<std::byte> workspace(bytes);
  const auto run = [&](const mul_mat_args& a, std::size_t size) {
    return ops().mul_mat(a, precision::q8, device, workspace.get(), size, nullptr);
  };
  EXPECT_EQ(run(good, bytes), status::ok);
  EXPECT_EQ(run(good, bytes - 1), status::small_workspace);
  auto a = good;
  a.cols += 1;
  EXPECT_NE(run(a, bytes), status::ok);
  a = good, a.rows = -1;
  EXPECT_EQ(run(a, bytes), status::bad_shape);
  a = good, a.weight_row_stride -= 16;
  EXPECT_EQ(run(a, bytes), status::bad_stride);
  a = good, a.out_stride = 7;
  EXPECT_EQ(run(a, bytes), status::bad_stride);
  a = good, a.weights += 1;
  EXPECT_EQ(run(a, bytes), status::bad_alignment);
  a = good, a.out = nullptr;
  EXPECT_EQ(run(a, bytes), status::null_pointer);
  a = good, a.n = 0;
  EXPECT_EQ(run(a, bytes), status::ok);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
}

INSTANTIATE_TEST_SUITE_P(Formats, CudaProduct, testing::ValuesIn(device_formats()),
                         [](const auto& info) { return std::string(info.param.info.name); });

TEST(CudaOperations, NameWhatIsMissing) {
  EXPECT_EQ(find_operations(999999), nullptr);
  const std::string text = missing_format("q3_Z");
  EXPECT_EQ(text.find("format q3_Z is not in this build: QUANTAL_CUDA_FORMATS="), 0u) << text;
  for (const operations* o : all_operations()) {
    EXPECT_EQ(find_operations(o->gguf_id), o);
    EXPECT_NE((text + ';').find(std::string(o->name) + ';'), std::string::npos) << text;
  }
}

}  // namespace
}  // namespace quantal::cuda
