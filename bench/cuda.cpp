// CUDA products: cuda/mul_mat/FORMAT/PRECISION/m:ROWS/n:COLUMNS/k:LENGTH, cuda/layer/... (other shapes) and cuda/mul_mat_id/FORMAT/PRECISION/....,
// cuda/moe_ffn/... beside cuda/moe_ffn_separate/....
//
// Manual time: the median of replays of a graph of products over rotating weight matrices (more than 300 MB
// for up to 128 columns), preparation of the activations included. Ceilings of the same run: a copy kernel
// for the share of the bandwidth, cuBLAS bf16 (cuda/cublas/...) to compare with.
#include <benchmark/benchmark.h>
#include <cublas_v2.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "cuda/device_formats.hpp"

namespace quantal::bench {

void copy(const void* from, void* to, std::size_t bytes, cudaStream_t stream);  // copy.cu

namespace {

void require(cudaError_t e, const char* what) {
  if (e == cudaSuccess) return;
  std::fprintf(stderr, "quantal_cuda_bench: %s: %s\n", what, cudaGetErrorString(e));
  std::exit(1);
}

/// Device memory, not initialised.
struct device_memory {
  void* data = nullptr;
  explicit device_memory(std::size_t bytes) { require(cudaMalloc(&data, bytes), "cudaMalloc"); }
  device_memory(const device_memory&) = delete;
  device_memory& operator=(const device_memory&) = delete;
  ~device_memory() { cudaFree(data); }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

template <class T>
void upload(void* to, const std::vector<T>& v) {
  require(cudaMemcpy(to, v.data(), v.size() * sizeof(T), cudaMemcpyHostToDevice), "cudaMemcpy");
}

std::vector<float> gaussian(std::size_t n) {
  std::mt19937_64 g(n);
  std::normal_distribution<float> d;
  std::vector<float> v(n);
  for (float& x : v) x = d(g);
  return v;
}

/// `copies` matrices of `rows` quantized rows; 32 different rows repeat.
void fill_weights(const cuda::device_format& f, std::byte* to, std::int64_t rows, std::int64_t cols) {
  const std::int64_t row = f.info.row_bytes(cols), distinct = std::min<std::int64_t>(32, rows);
  std::vector<std::byte> bytes(static_cast<std::size_t>(row * rows));
  std::vector<std::jthread> threads;  // some quantizers are slow
  for (std::int64_t r = 0; r < distinct; ++r)
    threads.emplace_back([&, r] {
      const auto values = gaussian(static_cast<std::size_t>(cols + r));
      if (f.quantize(f, values.data(), bytes.data() + r * row, cols) != status::ok) std::abort();
    });
  threads.clear();
  for (std::int64_t r = distinct; r < rows; ++r)
    std::copy_n(bytes.data() + r % distinct * row, row, bytes.data() + r * row);
  upload(to, bytes);
}

std::vector<std::uint16_t> to_bf16(const std::vector<float>& v) {
  std::vector<std::uint16_t> out(v.size());
  std::transform(v.begin(), v.end(), out.begin(), [](float x) {
    return static_cast<std::uint16_t>((std::bit_cast<std::uint32_t>(x) + 0x8000u) >> 16);
  });
  return out;
}
/// The rows of fill_weights() before they are quantized.
std::vector<std::uint16_t> weights_as_bf16(std::int64_t rows, std::int64_t cols) {
  std::vector<std::uint16_t> all;
  std::vector<std::vector<std::uint16_t>> distinct;
  for (std::int64_t r = 0; r < std::min<std::int64_t>(32, rows); ++r)
    distinct.push_back(to_bf16(gaussian(static_cast<std::size_t>(cols + r))));
  for (std::int64_t r = 0; r < rows; ++r)
    all.insert(all.end(), distinct[r % distinct.size()].begin(),
               distinct[r % distinct.size()].begin() + cols);
  return all;
}

/// Median seconds of one call of `run(stream, i)`, i counting through the rotation, in replays of a graph.
double seconds_of(int rotation, const std::function<void(cudaStream_t, int)>& run) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  cudaEvent_t begin, end;
  require(cudaStreamCreate(&stream), "cudaStreamCreate");
  int calls = rotation;
  while (calls < 20) calls += rotation;
  run(stream, 0);  // what is set up once
  require(cudaStreamSynchronize(stream), "a product");
  require(cudaStreamBeginCapture(stream, cudaStreamCaptureModeGlobal), "capture");
  for (int i = 0; i < calls; ++i) run(stream, i % rotation);
  require(cudaStreamEndCapture(stream, &graph), "capture");
  require(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  cudaEventCreate(&begin);
  cudaEventCreate(&end);
  std::vector<double> times;
  for (int i = 0; i < 12; ++i) {
    cudaEventRecord(begin, stream);
    require(cudaGraphLaunch(replay, stream), "cudaGraphLaunch");
    cudaEventRecord(end, stream);
    require(cudaEventSynchronize(end), "a replay");
    float ms = 0;
    cudaEventElapsedTime(&ms, begin, end);
    if (i) times.push_back(ms * 1e-3 / calls);
  }
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
  std::nth_element(times.begin(), times.begin() + 5, times.end());
  return times[5];
}

/// Bytes per second of a device copy, read and written.
double copy_bandwidth() {
  static const double best = [] {
    const std::size_t bytes = std::size_t{1} << 30;
    device_memory a(bytes), b(bytes);
    cudaMemset(a.data, 1, bytes);
    const double t = seconds_of(1, [&](cudaStream_t s, int) { copy(a.data, b.data, bytes, s); });
    return 2.0 * static_cast<double>(bytes) / t;
  }();
  return best;
}

void report(benchmark::State& state, double seconds, double bytes, double ops) {
  for (auto _ : state) state.SetIterationTime(seconds);
  state.counters["bytes/s"] = bytes / seconds;
  state.counters["op/s"] = ops / seconds;
  state.counters["copy share"] = bytes / seconds / copy_bandwidth();
}

int rotation_of(double bytes, std::int64_t n) { return n <= 128 ? static_cast<int>(300e6 / bytes) + 1 : 1; }

void mul_mat(benchmark::State& state, const cuda::device_format& f, cuda::precision policy, std::int64_t m,
             std::int64_t n, std::int64_t k) {
  const cuda::operations& ops = *f.ops;
  const std::int64_t bytes = f.info.row_bytes(k) * m;
  const int rotation = rotation_of(static_cast<double>(bytes), n);
  device_memory weights(static_cast<std::size_t>(bytes * rotation)), x(static_cast<std::size_t>(4 * n * k)),
      out(static_cast<std::size_t>(4 * n * m));
  fill_weights(f, weights.as<std::byte>(), m, k);
  for (int i = 1; i < rotation; ++i)
    cudaMemcpy(weights.as<std::byte>() + i * bytes, weights.data, static_cast<std::size_t>(bytes),
               cudaMemcpyDeviceToDevice);
  upload(x.data, gaussian(static_cast<std::size_t>(n * k)));
  const auto device = cuda::device_info::of(0);
  mul_mat_args a{weights.as<std::byte>(), m, k, f.info.row_bytes(k), x.as<float>(), n, k, out.as<float>(), m};
  const std::size_t size = ops.mul_mat_workspace(a, policy, device);
  device_memory workspace(size);
  bool refused = false;
  const double t = seconds_of(rotation, [&](cudaStream_t s, int i) {
    a.weights = weights.as<std::byte>() + i * bytes;
    refused |= ops.mul_mat(a, policy, device, workspace.data, size, s) != status::ok;
  });
  if (refused) return state.SkipWithError("refused");
  report(state, t, static_cast<double>(bytes), 2.0 * static_cast<double>(m * n * k));
}

/// `used` different ones of the experts for each of n tokens.
std::vector<std::int32_t> chosen_experts(std::int64_t experts, std::int64_t used, std::int64_t n) {
  std::mt19937 g(1);
  std::vector<std::int32_t> chosen, all(static_cast<std::size_t>(experts));
  std::iota(all.begin(), all.end(), 0);
  for (std::int64_t i = 0; i < n; ++i) {
    std::shuffle(all.begin(), all.end(), g);
    chosen.insert(chosen.end(), all.begin(), all.begin() + used);
  }
  return chosen;
}

/// A layer of experts: m x k each, `used` of them for each token.
struct expert_shape {
  std::int64_t experts, used, m, k;
};

void mul_mat_id(benchmark::State& state, const cuda::device_format& f, cuda::precision policy,
                const expert_shape& shape, std::int64_t n) {
  const auto [experts, used, m, k] = shape;
  const cuda::operations& ops = *f.ops;
  const std::int64_t bytes = f.info.row_bytes(k) * m * experts;
  const int rotation = rotation_of(static_cast<double>(bytes), n);
  device_memory weights(static_cast<std::size_t>(bytes * rotation)), x(static_cast<std::size_t>(4 * n * k)),
      out(static_cast<std::size_t>(4 * n * used * m)), ids(static_cast<std::size_t>(4 * n * used));
  fill_weights(f, weights.as<std::byte>(), m * experts, k);
  for (int i = 1; i < rotation; ++i)
    cudaMemcpy(weights.as<std::byte>() + i * bytes, weights.data, static_cast<std::size_t>(bytes),
               cudaMemcpyDeviceToDevice);
  upload(x.data, gaussian(static_cast<std::size_t>(n * k)));
  upload(ids.data, chosen_experts(experts, used, n));
  const auto device = cuda::device_info::of(0);
  mul_mat_id_args a{weights.as<std::byte>(),
                    experts,
                    m,
                    k,
                    f.info.row_bytes(k),
                    f.info.row_bytes(k) * m,
                    x.as<float>(),
                    n,
                    k,
                    0,
                    ids.as<std::int32_t>(),
                    used,
                    used,
                    out.as<float>(),
                    used * m,
                    m};
  const std::size_t size = ops.mul_mat_id_workspace(a, policy, device);
  device_memory workspace(size);
  bool refused = false;
  const double t = seconds_of(rotation, [&](cudaStream_t s, int i) {
    a.weights = weights.as<std::byte>() + i * bytes;
    refused |= ops.mul_mat_id(a, policy, device, workspace.data, size, s) != status::ok;
  });
  if (refused) return state.SkipWithError("refused");
  const double touched =
      static_cast<double>(bytes) * std::min<double>(1, static_cast<double>(n * used) / experts);
  report(state, t, touched, 2.0 * static_cast<double>(n * used * m * k));
}

/// A whole mixture of experts, or the same by separate calls of mul_mat_id without what stands between them.
void moe_ffn(benchmark::State& state, const cuda::device_format& f, const expert_shape& shape, std::int64_t n,
             bool separate) {
  const std::int64_t experts = shape.experts, used = shape.used, inner = shape.m, width = shape.k;
  const cuda::operations& ops = *f.ops;
  const auto policy = cuda::precision::q8;
  const std::int64_t gate_row = f.info.row_bytes(width), down_row = f.info.row_bytes(inner);
  const std::int64_t gate_bytes = 2 * inner * gate_row * experts, down_bytes = width * down_row * experts;
  const std::int64_t bytes = gate_bytes + down_bytes;
  const int rotation = rotation_of(static_cast<double>(bytes), n);
  device_memory weights(static_cast<std::size_t>(bytes * rotation)),
      x(static_cast<std::size_t>(4 * n * width)),
      out(static_cast<std::size_t>(4 * n * used * std::max(width, inner))),
      half(static_cast<std::size_t>(4 * n * used * inner)), ids(static_cast<std::size_t>(4 * n * used)),
      shares(static_cast<std::size_t>(4 * n * used));
  fill_weights(f, weights.as<std::byte>(), 2 * inner * experts, width);
  fill_weights(f, weights.as<std::byte>() + gate_bytes, width * experts, inner);
  for (int i = 1; i < rotation; ++i)
    cudaMemcpy(weights.as<std::byte>() + i * bytes, weights.data, static_cast<std::size_t>(bytes),
               cudaMemcpyDeviceToDevice);
  upload(x.data, gaussian(static_cast<std::size_t>(n * width)));
  upload(shares.data, gaussian(static_cast<std::size_t>(n * used)));
  upload(ids.data, chosen_experts(experts, used, n));
  const auto device = cuda::device_info::of(0);
  cuda::moe_ffn_args a{};
  a.experts = experts, a.width = width, a.inner = inner;
  a.gate_row_stride = gate_row, a.gate_expert_stride = 2 * inner * gate_row;
  a.down_row_stride = down_row, a.down_expert_stride = width * down_row;
  a.activations = x.as<float>(), a.tokens = n, a.activation_stride = width;
  a.ids = ids.as<std::int32_t>(), a.used = used, a.ids_stride = used;
  a.shares = shares.as<float>(), a.shares_stride = used;
  a.out = out.as<float>(), a.out_stride = width;
  const auto product = [&](const std::byte* w, std::int64_t rows, std::int64_t cols, std::int64_t row,
                           std::int64_t stride, const float* from, bool slots, float* to) {
    return mul_mat_id_args{w,
                           experts,
                           rows,
                           cols,
                           row,
                           stride,
                           from,
                           n,
                           slots ? used * cols : cols,
                           slots ? cols : 0,
                           ids.as<std::int32_t>(),
                           used,
                           used,
                           to,
                           used * rows,
                           rows};
  };
  std::size_t size = cuda::moe_ffn_workspace(ops.moe_hidden, ops.moe_output, a, policy, device);
  const auto all = [&](const std::byte* w) {
    return std::array{
        product(w, inner, width, gate_row, a.gate_expert_stride, a.activations, false, half.as<float>()),
        product(w + inner * gate_row, inner, width, gate_row, a.gate_expert_stride, a.activations, false,
                out.as<float>()),
        product(w + gate_bytes, width, inner, down_row, a.down_expert_stride, half.as<float>(), true,
                out.as<float>())};
  };
  for (const auto& p : all(weights.as<std::byte>()))
    size = std::max(size, ops.mul_mat_id_workspace(p, policy, device));
  device_memory workspace(size);
  bool refused = false;
  const double t = seconds_of(rotation, [&](cudaStream_t s, int i) {
    const std::byte* w = weights.as<std::byte>() + i * bytes;
    if (separate) {
      for (const auto& p : all(w))
        refused |= ops.mul_mat_id(p, policy, device, workspace.data, size, s) != status::ok;
    } else {
      a.gate = w, a.down = w + gate_bytes;
      refused |= cuda::moe_ffn(ops.moe_hidden, ops.moe_output, a, policy, device, workspace.data, size, s) !=
                 status::ok;
    }
  });
  if (refused) return state.SkipWithError("refused");
  const double touched =
      static_cast<double>(bytes) * std::min<double>(1, static_cast<double>(n * used) / experts);
  report(state, t, touched, 6.0 * static_cast<double>(n * used * inner * width));
}

void cublas(benchmark::State& state, std::int64_t m, std::int64_t n, std::int64_t k) {
  const std::int64_t values = m * k;
  const int rotation = rotation_of(2.0 * static_cast<double>(values), n);
  device_memory weights(static_cast<std::size_t>(2 * values * rotation)),
      x(static_cast<std::size_t>(2 * n * k)), out(static_cast<std::size_t>(2 * n * m));
  // The same numbers as the other benchmarks: how much power products take depends on them.
  const auto w = weights_as_bf16(m, k);
  for (int i = 0; i < rotation; ++i) upload(weights.as<std::uint16_t>() + i * values, w);
  upload(x.data, to_bf16(gaussian(static_cast<std::size_t>(n * k))));
  cublasHandle_t handle;
  if (cublasCreate(&handle) != CUBLAS_STATUS_SUCCESS) return state.SkipWithError("no cuBLAS");
  device_memory workspace(64 << 20);
  cublasSetWorkspace(handle, workspace.data, 64 << 20);
  const float one = 1, zero = 0;
  const double t = seconds_of(rotation, [&](cudaStream_t s, int i) {
    cublasSetStream(handle, s);
    cublasSetWorkspace(handle, workspace.data, 64 << 20);
    cublasGemmEx(handle, CUBLAS_OP_T, CUBLAS_OP_N, static_cast<int>(m), static_cast<int>(n),
                 static_cast<int>(k), &one, weights.as<std::uint16_t>() + i * values, CUDA_R_16BF,
                 static_cast<int>(k), x.data, CUDA_R_16BF, static_cast<int>(k), &zero, out.data, CUDA_R_16BF,
                 static_cast<int>(m), CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
  });
  cublasDestroy(handle);
  report(state, t, 2.0 * static_cast<double>(values), 2.0 * static_cast<double>(m * n * k));
}

void add(const std::string& name, std::function<void(benchmark::State&)> fn) {
  benchmark::RegisterBenchmark(name.c_str(), std::move(fn))
      ->UseManualTime()
      ->Iterations(1)
      ->Unit(benchmark::kMicrosecond);
}

std::string shape_name(std::int64_t m, std::int64_t n, std::int64_t k) {
  return "/m:" + std::to_string(m) + "/n:" + std::to_string(n) + "/k:" + std::to_string(k);
}

void register_all() {
  constexpr std::int64_t k = 8192;
  // Rows and columns of layers of large models, for few vectors and for many.
  constexpr std::int64_t many[] = {32, 64, 128, 256, 512, 1000, 2048, 4096};
  const std::pair<std::int64_t, std::int64_t> layers[] = {{7168, 18432}, {18432, 7168}, {24576, 1536},
                                                          {1536, 7168},  {7168, 2048},  {2048, 7168},
                                                          {576, 7168},   {16384, 7168}, {129280, 7168}};
  const std::pair<std::int64_t, std::vector<std::int64_t>> shapes[] = {
      {8192, {1, 2, 4, 8, 16, 32, 64, 128, 512, 2048, 4096}}, {28672, {1, 2, 4, 8, 16, 64, 512}}};
  for (const auto& [m, columns] : shapes)
    for (const std::int64_t n : columns)
      add("cuda/cublas/bf16" + shape_name(m, n, k), [=](benchmark::State& s) { cublas(s, m, n, k); });
  for (const auto& [m, columns] : layers)
    for (const std::int64_t n : many)
      add("cuda/cublas/bf16" + shape_name(m, n, columns),
          [=, columns = columns, m = m](benchmark::State& s) { cublas(s, m, n, columns); });
  static const auto formats = cuda::device_formats();
  for (const cuda::device_format& f : formats) {
    for (const auto& [m, columns] : shapes)
      for (const std::int64_t n : columns)
        if (n >= 512)
          add("cuda/mul_mat/" + std::string(f.info.name) + "/fp8" + shape_name(m, n, k),
              [=, &f](benchmark::State& s) { mul_mat(s, f, cuda::precision::fp8, m, n, k); });
    for (const auto policy : {cuda::precision::q8, cuda::precision::bf16}) {
      const std::string name = std::string(f.info.name) + (policy == cuda::precision::q8 ? "/q8" : "/bf16");
      for (const auto& [m, columns] : shapes)
        for (const std::int64_t n : columns)
          if (policy == cuda::precision::q8 ? n <= 16 : n <= 16 ? n == 1 || n == 16 : true)
            add("cuda/mul_mat/" + name + shape_name(m, n, k),
                [=, &f](benchmark::State& s) { mul_mat(s, f, policy, m, n, k); });
      if (policy == cuda::precision::bf16)
        for (const auto& [rows, cols] : layers)
          for (const std::int64_t n : many)
            add("cuda/layer/" + name + shape_name(rows, n, cols),
                [=, &f](benchmark::State& s) { mul_mat(s, f, policy, rows, n, cols); });
      for (const auto& [rows, cols] : layers)
        for (const std::int64_t n : {1, 2, 4})
          if (policy == cuda::precision::q8)
            add("cuda/layer/" + name + shape_name(rows, n, cols),
                [=, &f](benchmark::State& s) { mul_mat(s, f, policy, rows, n, cols); });
      for (const std::int64_t n : {1, 2, 4, 8, 16, 64, 128, 512, 4096})
        if (policy == cuda::precision::q8 ? n <= 128 : n >= 64)
          add("cuda/mul_mat_id/" + name + "/experts:32/used:4" + shape_name(2048, n, 4096),
              [=, &f](benchmark::State& s) {
                mul_mat_id(s, f, policy, {32, 4, 2048, 4096}, n);
              });
      for (const std::int64_t n : {1, 2, 4, 8})
        if (policy == cuda::precision::q8)
          add("cuda/mul_mat_id/" + name + "/experts:256/used:8" + shape_name(2048, n, 7168),
              [=, &f](benchmark::State& s) {
                mul_mat_id(s, f, policy, {256, 8, 2048, 7168}, n);
              });
      for (const std::int64_t n : {1, 2, 4, 8, 64, 512, 4096})
        for (const bool separate : {false, true})
          if (policy == cuda::precision::q8)
            add("cuda/moe_ffn" + std::string(separate ? "_separate/" : "/") + name + "/experts:32/used:4" +
                    shape_name(2048, n, 4096),
                [=, &f](benchmark::State& s) {
                  moe_ffn(s, f, {32, 4, 2048, 4096}, n, separate);
                });
    }
  }
}

}  // namespace
}  // namespace quantal::bench

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 1;
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "quantal_cuda_bench: no CUDA device\n");
    return 1;
  }
  benchmark::AddCustomContext("copy_bandwidth", std::to_string(quantal::bench::copy_bandwidth()));
  quantal::bench::register_all();
  benchmark::RunSpecifiedBenchmarks();
  return 0;
}
